"""Functions that a text LM asks for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.model.calls import Calls, call_text, told_of
from lalia.realtime.events import Called

TEXT = (
    'Well, <b>wait.<tool_call>{"name": "clock", "arguments": {"zone": "UTC"}}</tool_call>'
    " It is <tool_call>nonsense</tool_call>late."
)
PARTS = ("Well, <b>wait. It is late.", [Called("clock", '{"zone": "UTC"}')])


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_calls_are_found_however_the_text_comes(cuts: list[int]) -> None:
    calls, said, found, at = Calls(), "", list[Called](), 0
    for cut in [*sorted(cuts), len(TEXT)]:
        text, new = calls.push(TEXT[at:cut], final=cut == len(TEXT))
        assert "<tool" not in text
        said, found, at = said + text, found + new, cut
    assert (said, found) == PARTS


def test_what_is_certain_is_not_held_back() -> None:
    calls = Calls()
    assert calls.push("One < two") == ("One < two", [])
    assert calls.push(" and <tool") == (" and ", [])
    assert calls.push("box> three") == ("<toolbox> three", [])
    assert calls.push(" <", final=True) == (" <", [])


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"name": 3}', "[" * 100_000])
def test_what_is_no_call_is_neither_said_nor_done(body: str) -> None:
    assert Calls().push(f"a<tool_call>{body}</tool_call>b", final=True) == ("ab", [])


def test_a_call_without_an_end_is_not_said() -> None:
    assert Calls().push('a<tool_call>{"name": "x"', final=True) == ("a", [])


def test_calls_are_written_as_they_are_read() -> None:
    text = call_text("clock", json.dumps({"zone": 'a "b"'}))
    assert Calls().push(text, final=True) == ("", [Called("clock", '{"zone": "a \\"b\\""}')])
    assert "clock" in told_of([{"name": "clock"}])
    assert told_of([]) == ""
