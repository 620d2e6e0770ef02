"""Questions that are spoken or typed, and the replies to them as they are kept."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.benchmarks.base import Conversation, Reply, Talks
from lalia.evaluation.benchmarks.bundled import Question, questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import answers_of, collect, keep, unanswered

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Exchanges", "converse", "exchanged", "in_real_time", "listened", "replied", "typed", "typed_place"]

_RATE, _PIECE = 16_000, 0.1
"""Of the sound that is listened to, in Hz, and seconds of each piece."""

_SPOKEN, _TYPED = "exchanges", "typed"
"""What is asked for several benchmarks, by the folder in which it is kept."""


def listened(model: Talks, said: Audio, **settings: Any) -> Conversation:
    """A conversation that begins with a recording, all of which was listened to and none of which is answered yet.

    The sound comes in pieces, as a microphone has them, so that a model can hear while the user speaks.
    """
    talk = model.dialogue(**settings)
    said = said.to(_RATE)
    for i in range(math.ceil(said.seconds / _PIECE)):
        talk.listen(said.cut(i * _PIECE, _PIECE))
    return talk


def converse(model: Talks, said: Audio, **settings: Any) -> tuple[str, Reply]:
    """What was heard, and the whole reply, whose clock begins when the last of what is said has come."""
    events = listened(model, said, **settings).turn()
    heard = next(events).text
    *_, last = events
    return heard, last.reply


@contextlib.contextmanager
def in_real_time(model: Any, talking: Mapping[str, Any]) -> Iterator[Any]:
    """A session, which is closed behind it. A model that decides by itself when it speaks has no replies to be bounded,
    and samples as its recipe says.

    :param talking: as ``Bench.in_session`` has it.
    :raises ConfigError: it holds no conversation in real time, or cannot tell whom it is to answer.
    """
    if not hasattr(model, "session"):
        raise ConfigError("It holds no conversation in real time. Choose another model.")
    by_turns = getattr(getattr(model, "recipe", None), "talk", None) is not None
    settings = {k: v for k, v in talking.items() if k == "seed" or (by_turns and k != "whom")}
    if "whom" in talking:
        settings["addressee"] = model.addressee(**talking["whom"])
    session = model.session(**settings)
    try:
        yield session
    finally:
        if (close := getattr(session, "close", None)) is not None:
            close()


def replied(model: Any, said: Audio, to: str | None, talking: Mapping[str, Any]) -> Answer:
    """What is heard in a recording that begins a conversation, and the reply.

    :param to: the file for the sound of the reply, where it has any; None for a reply in words.
    :returns: ``heard``, ``reply``; ``unclear``: the reply is what the model says to what it did not understand;
        ``audio``: the file, or None; ``seconds`` of it; ``timings`` in ms.
    :raises ConfigError: it holds no conversation.
    """
    if not hasattr(model, "dialogue"):
        raise ConfigError("The model holds no conversation. Choose another.")
    heard, reply = converse(model, said, **talking, **({"speak": False} if to is None else {}))
    seconds = 0.0 if reply.audio is None else reply.audio.seconds
    told = {"heard": heard, "reply": reply.text, "unclear": reply.text == _unclear_of(model), "seconds": seconds}
    if to is not None and reply.audio is not None and seconds:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        reply.audio.save(to)
    return {**told, "audio": to if seconds else None, "timings": dict(reply.timings)}


def _unclear_of(model: Any) -> str | None:
    """What a model replies to what it did not understand, where it has such a sentence."""
    talk = getattr(getattr(model, "recipe", None), "talk", None)
    return getattr(talk, "unclear", None)


@dataclass(frozen=True)
class Exchanges:
    """The bundled questions with the replies to them, by id and as `replied` gives them.

    :param peer: replies of the peer; None where there is none.
    :param at_once: all was asked one after the other in this process, so that times are of the same work.
    """

    questions: Sequence[Question]
    own: Kept
    peer: Kept | None
    at_once: bool


def exchanged(bench: "Bench") -> Exchanges:
    """Ask for what is missing; where there is a peer, both are asked in turn.

    :raises ConfigError: only kept answers may be scored, and some are missing.
    """
    asked = questions(bench.limit)
    benches = [bench] if bench.against is None else [bench, bench.against]
    items = [[_spoken(b, q) for q in asked] for b in benches]
    kept = [Kept(b.place(_SPOKEN, "answers"), _header(b, _SPOKEN)) for b in benches]
    missing = [unanswered(of, k, b) for of, k, b in zip(items, kept, benches, strict=True)]
    for b, of in zip(benches, missing, strict=True):
        if of:
            # What is loaded or compiled at first use is nobody's latency; what fails does so again, where it is kept.
            with contextlib.suppress(LaliaError):
                _exchange(b.model, of[:1])
    for i in range(len(asked) if any(missing) else 0):
        # Who is first changes, so that neither gains by a warm cache.
        for k in range(len(benches)) if i % 2 == 0 else reversed(range(len(benches))):
            if items[k][i] in missing[k]:
                keep(kept[k], items[k][i], answers_of(_exchange, benches[k].model, [items[k][i]])[0])
        bench.progress("asking", i + 1, len(asked))
    own, *peers = (k.of(those) for k, those in zip(kept, items, strict=True))
    return Exchanges(asked, own, peers[0] if peers else None, all(len(of) == len(asked) for of in missing))


def _header(bench: "Bench", name: str) -> dict[str, Any]:
    return {"benchmark": name, "model": dict(bench.answers_as), "settings": dict(bench.talking)}


def _spoken(bench: "Bench", question: Question) -> Item:
    to = str(bench.sounds(_SPOKEN) / f"{question.id}.flac")
    return Item.hearing(question.id, question.utterance, talking=dict(bench.talking), to=to)


def _exchange(model: Any, items: Sequence[Item]) -> Sequence[Answer]:
    return [replied(model, i.heard(), i.asks["to"], i.asks["talking"]) for i in items]


def typed_place(bench: "Bench") -> Kept:
    """Where replies to what is typed are kept."""
    return Kept(bench.place(_TYPED, "answers"), _header(bench, _TYPED))


def typed(bench: "Bench", texts: Iterable[str], kept: Kept) -> Kept:
    """The replies (``reply``) to texts, typed, of which each begins a conversation; by text."""
    items = [Item.of(text, {"text": text, "talking": dict(bench.talking)}) for text in dict.fromkeys(texts)]
    return collect(_type, items, kept, bench, size=1)


def _type(model: Any, items: Sequence[Item]) -> Sequence[Answer]:
    return [
        {"reply": model.dialogue(**i.asks["talking"], speak=False).answer(i.asks["text"], typed=True).text}
        for i in items
    ]
