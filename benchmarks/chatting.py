"""From the end of a spoken question to the first sound of the reply, part by part: mini beside a cascade of its parts.

Both are asked the bundled questions, one a round. The sound comes in pieces, as from a microphone, and the clock begins
with the last of them.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.worker import Gate
from lalia.evaluation.benchmarks import listened, questions
from lalia.model import Model, load
from lalia.model.dialogue import Sound
from lalia.vocoders import Chain

__all__ = ["PARTS", "lalia", "peer"]

PARTS = ("encode", "prefill", "first token", "first unit", "first sound")
"""Each from the end of the one before it, in the order in which they are there."""

_TALK: Mapping[str, Any] = {"temperature": 0.0, "max_tokens": 80, "seconds": 30.0}
"""As ``lalia eval`` talks: greedily, so that a reply is the same each time."""


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    return _answer(gate, options, "mini")


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of the cascade."""
    return _answer(gate, options, "cascade")


def _answer(gate: Gate, options: Mapping[str, Any], name: str) -> dict[str, float]:
    model = load(name)
    asked = questions(options["questions"])
    _ask(model, asked[0])
    for number in gate.rounds(questions=len(asked)):
        gate.note(parts=_ask(model, asked[number]))
    return {}


def _ask(model: Model, question: Any) -> dict[str, float] | None:
    """Milliseconds of each part, and in all; None where it was not understood: then nothing is thought.

    What comes behind the first sound is not waited for.
    """
    events = listened(model, question.load(), **_TALK).turn()
    with _watched(model) as seen:
        started = time.perf_counter()
        next(events)
        seen["encode"] = time.perf_counter()
        for event in events:
            if isinstance(event, Sound):
                seen["first sound"] = time.perf_counter()
                break
        events.close()
    if any(part not in seen for part in PARTS):
        return None
    ends = [started, *(seen[part] for part in PARTS)]
    parts = {part: 1000 * (end - begin) for part, begin, end in zip(PARTS, ends, ends[1:], strict=False)}
    return {**parts, "in all": 1000 * (ends[-1] - started)}


@contextmanager
def _watched(model: Model) -> Iterator[dict[str, float]]:
    """When the language model had read for the first time, when it gave a token, and when the first units were made."""
    seen: dict[str, float] = {}
    talk, vocoder = model.recipe.talk, model.vocoder
    assert talk is not None
    assert isinstance(vocoder, Chain)
    lm: Any = model.lms[talk.lm]
    maker: Any = vocoder.stages[-1]
    generate, convert = lm.generate, maker.convert

    def mark(part: str) -> None:
        seen.setdefault(part, time.perf_counter())

    def generating(*arguments: Any, **named: Any) -> Iterator[Any]:
        for made in generate(*arguments, **named):
            mark("first token")
            yield made

    def converting(*arguments: Any, **named: Any) -> Any:
        made = convert(*arguments, **named)
        if any(tokens.num_tokens for tokens in made.values()):
            mark("first unit")
        return made

    lm.generate, maker.convert = generating, converting
    hook = lm.register_forward_hook(lambda *_: mark("prefill"))
    try:
        yield seen
    finally:
        hook.remove()
        del lm.generate, maker.convert
