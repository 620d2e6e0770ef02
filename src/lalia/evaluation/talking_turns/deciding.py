"""What two sides of a dialogue decide every 40 ms, from where each of them speaks.

The grid, and how two sides become one row of labels, are ESPnet's (``local/create_switchboard_data_2channels.py`` and
``..._mono.py`` of pull request 5948), which are given words and backchannels that people marked. How the paper tells
backchannels of a system from turns is not confirmed; here it is by how long they are and what comes behind them.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from lalia.evaluation.intervals import Interval
from lalia.evaluation.talking_turns.turns import FIRST, HOP, Decision, time_of

__all__ = ["LONGEST_BACKCHANNEL", "decided"]

LONGEST_BACKCHANNEL = 1.0
"""Seconds."""

_EPSILON = 1e-9


def decided(
    system: Sequence[Interval],
    user: Sequence[Interval],
    seconds: float,
    *,
    longest: float = LONGEST_BACKCHANNEL,
) -> list[Decision]:
    """The rows of a dialogue: ``A`` is the system, ``B`` the user.

    A backchannel is a stretch of at most ``longest`` seconds that begins while the other side has the floor, and behind
    which the other is heard before its own side is again.

    :param system: where it speaks, in order.
    :param user: where the user does.
    :param seconds: how long the dialogue lasts.
    """
    ends = [time_of(FIRST + (k + 1) * HOP) for k in range(int((time_of(seconds) - FIRST + _EPSILON) / HOP))]
    a, b = (_states(own, other, ends, longest) for own, other in ((system, user), (user, system)))
    rows, floor = [], "NA"
    for end, one, two in zip(ends, a, b, strict=True):
        before = floor
        label, floor = _label(one, two, floor)
        rows.append(Decision(time_of(end - HOP), end, label, before))
    return rows


def _states(own: Sequence[Interval], other: Sequence[Interval], ends: Sequence[float], longest: float) -> list[str]:
    """``IPU``, ``BC`` or ``NA`` of a side in each 40 ms."""
    states = ["NA"] * len(ends)
    ordered = sorted(own)
    behind = [x.start for _, x in pairwise(ordered)] + [float("inf")]
    told = [
        ("BC" if _is_backchannel(x, ordered, other, again, longest) else "IPU", x)
        for x, again in zip(ordered, behind[: len(ordered)], strict=True)
    ]
    # A backchannel is what counts where both are.
    for kind, x in sorted(told, key=lambda told: told[0] == "BC"):
        # What is about to begin within the next 40 ms counts, and the last 40 ms that are not whole do not.
        for k in range(bisect_left(ends, x.start - HOP - _EPSILON), bisect_left(ends, x.end - _EPSILON)):
            states[k] = kind
    return states


def _is_backchannel(
    x: Interval, own: Sequence[Interval], other: Sequence[Interval], again: float, longest: float
) -> bool:
    if x.seconds > longest + _EPSILON:
        return False
    return _has_floor(x.start, own, other) and any(o.end > x.end and o.start < again for o in other)


def _has_floor(at: float, own: Sequence[Interval], other: Sequence[Interval]) -> bool:
    """Whether the other side speaks at a moment, or was the last that did."""
    if any(o.start <= at < o.end for o in other):
        return True
    last = [max((o.end for o in side if o.end <= at), default=-1.0) for side in (own, other)]
    return last[1] > last[0]


def _label(system: str, user: str, floor: str) -> tuple[str, str]:
    """What 40 ms are, and whose turn it is behind them."""
    match system, user:
        case "NA", "NA":
            return "NA", floor
        case "IPU", "NA":
            return ("C" if floor in ("A", "AB") else "T"), "A"
        case "NA", "IPU":
            return ("C" if floor in ("B", "BA") else "T"), "B"
        case "IPU", "IPU":
            return "I", floor if floor in ("AB", "BA") else "AB" if floor == "A" else "BA"
        case "BC", "BC":
            return "BC_2", floor
        case "BC", _:
            return ("BC" if floor in ("B", "BA") else "BC_1"), floor
    return ("BC" if floor in ("A", "AB") else "BC_1"), floor
