from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lalia.errors import JudgeError
from lalia.evaluation.judging import Message


class Scripted:
    """A judge that replies by a rule, and remembers what it was shown."""

    name, version = "scripted", "1"

    def __init__(self, rule: Callable[[str], str | None]) -> None:
        self.rule = rule
        self.seen: list[Sequence[Message]] = []

    def __call__(self, messages: Sequence[Message]) -> str:
        self.seen.append(messages)
        reply = self.rule(messages[-1]["content"])
        if reply is None:
            raise JudgeError("It is down. Wait.")
        return reply


@pytest.fixture
def scripted() -> Any:
    return Scripted
