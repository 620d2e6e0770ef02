import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.errors import ConfigError
from lalia.evaluation.generation.diversity import auto_bleu, evaluate_diversity, repeated_ngrams, self_bleu, vert

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=6)


def grams(words, n):
    return [tuple(words[p : p + n]) for p in range(len(words) - n + 1)]


def naive_self_bleu(texts, i):
    """Modified precision (Papineni et al. 2002) against all references but one's own, by definition."""
    product = 1.0
    for n in (1, 2):
        own = Counter(grams(texts[i], n))
        others = [Counter(grams(t, n)) for j, t in enumerate(texts) if j != i]
        clipped = sum(min(c, max((o[g] for o in others), default=0)) for g, c in own.items())
        product *= clipped / max(sum(own.values()), 1)
    return math.sqrt(product)


def naive_auto_bleu(words):
    """n-grams of what is left and right of each place."""
    product = 1.0
    for n in (1, 2):
        all_of = grams(words, n)
        if not all_of:
            return 0.0
        found = sum(g in grams(words[:p], n) + grams(words[p + n :], n) for p, g in enumerate(all_of))
        product *= found / len(all_of)
    return math.sqrt(product)


@given(TEXTS)
def test_self_bleu_is_that_of_the_definition(texts) -> None:
    assert self_bleu(texts) == pytest.approx([naive_self_bleu(texts, i) for i in range(len(texts))])


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_auto_bleu_is_that_of_the_definition(words) -> None:
    assert auto_bleu(words) == pytest.approx(naive_auto_bleu(words))


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_repeated_bigrams_are_counted_wherever_they_are(words) -> None:
    pairs = grams(words, 2)
    expected = sum(any(g == h for j, h in enumerate(pairs) if j != i) for i, g in enumerate(pairs))
    assert repeated_ngrams(words) == pytest.approx(expected / len(pairs) if pairs else 0.0)


@pytest.mark.filterwarnings("ignore")
def test_self_bleu_is_that_of_nltk() -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    rng = random.Random(0)
    texts = [[rng.choice("abcdefgh") for _ in range(rng.randrange(2, 15))] for _ in range(30)]
    found = self_bleu(texts)
    for i, text in enumerate(texts):
        rest = texts[:i] + texts[i + 1 :]
        parts = [bleu.modified_precision(rest, text, n) for n in (1, 2)]
        assert found[i] == pytest.approx(math.sqrt(math.prod(map(float, parts))))
        penalty = bleu.brevity_penalty(bleu.closest_ref_length(rest, len(text)), len(text))
        assert found[i] * penalty == pytest.approx(bleu.sentence_bleu(rest, text, (0.5, 0.5)), abs=1e-12)


def test_the_two_auto_bleus_differ() -> None:
    words = ["no", "no", "no"]
    # (no no) stands twice, but the two overlap.
    assert auto_bleu(words) == 0.0
    assert repeated_ngrams(words) == 1.0
    # 4 of 5 words, 2 of 4 bigrams.
    assert auto_bleu(["a", "b", "c", "a", "b"]) == pytest.approx(math.sqrt(4 / 5 * 2 / 4))


def test_worked_example() -> None:
    # Words: 2 of 3 in the other; bigrams: 1 of 2. The other way: 2 of 2 and 1 of 1.
    assert self_bleu([["a", "b", "c"], ["a", "b"]]) == pytest.approx([math.sqrt(1 / 3), 1.0])
    assert vert(np.array([0.2, 0.4]), np.array([0.1, 0.2])) == pytest.approx(math.sqrt(0.3 * 0.15))


def test_others_are_not_oneself() -> None:
    assert self_bleu([["a", "a", "b"]]) == [0.0]
    assert self_bleu([["a", "b"]] * 2) == [1.0, 1.0]
    assert self_bleu([]) == []


def test_a_thousand_texts() -> None:
    rng = random.Random(0)
    texts = [[rng.randrange(2000) for _ in range(30)] for _ in range(1000)]
    found = self_bleu(texts)
    assert found[17] == pytest.approx(naive_self_bleu(texts, 17))


def test_evaluation_counts_what_has_no_words() -> None:
    texts = {"b": "The cat, the cat!", "a": "the cat sat", "c": " ... ", "d": ""}
    found = evaluate_diversity(texts)
    assert (found["asked"], found["answered"], found["failed"]) == (4, 2, 2)
    assert [item["id"] for item in found["items"]] == ["a", "b"]
    assert [failure["id"] for failure in found["failures"]] == ["c", "d"]
    summary, (a, b) = found["summary"], found["items"]
    assert b["auto_bleu2"] == pytest.approx(math.sqrt(1 * 2 / 3))
    mean_self, mean_auto = (a["self_bleu2"] + b["self_bleu2"]) / 2, (a["auto_bleu2"] + b["auto_bleu2"]) / 2
    assert summary["vert"]["value"] == pytest.approx(math.sqrt(mean_self * mean_auto))
    assert summary["vert"]["low"] <= summary["vert"]["value"] <= summary["vert"]["high"]
    assert summary["repeated"]["n"] == 2


def test_nothing_to_compare() -> None:
    found = evaluate_diversity({"a": ""})
    assert found["failed"] == 1
    assert found["summary"]["vert"]["value"] is None


def test_an_order_that_is_none() -> None:
    for call in (lambda: self_bleu([["a"]], 0), lambda: auto_bleu(["a"], 0), lambda: repeated_ngrams(["a"], 0)):
        with pytest.raises(ConfigError, match="order 0"):
            call()
