"""Full-Duplex-Bench v1 (Lin et al., arXiv:2503.04721): whether and when a model takes the turn, and how it listens.

The rules are those of its scorers at commit d7336bd, oddities included, for its figures are compared across papers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lalia.data import Word
from lalia.evaluation.intervals import Interval

__all__ = ["Backchannels", "backchannels", "divergence", "latency", "spoken_in", "takes_turn"]

_TURN_SECONDS, _TURN_WORDS = 1.0, 3
"""Speech that lasts less, and has at most so many words, takes no turn."""

_FORMAL_SECONDS, _BACKCHANNEL_WORDS = 3.0, 2
_BIN = 0.2
_EPSILON = 1e-10


def takes_turn(words: Sequence[Word]) -> bool:
    """Whether what a model says takes the turn (its mean is the take-over rate, TOR).

    Nothing does not, and no more does what spans less than 1 s with at most three words. A word without an end (NaN)
    counts from its start.
    """
    if not words:
        return False
    last = words[-1].start if math.isnan(words[-1].end) else words[-1].end
    return last - words[0].start >= _TURN_SECONDS or len(words) > _TURN_WORDS


def latency(words: Sequence[Word], ended: float) -> float | None:
    """Seconds from the end of the user's turn to the first word, 0 where that came before; None where no turn is taken.

    :param ended: when the user's turn ended, in seconds.
    """
    return max(words[0].start - ended, 0.0) if takes_turn(words) else None


@dataclass(frozen=True)
class Backchannels:
    """How a model listens.

    :param takes_turn: whether it does more than that.
    :param times: when it says something short.
    :param frequency: how often, per second.
    """

    takes_turn: bool
    times: tuple[Interval, ...]
    frequency: float


def spoken_in(segment: Interval, words: Sequence[Word]) -> list[str]:
    """The words that are said in a segment, or in part; one without an end (NaN) is where it starts."""
    found = []
    for word in words:
        if math.isnan(word.start) or (math.isnan(word.end) and word.start < segment.end):
            continue
        end = word.start if math.isnan(word.end) else word.end
        if segment.start <= word.start <= segment.end or (word.start < segment.start < end):
            found.append(word.text)
    return found


def backchannels(segments: Sequence[Interval], words: Sequence[Word], seconds: float) -> Backchannels:
    """What a model says while the user talks.

    Each segment of speech in order: over 3 s of it takes the turn, and what follows is not looked at. Any other is
    counted as a backchannel, and takes no turn if it lasts less than 1 s and has at most two words. Whether the turn
    was taken is what the last segment says, as it is upstream: a backchannel after a taken turn hides it.

    :param segments: where it speaks, in order.
    :param seconds: how long the recording lasts.
    """
    taken, times = False, []
    for segment in segments:
        if segment.seconds > _FORMAL_SECONDS:
            taken = True
            break
        times.append(segment)
        taken = segment.seconds >= _TURN_SECONDS or len(spoken_in(segment, words)) > _BACKCHANNEL_WORDS
    return Backchannels(taken, tuple(times), len(times) / seconds if seconds > 0 else math.nan)


def divergence(times: Sequence[Interval], seconds: float, human: Sequence[float]) -> float:
    """How far the times of backchannels are from those of people: a Jensen-Shannon distance, 1 where there are none.

    It counts, in bins of 200 ms, the backchannels that touch them, and compares the shares with those of people,
    stretched linearly to as many bins. It is the square root of the divergence in nats (what SciPy's ``jensenshannon``
    gives), so two that share nothing are 0.83 apart, and 1 says only that nothing was said.

    :param seconds: how long the recording lasts.
    :param human: how often people said something in each part of it.
    """
    if not times:
        return 1.0
    counts = np.zeros(int(seconds / _BIN) + 1)
    for start, end in times:
        counts[int(start / _BIN) : int(end / _BIN) + 1] += 1
    p = counts + _EPSILON
    q = np.interp(np.linspace(0, 1, len(p)), np.linspace(0, 1, len(human)), np.asarray(human, np.float64))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    total = sum(float(np.sum(x[x > 0] * np.log(x[x > 0] / middle[x > 0]))) for x in (p, q))
    # Rounding may leave equal shares just below zero.
    return math.sqrt(max(total, 0.0) / 2)
