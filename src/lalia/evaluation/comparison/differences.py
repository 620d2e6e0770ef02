"""Differences between models over the items that they have in common, and what exchanging a part changes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from lalia.evaluation.comparison.measures import Column, Measure
from lalia.evaluation.comparison.parts import AXES, Axis, alike_but_for, labels
from lalia.evaluation.significance import holm, sign_flip
from lalia.evaluation.statistics import Estimate, bootstrap, bootstrap_ratio

__all__ = ["Difference", "Effect", "beside", "difference", "effects"]

_LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """How much more one has than another.

    :param estimate: of the difference; of the factor where the measure is one of logarithms.
    :param p: of a sign-flip test over items, after Holm where it is one of several; NaN where nothing was tested.
    :param neutral: the value of no difference.
    :param tests: how many it is corrected for: no two of the same figures, and none that no items could decide.
    """

    estimate: Estimate
    p: float
    neutral: float
    tests: int = 1

    @property
    def carried(self) -> bool:
        """Whether both the interval and the test say that there is a difference."""
        e = self.estimate
        # An interval that lies on the other side than its value shows nothing.
        above = e.low > self.neutral and e.value > self.neutral
        below = e.high < self.neutral and e.value < self.neutral
        return (above or below) and self.p < _LEVEL

    @property
    def none(self) -> bool:
        """Whether there is no difference in any item."""
        return self.estimate.low == self.estimate.high == self.estimate.value == self.neutral

    @property
    def too_few(self) -> bool:
        """Whether no outcome of the test could have been one that counts."""
        return self.estimate.n < 1 or self.tests * 2.0 ** (1 - self.estimate.n) >= _LEVEL


def difference(
    measure: Measure,
    one: Mapping[str, tuple[float, float]],
    other: Mapping[str, tuple[float, float]],
    *,
    seed: int = 0,
) -> Difference | None:
    """How much more ``one`` has than ``other``, over the items of both; None where they have none.

    Items are resampled in pairs. An item that is not as long in both is none of theirs.
    """
    common = [k for k in sorted(one.keys() & other.keys()) if one[k][1] == other[k][1]]
    deltas = [one[k][0] - other[k][0] for k in common]
    return _of(measure, deltas, [one[k][1] for k in common], seed)


def _of(measure: Measure, deltas: Sequence[float], weights: Sequence[float], seed: int) -> Difference | None:
    if not deltas or sum(weights) <= 0:
        return None
    p = sign_flip(deltas, seed=seed)
    match measure.statistic:
        case "ratio":
            return Difference(bootstrap_ratio(deltas, weights, seed=seed), p, 0.0)
        case "median":
            return Difference(bootstrap(lambda x: np.median(x, axis=1), deltas, seed=seed), p, 0.0)
        case "log":
            return Difference(bootstrap(lambda x: np.exp(x.mean(1)), deltas, seed=seed), p, 1.0)
        case "exact":
            return None


def beside(column: Column, best: str, *, seed: int = 0) -> dict[str, Difference | None]:
    """How much more each of the others has than the best, with p-values after Holm."""
    readings = column.readings
    found = {
        name: difference(column.measure, r.items, readings[best].items, seed=seed)
        for name, r in readings.items()
        if name != best
    }
    return _corrected(found)


def _corrected(found: Mapping[Any, Difference | None]) -> dict[Any, Difference | None]:
    """With p-values after Holm, of the tests that there are: models that share an answer are tested once, and what is
    the same in every item has no outcome that would count (Tarone 1990).
    """
    family = list(dict.fromkeys(d for d in found.values() if d is not None and not d.none))
    raised = {d: replace(d, p=p, tests=len(family)) for d, p in zip(family, holm([d.p for d in family]), strict=True)}
    return {k: d if d is None else raised.get(d, d) for k, d in found.items()}


@dataclass(frozen=True)
class Effect:
    """What one part in place of another changes, all else alike.

    :param pairs: the models that differ in nothing else, ``one`` first.
    :param along: axes that go with it, and differ too.
    """

    axis: Axis
    one: str
    other: str
    measure: Measure
    difference: Difference
    pairs: tuple[tuple[str, str], ...]
    along: tuple[Axis, ...] = ()


def effects(models: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, seed: int = 0) -> list[Effect]:
    """The main effect of each axis: over all models that differ in it alone, the mean difference of each item.

    The p-values of an axis in a measure are corrected together (Holm).

    :param models: with ``name`` and ``parts``.
    """
    parts = [m["parts"] for m in models]
    names = labels(parts)
    found: list[Effect] = []
    for axis in AXES:
        matched: dict[tuple[str, str], list[tuple[str, str]]] = {}
        along: dict[tuple[str, str], tuple[Axis, ...]] = {}
        for group in alike_but_for(parts, axis):
            for i, j in combinations(group, 2):
                # The same two parts stand in one order, whichever model was named first.
                a, b = sorted((i, j), key=lambda k: names[k][axis])
                pair = (models[a]["name"], models[b]["name"])
                matched.setdefault((names[a][axis], names[b][axis]), []).append(pair)
                along[names[a][axis], names[b][axis]] = tuple(
                    x for x in AXES if x != axis and parts[a]["axes"][x]["config"] != parts[b]["axes"][x]["config"]
                )
        for column in columns:
            measured = {two: _over(column, pairs, seed) for two, pairs in matched.items()}
            for (one, other), d in _corrected(measured).items():
                if d is not None:
                    pairs = tuple(p for p in matched[one, other] if set(p) <= column.readings.keys())
                    found.append(Effect(axis, one, other, column.measure, d, pairs, along[one, other]))
    return found


def _over(column: Column, pairs: Sequence[tuple[str, str]], seed: int) -> Difference | None:
    """Over several pairs of models, the items that all have."""
    both = [(column.readings[a], column.readings[b]) for a, b in pairs if {a, b} <= column.readings.keys()]
    # What one of them answered for the other says nothing of the part that is exchanged.
    sides = [(a.items, b.items) for a, b in both if a.by is None or a.by != b.by]
    if not sides:
        return None
    common = set.intersection(*(set(a) & set(b) for a, b in sides))
    kept = [k for k in sorted(common) if len({side[k][1] for two in sides for side in two}) == 1]
    deltas = [math.fsum(a[k][0] - b[k][0] for a, b in sides) / len(sides) for k in kept]
    return _of(column.measure, deltas, [sides[0][0][k][1] for k in kept], seed)
