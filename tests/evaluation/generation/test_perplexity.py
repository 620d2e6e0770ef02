import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.generation.perplexity import evaluate_perplexity, summarize


class Counts:
    """A text LM that finds each word as likely as one in as many as it has letters."""

    name, version = "counts", "1"

    def __init__(self, most: int = 99) -> None:
        self.most, self.calls = most, 0

    def log_probs(self, texts, prompts=None):
        self.calls += 1
        if any(len(text.split()) > self.most for text in texts):
            raise DataError("It is too long. Shorten it.")
        return [torch.tensor([-math.log(len(word)) for word in text.split()]) for text in texts]

    def log_prob(self, text, prompt=""):
        return float(self.log_probs([text])[0].sum())


@given(st.lists(st.floats(0, 8), min_size=1, max_size=20))
def test_averages_are_those_of_the_definitions(nlls) -> None:
    found = {name: estimate["value"] for name, estimate in summarize(nlls).items()}
    each = [math.exp(x) for x in nlls]
    assert found["mean"] == pytest.approx(sum(each) / len(each))
    assert found["geometric"] == pytest.approx(math.exp(sum(nlls) / len(nlls)))
    assert found["median"] == pytest.approx(statistics.median(each))
    assert found["geometric"] <= found["mean"] * (1 + 1e-9)


def test_worked_example() -> None:
    # Per token: ln 4 and ln 1, ln 16 once.
    found = evaluate_perplexity({"b": "abcd a", "a": " abcdefghijklmnop "}, Counts())
    a, b = found["items"]
    assert (a["id"], a["tokens"], a["perplexity"]) == ("a", 1, pytest.approx(16))
    assert (b["id"], b["tokens"], b["perplexity"]) == ("b", 2, pytest.approx(2))
    summary = found["summary"]
    assert summary["mean"]["value"] == pytest.approx(9)
    assert summary["geometric"]["value"] == pytest.approx(math.sqrt(32))
    assert summary["mean"]["low"] <= 9 <= summary["mean"]["high"]
    assert found["settings"]["lm"] == {"name": "counts", "version": "1"}


def test_what_cannot_be_scored_is_counted() -> None:
    lm = Counts(most=2)
    found = evaluate_perplexity({"a": "", "b": "ab", "c": "a b c", "d": "  "}, lm)
    assert (found["asked"], found["answered"], found["failed"]) == (4, 1, 3)
    assert [(f["id"], f["reason"]) for f in found["failures"]] == [
        ("a", "It has no tokens."),
        ("c", "It is too long. Shorten it."),
        ("d", "It has no tokens."),
    ]
    assert found["summary"]["mean"]["value"] == pytest.approx(2)
    assert evaluate_perplexity({}, lm)["summary"]["median"]["value"] is None


def test_what_is_no_number_is_a_failure() -> None:
    class Broken(Counts):
        def log_probs(self, texts, prompts=None):
            return [torch.full((2,), math.nan) for _ in texts]

    found = evaluate_perplexity({"a": "x"}, Broken())
    assert found["failed"] == 1
    assert "nan" in found["failures"][0]["reason"]
