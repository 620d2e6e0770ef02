"""Full-Duplex-Bench v1.5 (Lin et al., arXiv:2507.23159): how long both talk, how long nobody does, and what follows.

The rules are those of its scorers at commit d7336bd.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from lalia.data import Word
from lalia.errors import DataError
from lalia.evaluation.intervals import Interval, merged
from lalia.evaluation.text import Normalizer, WhisperEnglish

__all__ = [
    "Behaviour",
    "Exchange",
    "Timing",
    "asks_again",
    "behaviour_by_words",
    "behaviour_shares",
    "parse_behaviour",
    "timing",
]

_USER_GAP, _MODEL_GAP = 0.6, 0.5

Behaviour = Literal["C_RESPOND", "C_RESUME", "C_UNCERTAIN_HANDLING", "C_UNKNOWN"]
"""What the model says after an overlap: an answer to it; on with what it was saying; that it did not hear; or else."""


@dataclass(frozen=True)
class Timing:
    """Of one recording.

    :param stop: when both spoke, until one of them stopped.
    :param response: when nobody did, from the end of the user's speech to the next of the model's.
    """

    stop: tuple[Interval, ...]
    response: tuple[Interval, ...]


def timing(user: Iterable[tuple[float, float]], model: Iterable[tuple[float, float]]) -> Timing:
    """Stop and response intervals, from where each side speaks.

    Silence of up to 0.6 s does not part the user's speech, nor up to 0.5 s the model's. Of stop intervals with one end,
    and of response intervals with one end (each to the millisecond), the shortest is kept.
    """
    mine, theirs = merged(user, _USER_GAP), merged(model, _MODEL_GAP)
    stop: dict[int, Interval] = {}
    for said in mine:
        for x in theirs:
            both = Interval(max(said.start, x.start), min(said.end, x.end))
            if both.seconds > 0:
                _keep(stop, both)
    response: dict[int, Interval] = {}
    for said in mine:
        following = next((x.start for x in theirs if x.start > said.end), None)
        if following is not None:
            _keep(response, Interval(said.end, following))
    return Timing(tuple(_in_order(stop)), tuple(_in_order(response)))


def _keep(found: dict[int, Interval], x: Interval) -> None:
    key = round(1000 * x.end)
    if key not in found or x.seconds < found[key].seconds:
        found[key] = x


def _in_order(found: dict[int, Interval]) -> list[Interval]:
    return sorted((Interval(round(x.start, 3), round(x.end, 3)) for x in found.values()), key=lambda x: x.end)


@dataclass(frozen=True)
class Exchange:
    """What a judge of behaviour sees: words with their times, without the overlap and with it."""

    input_clean: Sequence[Word]
    input: Sequence[Word]
    output_clean: Sequence[Word]
    output: Sequence[Word]

    def to_json(self) -> str:
        """As the published instruction has a language model see it."""
        names = ("input_clean", "input_noisy", "output_clean", "output_noisy")
        sides = (self.input_clean, self.input, self.output_clean, self.output)
        return json.dumps(
            {
                name: {
                    "text": " ".join(w.text for w in words),
                    "chunks": [{"text": w.text, "timestamp": [w.start, w.end]} for w in words],
                }
                for name, words in zip(names, sides, strict=True)
            },
            ensure_ascii=False,
        )


Judge = Callable[[Exchange, Interval], Behaviour]
"""Judges an exchange with an overlap."""


def parse_behaviour(reply: str) -> Behaviour:
    """The tag in what a language model says: the first object with ``{"behaviour": ["C_..."]}``.

    :raises DataError: there is none, or another tag.
    """
    decoder = json.JSONDecoder()
    at = reply.find("{")
    while at >= 0:
        try:
            data, _ = decoder.raw_decode(reply, at)
        except json.JSONDecodeError:
            data = None
        if isinstance(data, dict) and data.get("behaviour"):
            tags = data["behaviour"]
            tag = tags[0] if isinstance(tags, list) else tags
            if tag in get_args(Behaviour):
                return cast("Behaviour", tag)
            raise DataError(f"The behaviour {tag!r} is unknown. Use {', '.join(get_args(Behaviour))}.")
        at = reply.find("{", at + 1)
    raise DataError(f'A judge said {reply[:80]!r}. Have it say {{"behaviour": ["C_RESPOND"]}}.')


def behaviour_shares(found: Sequence[Behaviour]) -> dict[Behaviour, float]:
    """How often each behaviour is seen, those that are."""
    counts = Counter(found)
    return {tag: counts[tag] / len(found) for tag in get_args(Behaviour) if counts[tag]}


_ASKING_AGAIN = ("pardon", "catch that", "say that again", "repeat", "did not hear", "not understand", "did not get")


def asks_again(text: str, normalizer: Normalizer | None = None) -> bool:
    """Whether somebody says that he did not hear or understand."""
    said = (normalizer or WhisperEnglish())(text)
    return any(phrase in said for phrase in _ASKING_AGAIN)


def behaviour_by_words(exchange: Exchange, overlap: Interval, *, normalizer: Normalizer | None = None) -> Behaviour:
    """A judge that needs no language model, and sees no meaning: it counts words that come back.

    What was begun after the overlap is judged: nothing, unknown; a plea to say it again, uncertain; else it resumes or
    responds, by whether more of its words are in the rest of the reply without the overlap, or in what was said in it.
    The published figures are GPT-4o's; these are not to be put beside them.
    """
    normalize = normalizer or WhisperEnglish()

    def words(of: Iterable[Word]) -> list[str]:
        return normalize(" ".join(w.text for w in of)).split()

    after = [w for w in exchange.output if w.start >= overlap.start]
    said = words(after)
    if not said:
        return "C_UNKNOWN"
    if asks_again(" ".join(w.text for w in after), normalize):
        return "C_UNCERTAIN_HANDLING"
    begun = set(words(w for w in exchange.output if w.start < overlap.start))
    reply = set(words(exchange.output_clean)) - begun
    heard = set(words(w for w in exchange.input if overlap.start <= w.start < overlap.end)) - begun
    resumed, responded = (sum(w in text for w in said) for text in (reply - heard, heard - reply))
    if resumed == responded:
        return "C_UNKNOWN"
    return "C_RESUME" if resumed > responded else "C_RESPOND"
