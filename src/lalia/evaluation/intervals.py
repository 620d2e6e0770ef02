"""Stretches of time, and who speaks when in a recording."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.realtime.activity import Detector, Silero

__all__ = ["Interval", "Speech", "common", "merged", "seconds"]


class Interval(NamedTuple):
    """From ``start`` to ``end``, in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.end - self.start


def merged(intervals: Iterable[tuple[float, float]], gap: float = 0.0) -> tuple[Interval, ...]:
    """In order, those one where they overlap or at most ``gap`` seconds of silence part them."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start - found[-1].end <= gap:
            found[-1] = Interval(found[-1].start, max(found[-1].end, end))
        else:
            found.append(Interval(start, end))
    return tuple(found)


def common(first: Sequence[Interval], second: Sequence[Interval]) -> tuple[Interval, ...]:
    """What two sets have in common, each of intervals in order that do not overlap."""
    found, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        start, end = max(first[i].start, second[j].start), min(first[i].end, second[j].end)
        if start < end:
            found.append(Interval(start, end))
        # Of two that end together either may go first: the other has nothing more in common with what follows.
        if first[i].end < second[j].end:
            i += 1
        else:
            j += 1
    return tuple(found)


def seconds(intervals: Iterable[Interval]) -> float:
    """How long they last together."""
    return math.fsum(x.seconds for x in intervals)


class Speech:
    """Finds where somebody speaks in a whole recording, by a detector that hears it frame by frame.

    The rules and their values are those of ``get_speech_timestamps`` of Silero VAD 6: speech begins at the threshold
    and goes on down to 0.15 less; silence under 0.1 s does not part it; under 0.25 s it is none; and 0.03 s before and
    behind belong to it.

    :param detector: Silero when not given.
    :param threshold: the probability from which on a frame is speech.
    :param shortest: seconds that speech lasts at least.
    :param silence: seconds of silence that part speech.
    :param padding: seconds on either side that are taken with it; of a shorter silence, half for each side.
    :raises MissingDependency: there is no detector, and Silero is not installed.
    """

    _LOWER = 0.15

    def __init__(
        self,
        detector: Detector | None = None,
        *,
        threshold: float = 0.5,
        shortest: float = 0.25,
        silence: float = 0.1,
        padding: float = 0.03,
    ) -> None:
        if not (0 < threshold < 1 and shortest >= 0 and silence >= 0 and padding >= 0):
            raise ConfigError(
                f"Speech is looked for with a threshold of {threshold}, of {shortest} s and more, parted by {silence} "
                f"s and padded by {padding} s. Give a probability between 0 and 1, and no less than 0 s."
            )
        self.detector: Detector = detector or Silero()
        self.threshold, self.shortest, self.silence, self.padding = threshold, shortest, silence, padding

    def __call__(self, audio: Audio) -> tuple[Interval, ...]:
        """Where somebody speaks in row 0, mono, in order and without overlap."""
        heard = audio.row(0).mono().to(self.detector.sample_rate)
        runs = self._runs(heard.samples[0, 0].detach().float().cpu())
        # Frames are whole, and the last may reach beyond the end.
        length = heard.seconds
        kept = [x for x in merged(runs, math.nextafter(self.silence, 0)) if x.seconds >= self.shortest]
        padded = []
        for i, x in enumerate(kept):
            before = x.start if i == 0 else (x.start - kept[i - 1].end) / 2
            after = length - x.end if i + 1 == len(kept) else (kept[i + 1].start - x.end) / 2
            start, end = x.start - min(self.padding, before), x.end + min(self.padding, max(after, 0.0))
            padded.append(Interval(start, min(end, length)))
        return tuple(padded)

    def _runs(self, samples: Tensor) -> list[Interval]:
        """Frames in a row that are speech."""
        size, rate = self.detector.frame, self.detector.sample_rate
        samples = torch.nn.functional.pad(samples, (0, -len(samples) % size))
        self.detector.reset()
        found: list[list[int]] = []
        speaking = False
        for i, frame in enumerate(samples.view(-1, size)):
            begins = not speaking
            speaking = self.detector(frame) >= self.threshold - (self._LOWER if speaking else 0.0)
            if speaking and begins:
                found.append([i, i])
            if speaking:
                found[-1][1] = i + 1
        return [Interval(a * size / rate, b * size / rate) for a, b in found]
