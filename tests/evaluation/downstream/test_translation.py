import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.downstream import asr_bleu, bleu
from lalia.evaluation.downstream.translation import _bleu
from lalia.evaluation.text import Basic

sacrebleu = pytest.importorskip("sacrebleu")

words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat."]), max_size=9).map(" ".join)


@settings(max_examples=25)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_the_score_and_the_resampled_score_are_those_of_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    references, said = ([p[i] for p in pairs] for i in (0, 1))
    ids = [str(i) for i in range(len(pairs))]
    public = sacrebleu.corpus_bleu(said, [references])
    found = bleu(dict(zip(ids, references, strict=True)), dict(zip(ids, said, strict=True)))
    assert found.value == pytest.approx(public.score)
    sums = np.array([[*public.counts, *public.totals, public.sys_len, public.ref_len]], np.float64)
    assert _bleu(sums)[0] == pytest.approx(public.score, abs=1e-9)


def test_the_interval_is_that_of_a_corpus_bootstrap_written_out() -> None:
    rng = random.Random(0)
    vocabulary = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hat"]
    references = [" ".join(rng.choices(vocabulary, k=12)) for _ in range(30)]
    said = [" ".join(w if rng.random() < 0.8 else rng.choice(vocabulary) for w in r.split()) for r in references]
    scores = []
    for _ in range(300):
        chosen = rng.choices(range(30), k=30)
        scores.append(sacrebleu.corpus_bleu([said[i] for i in chosen], [[references[i] for i in chosen]]).score)
    found = bleu({f"{i:02}": r for i, r in enumerate(references)}, {f"{i:02}": s for i, s in enumerate(said)})
    low, high = np.percentile(scores, (2.5, 97.5))
    assert found.figures["bleu"].low == pytest.approx(low, abs=2)
    assert found.figures["bleu"].high == pytest.approx(high, abs=2)


def test_signature_case_tokenizer_and_several_references() -> None:
    said = {"a": "The cat sat on the mat"}
    lower = {"a": "the cat sat on the mat"}
    assert bleu(said, lower).value < 100
    found = bleu(said, lower, lowercase=True)
    assert found.value == pytest.approx(100)
    assert "case:lc" in found.settings["signature"]
    assert "tok:13a" in found.settings["signature"]
    chinese = bleu({"a": "今天天气很好"}, {"a": "今天天气很好"}, tokenize="zh")
    assert chinese.value == pytest.approx(100)
    assert "tok:zh" in chinese.settings["signature"]
    both = bleu({"a": ["a dog ran away today", "the cat sat on the mat"]}, lower)
    assert both.value == pytest.approx(100)
    with pytest.raises(DataError, match="how many references"):
        bleu({"a": ["x", "y"], "b": ["x"]}, {})


def test_missing_predictions_count() -> None:
    references = {"a": "one two three four five", "b": "six seven eight nine ten"}
    found = bleu(references, {"a": references["a"]})
    assert found.counts.failed == 1
    assert found.value == pytest.approx(100 * np.exp(1 - 10 / 5))


class Hears:
    """Hears a number of words by the length of the sound, and shouts."""

    name, version = "counting", "1"

    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        return [" ".join(["ONE,", "TWO,", "THREE,", "FOUR", "FIVE!"][: x.samples.shape[-1]]) for x in recordings]


def test_asr_bleu_has_one_recogniser_and_one_normaliser_on_both_sides() -> None:
    def sound(n: int) -> Audio:
        return Audio(torch.full((1, 1, n), 0.1), 16_000)

    found = asr_bleu(
        {"a": "one two three four five", "b": sound(5)},
        {"a": sound(5), "b": sound(5)},
        recognizer=Hears(),
        normalizer=Basic(),
    )
    assert found.value == pytest.approx(100)
    assert found.items[0]["heard"] == "ONE, TWO, THREE, FOUR FIVE!"
    assert found.settings["recognizer"]["name"] == "counting"
    assert found.settings["normalizer"]["name"] == "basic"
    assert asr_bleu({"a": "one"}, {}, recognizer=Hears(), normalizer=Basic()).counts.failed == 1
