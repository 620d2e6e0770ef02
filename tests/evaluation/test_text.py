from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.evaluation.text import Basic, WhisperEnglish, character_edits, edits, word_edits


def naive_distance(a: str, b: str) -> int:
    """Levenshtein's recursion as it is defined."""

    @cache
    def d(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


words = st.text(alphabet="abc", max_size=12)


@given(words, words)
def test_distance_is_that_of_the_definition(a: str, b: str) -> None:
    found = edits(a, b)
    assert found.errors == naive_distance(a, b)
    # The kinds are those of one path: they lead from one length to the other.
    assert found.length - found.deletions + found.insertions == len(b)
    assert found.substitutions + found.deletions <= found.length


@given(words, words)
def test_turning_it_round_swaps_deletions_and_insertions(a: str, b: str) -> None:
    assert edits(a, b).errors == edits(b, a).errors


@given(st.lists(st.sampled_from(["a", "bb", "c"]), min_size=1), st.lists(st.sampled_from(["a", "bb", "c"])))
def test_rates_are_those_of_jiwer(reference: list[str], hypothesis: list[str]) -> None:
    jiwer = pytest.importorskip("jiwer")
    a, b = " ".join(reference), " ".join(hypothesis)
    assert word_edits(a, b).rate == pytest.approx(jiwer.wer(a, b))
    assert character_edits(a, b).rate == pytest.approx(jiwer.cer(a, b))


def test_kinds() -> None:
    found = word_edits("the cat sat on a red mat", "the cat sit on red mat now")
    assert (found.substitutions, found.deletions, found.insertions, found.length) == (1, 1, 1, 7)
    assert found.rate == 3 / 7


def test_an_empty_reference() -> None:
    assert word_edits("", "").rate == 0
    assert word_edits("", "something said").rate == 1


def test_basic() -> None:
    basic = Basic()
    assert basic("Hello, World!  It\u2019s \u201cfine\u201d \u2014 don't 'quote' rock_roll") == (
        "hello world it's fine don't quote rock roll"
    )
    assert basic("\uff21\uff22 Stra\u00dfe \u7b2c\u4e00") == "ab stra\u00dfe \u7b2c\u4e00"


def test_whisper_english() -> None:
    normalize = WhisperEnglish()
    assert normalize("Mr. Smith won't pay ninety-nine dollars, uh, [noise]") == "mister smith will not pay $99"
    assert normalize("CHAPTER NINETY NINE") == normalize("Chapter 99.")
    assert normalize("colour") == "colour"
    assert "no spelling table" in normalize.version


def test_whisper_english_with_spellings() -> None:
    normalize = WhisperEnglish({"colour": "color"})
    assert normalize("Colour") == "color"
    assert "1 spellings" in normalize.version


@given(st.text(max_size=40))
def test_basic_is_done_once(text: str) -> None:
    basic = Basic()
    assert basic(basic(text)) == basic(text)
