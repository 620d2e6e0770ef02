"""What a dialogue of two is made of: stretches of speech, pauses, gaps and overlaps (dGSLM, arXiv:2203.16502, §5.3)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.intervals import Interval, Speech, common, merged

__all__ = ["IPU_SILENCE", "Kind", "TurnStatistics", "dialogue_statistics", "turn_events", "turn_statistics"]

IPU_SILENCE = 0.2
"""Seconds of silence beyond which speech of one side is another inter-pausal unit."""

Kind = Literal["ipu", "pause", "gap", "overlap"]
_KINDS: tuple[Kind, ...] = ("ipu", "pause", "gap", "overlap")


@dataclass(frozen=True)
class TurnStatistics:
    """Of one dialogue, or of several together.

    :param seconds: how long they last.
    :param events: the seconds that each event lasted.
    """

    seconds: float
    events: Mapping[Kind, Sequence[float]]

    def count(self, kind: Kind) -> int:
        """How many there are."""
        return len(self.events[kind])

    def per_minute(self, kind: Kind) -> float:
        """How many there are in a minute."""
        return self.count(kind) * self._scale

    def seconds_per_minute(self, kind: Kind) -> float:
        """How long they last together, in a minute."""
        return math.fsum(self.events[kind]) * self._scale

    @property
    def _scale(self) -> float:
        return 60 / self.seconds if self.seconds > 0 else math.nan

    def away_from(self, real: "TurnStatistics") -> dict[str, float]:
        """How far it is from another, as generated dialogues are compared with real ones (|Δ|).

        :returns: ``<kind>_per_minute`` and ``<kind>_seconds_per_minute``.
        """
        found = {}
        for kind in _KINDS:
            found[f"{kind}_per_minute"] = abs(self.per_minute(kind) - real.per_minute(kind))
            found[f"{kind}_seconds_per_minute"] = abs(self.seconds_per_minute(kind) - real.seconds_per_minute(kind))
        return found

    def to_dict(self) -> dict[str, float]:
        """The rates, JSON-ready."""
        rates = {f"{k}_per_minute": self.per_minute(k) for k in _KINDS}
        return {"seconds": self.seconds, **rates} | {
            f"{k}_seconds_per_minute": self.seconds_per_minute(k) for k in _KINDS
        }

    @classmethod
    def together(cls, dialogues: Iterable["TurnStatistics"]) -> "TurnStatistics":
        """All events of several dialogues, over all their time."""
        every = list(dialogues)
        events = {kind: [s for x in every for s in x.events[kind]] for kind in _KINDS}
        return cls(math.fsum(x.seconds for x in every), events)


def turn_events(
    first: Iterable[tuple[float, float]], second: Iterable[tuple[float, float]]
) -> dict[Kind, list[Interval]]:
    """The events of a dialogue, from where each side speaks.

    A unit (IPU) is speech of one side between silences of over 0.2 s. Overlap is where units of both sides are; a
    silence is where there is none. It is a pause where one who ended before it goes on behind it, else a gap. That
    before the first unit and that behind the last are neither.
    """
    sides = [merged(side, IPU_SILENCE) for side in (first, second)]
    found: dict[Kind, list[Interval]] = {kind: [] for kind in _KINDS}
    found["ipu"] = sorted(sides[0] + sides[1])
    found["overlap"] = list(common(sides[0], sides[1]))
    spoken = merged(sides[0] + sides[1])
    for before, after in pairwise(spoken):
        # Both may end at once, or begin at once.
        ended = {i for i, side in enumerate(sides) if any(x.end == before.end for x in side)}
        begun = {i for i, side in enumerate(sides) if any(x.start == after.start for x in side)}
        found["pause" if ended & begun else "gap"].append(Interval(before.end, after.start))
    return found


def turn_statistics(
    first: Iterable[tuple[float, float]], second: Iterable[tuple[float, float]], seconds: float
) -> TurnStatistics:
    """The statistics of a dialogue, from where each side speaks.

    :param seconds: how long it lasts.
    """
    events = turn_events(first, second)
    return TurnStatistics(seconds, {kind: [x.seconds for x in found] for kind, found in events.items()})


def dialogue_statistics(audio: Audio, speech: Speech | None = None) -> TurnStatistics:
    """The statistics of a recording with a side on each of two channels.

    dGSLM found speech by pyannote; here it is Silero, or any other detector.

    :raises DataError: it has not two channels.
    """
    if audio.samples.shape[1] != 2:
        raise DataError(f"The dialogue has {audio.samples.shape[1]} channels. Give one for each of two speakers.")
    speech = speech or Speech()
    return turn_statistics(speech(audio.channel(0)), speech(audio.channel(1)), audio.seconds)
