import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, DataError
from lalia.evaluation.downstream import character_error_rate, phone_error_rate, word_error_rate
from lalia.evaluation.text import NORMALIZERS, Basic, NoPunctuation, Verbatim, normalizer_named

texts = st.lists(st.sampled_from(["a", "bb", "c,", "D"]), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=25)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_corpus_rates_are_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    jiwer = pytest.importorskip("jiwer")
    said, heard = (dict(enumerate(map("{}".format, side))) for side in zip(*pairs, strict=True))
    a, b = ({str(k): v for k, v in side.items()} for side in (said, heard))
    assert word_error_rate(a, b, normalizer=Verbatim()).value == pytest.approx(
        jiwer.wer(list(said.values()), list(heard.values()))
    )
    assert character_error_rate(a, b, normalizer=Verbatim()).value == pytest.approx(
        jiwer.cer(list(said.values()), list(heard.values()))
    )


def test_the_normaliser_decides() -> None:
    said, heard = {"x": "Hello, world!"}, {"x": "hello world"}
    rates = {n: word_error_rate(said, heard, normalizer=normalizer_named(n)).value for n in NORMALIZERS}
    assert rates == {"none": 1.0, "punctuation-removed": 0.5, "basic": 0.0, "whisper-english": 0.0}
    assert NoPunctuation()("Don't — stop… “now” $5!") == "Dont stop now 5"
    with pytest.raises(ConfigError, match="no normaliser 'x'"):
        normalizer_named("x")  # type: ignore[arg-type]


def test_what_is_missing_is_all_deletions_and_is_counted() -> None:
    found = word_error_rate({"a": "one two", "b": "three"}, {"a": "one two"}, normalizer=Basic())
    assert found.value == pytest.approx(1 / 3)
    assert (found.counts.asked, found.counts.answered, found.counts.failed) == (2, 1, 1)
    assert [x["errors"] for x in found.items] == [0, 1]
    assert found.figures["deletions"].value == found.value
    assert found.to_dict()["settings"]["normalizer"] == {"name": "basic", "version": "1"}


def test_chinese_without_spaces() -> None:
    said, heard = {"a": "今天 天气 很好"}, {"a": "今天天汽很好"}
    assert character_error_rate(said, heard, normalizer=Basic(), spaces=False).value == pytest.approx(1 / 6)
    assert character_error_rate(said, heard, normalizer=Basic()).value == pytest.approx(3 / 8)


def test_phones() -> None:
    found = phone_error_rate({"a": "HH AH0 L OW1", "b": ["W", "ER1"]}, {"a": ["HH", "L", "OW1"], "b": "W ER0"})
    assert found.value == pytest.approx(2 / 6)


def test_bad_input() -> None:
    with pytest.raises(DataError, match="no references"):
        word_error_rate({}, {}, normalizer=Basic())
    with pytest.raises(DataError, match="prediction for 'z'"):
        word_error_rate({"a": "x"}, {"z": "x"}, normalizer=Basic())
    with pytest.raises(DataError, match="empty once normalised"):
        word_error_rate({"a": "?!"}, {"a": "x"}, normalizer=Basic())
    assert not math.isnan(word_error_rate({"a": "", "b": "x"}, {"a": "y", "b": "x"}, normalizer=Basic()).value)
