"""Functions that a text LM asks for: how it is told of them, and what of its reply is a call and not said.

The form is that of Hermes, Qwen and SmolLM2: a call is JSON between ``<tool_call>`` and ``</tool_call>``, and what
comes of it is given back between ``<tool_response>`` and ``</tool_response>``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lalia.realtime.events import Called

__all__ = ["Calls", "call_text", "response_text", "told_of"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def told_of(functions: Sequence[Mapping[str, Any]]) -> str:
    """What the instructions say of functions, each with a name, a description and parameters (JSON Schema)."""
    if not functions:
        return ""
    listed = "\n".join(json.dumps(dict(f), ensure_ascii=False) for f in functions)
    return (
        f"These functions can be called:\n<tools>\n{listed}\n</tools>\n"
        f'To call one, write {_OPEN}{{"name": NAME, "arguments": OBJECT}}{_CLOSE} and nothing else. '
        "What comes of it follows in a <tool_response>."
    )


def call_text(name: str, arguments: str) -> str:
    """A call as the language model writes it."""
    return f'{_OPEN}{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}{_CLOSE}'


def response_text(output: str) -> str:
    """What came of a call, as the language model reads it."""
    return f"<tool_response>\n{output}\n</tool_response>"


class Calls:
    """Takes calls out of a text that comes piece by piece."""

    def __init__(self) -> None:
        self._rest = ""

    def push(self, text: str, *, final: bool = False) -> tuple[str, list[Called]]:
        """What is certain by now to be said, and the calls that are whole.

        What opens a call and is none (no JSON, no name, no end) is neither said nor done.
        """
        self._rest += text
        said, calls = "", []
        while _OPEN in self._rest:
            before, inside = self._rest.split(_OPEN, 1)
            said, self._rest = said + before, _OPEN + inside
            if _CLOSE not in inside:
                break
            body, self._rest = inside.split(_CLOSE, 1)
            if (call := _parsed(body)) is not None:
                calls.append(call)
        if not self._rest.startswith(_OPEN):
            # The end of it may be the beginning of a tag.
            held = next((n for n in range(len(_OPEN) - 1, 0, -1) if self._rest.endswith(_OPEN[:n])), 0)
            kept = 0 if final else held
            said += self._rest[: len(self._rest) - kept]
            self._rest = self._rest[len(self._rest) - kept :]
        return said, calls


def _parsed(body: str) -> Called | None:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    return Called(call["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))
