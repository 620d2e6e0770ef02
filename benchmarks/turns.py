"""Measuring how long it takes until something is heard: questions that both sides are asked in turn, part by part."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Case
from benchmarks.measure import Failed, Worker

__all__ = ["Interval", "Part", "Turns", "measure_turns"]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval over questions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """One part of the way to the first sound.

    :param value: medians of lalia and of the peer, in ms.
    :param speed: how many times faster lalia is: the ratio of the medians, resampled in pairs.
    """

    value: tuple[Interval, Interval]
    speed: Interval


@dataclass(frozen=True)
class Turns:
    """What came out of a case.

    :param parts: by name, in order; the last is all of them.
    :param asked: questions that both were asked, of which both understood ``understood``.
    :param peak: most memory of each, in bytes.
    :param rounds: everything that was measured.
    """

    case: Case
    parts: Mapping[str, Part]
    asked: int
    understood: int
    peak: tuple[int, ...]
    rounds: Sequence[Mapping[str, Any]]

    @property
    def reached(self) -> bool | None:
        """Whether the aim is, in all; None where there is none."""
        aim = self.case.aim
        return None if aim is None else list(self.parts.values())[-1].speed.value >= aim.number


def measure_turns(case: Case, *, threads: int, quick: bool, tell: Callable[[str], None]) -> Turns:
    """Measure one case: as many rounds as there are questions.

    :param tell: called with what is going on.
    :raises Failed: a side stopped, or understood nothing.
    """
    options = {**case.options, **(case.quick if quick else {})}
    tell("preparing")
    with ExitStack() as stack:
        sides = {n: stack.enter_context(Worker(case.module, n, options, threads)) for n in ("lalia", "peer")}
        count = min(int(side.listen()["questions"]) for side in sides.values())
        measured: list[dict[str, Any]] = []
        for number in range(count):
            tell(f"question {number + 1} of {count}")
            # A B, B A, A B: what drifts does not favour who comes first.
            turns = list(sides) if number % 2 == 0 else list(sides)[::-1]
            answers = {n: sides[n].ask("go") for n in turns}
            measured.append({n: answers[n]["parts"] for n in sides})
        tell("finishing")
        peaks = tuple(int(side.ask("end")["peak"]) for side in sides.values())
    both = [m for m in measured if None not in m.values()]
    if not both:
        raise Failed(f"none of {count} questions was understood by both")
    return Turns(case, _parts(both), count, len(both), peaks, measured)


def _parts(both: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Part]:
    # Late: the process that reads the clocks needs no torch while they run.
    from lalia.evaluation.benchmarks.latency import median, ratio_of_medians
    from lalia.evaluation.statistics import Estimate, bootstrap

    def interval(found: Estimate) -> Interval:
        return Interval(found.value, found.low, found.high)

    parts = {}
    for name in both[0]["lalia"]:
        ours, theirs = ([m[side][name] for m in both] for side in ("lalia", "peer"))
        value = interval(bootstrap(median, ours)), interval(bootstrap(median, theirs))
        parts[name] = Part(value, interval(bootstrap(ratio_of_medians, theirs, ours)))
    return parts
