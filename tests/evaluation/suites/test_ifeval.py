import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.suites import Item, score_ifeval
from lalia.evaluation.suites.ifeval import detect_language, follows


def english(_: str) -> str:
    return "en"


CASES: list[tuple[str, dict[str, Any], str, bool]] = [
    ("keywords:existence", {"keywords": ["sea", "Sun"]}, "The SEA and the sun", True),
    ("keywords:existence", {"keywords": ["sea", "moon"]}, "The sea", False),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "at least"}, "sea, Seaside", True),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "less than"}, "sea, Seaside", False),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "seaside", True),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "the Sea.", False),
    ("keywords:letter_frequency", {"letter": "a", "let_frequency": 3, "let_relation": "at least"}, "A banana", True),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "less than"}, "#one", True),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, "One. Two! Three?", True),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "Dr. J. Smith is in.", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo\n***", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one *** *** two", False),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two-three", True),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one two three", False),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"}, "First.\n\n\"Then,\" he said.", True,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "then"}, "First.\n\nThen.", False,
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [place]", True),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of place", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. Again", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.S. Again", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n** two", False),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", True),
    ("detectable_format:constrained_response", {}, "my answer is no", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "**two** ****", False),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1\nx\nSECTION 2\ny", True,
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2}, "Section 1\nSection 2", False,
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', True),
    ("detectable_format:json_format", {}, "{'a': 1}", False),
    ("detectable_format:title", {}, "<<Of joy>>\nx", True),
    ("detectable_format:title", {}, "<< >> <x>", False),
    ("combination:two_responses", {}, "one\n******\ntwo", True),
    ("combination:two_responses", {}, "one******one", False),
    ("combination:two_responses", {}, "one************two", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, " say it: it", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, "I say it", False),
    ("startend:end_checker", {"end_phrase": "The end."}, 'x. the END."', True),
    ("startend:end_checker", {"end_phrase": "The end."}, "The end. Really.", False),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "AN ICE-AG", True),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "less than"}, "An Ice", True),
    ("change_case:english_capital", {}, "ALL OF IT 1", True),
    ("change_case:english_capital", {}, "All of it", False),
    ("change_case:english_lowercase", {}, "all of it", True),
    ("punctuation:no_comma", {}, "one; two", True),
    ("punctuation:no_comma", {}, "one, two", False),
    ("startend:quotation", {}, ' "x" ', True),
    ("startend:quotation", {}, '"', False),
    ("language:response_language", {"language": "en"}, "anything", True),
    ("language:response_language", {"language": "fr"}, "anything", False),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "arguments", "reply", "good"), CASES)
def test_every_instruction(instruction: str, arguments: dict[str, Any], reply: str, good: bool) -> None:
    # Rows of the hub have every argument that there is, the others null.
    filled = {"num_words": None, "keywords": None, **arguments}
    assert follows(instruction, filled, reply, detect=english) is good
    assert not follows(instruction, filled, " \n", detect=english)


def test_all_kinds_are_there() -> None:
    assert len({name for name, *_ in CASES}) == 25


def test_languages_do_not_depend_on_chance() -> None:
    pytest.importorskip("langdetect")
    assert {detect_language("Das ist ein ganz gewöhnlicher deutscher Satz.") for _ in range(5)} == {"de"}
    assert detect_language("12345") is None
    assert follows("language:response_language", {"language": "kn"}, "12345")


def item(key: str, *instructions: tuple[str, dict[str, Any]]) -> Item:
    return Item(
        id=key, extra={"instruction_id_list": [n for n, _ in instructions], "kwargs": [a for _, a in instructions]}
    )


def test_strict_and_loose_by_prompt_and_by_instruction() -> None:
    short = ("length_constraints:number_words", {"num_words": 4, "relation": "less than"})
    items = [
        item("a", ("punctuation:no_comma", {}), short),
        item("b", ("startend:quotation", {})),
        item("c", ("punctuation:no_comma", {})),
    ]
    found = score_ifeval(items, {"a": "Well, sure:\none two", "b": '"x"'}, detect=english)
    # a: the comma and the words are in the first line, which the loose reading may leave out; c has no reply.
    assert found.items[0]["strict"] == [False, False]
    assert found.items[0]["loose"] == [True, True]
    values = {k: e.value for k, e in found.figures.items()}
    assert values["strict_prompt"] == pytest.approx(1 / 3)
    assert values["strict_instruction"] == pytest.approx(1 / 4)
    assert values["loose_prompt"] == pytest.approx(2 / 3)
    assert values["loose_instruction"] == pytest.approx(3 / 4)
    assert values["final"] == pytest.approx((1 / 3 + 1 / 4 + 2 / 3 + 3 / 4) / 4)
    assert (found.counts.answered, found.counts.failed) == (2, 1)


@given(st.text(alphabet='ab,*\n"', max_size=20))
def test_what_is_strict_is_loose(reply: str) -> None:
    one = item("a", ("punctuation:no_comma", {}), ("startend:quotation", {}))
    found = score_ifeval([one], {"a": reply}, detect=english)
    assert all(not s or loose for s, loose in zip(found.items[0]["strict"], found.items[0]["loose"], strict=True))


def test_bad_input() -> None:
    with pytest.raises(DataError, match="no instruction 'keywords:x' in IFEval"):
        follows("keywords:x", {}, "a")
    with pytest.raises(DataError, match="has no argument 'keywords'"):
        follows("keywords:existence", {"keywords": None}, "a")
    with pytest.raises(DataError, match="relation 'at most'"):
        follows("length_constraints:number_words", {"num_words": 1, "relation": "at most"}, "a")
    with pytest.raises(DataError, match="'x' has no instructions"):
        score_ifeval([Item(id="x")], {})
    json.dumps(score_ifeval([item("a", ("punctuation:no_comma", {}))], {"a": "x"}, detect=english).to_dict())
