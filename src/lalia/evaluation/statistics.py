"""How sure a score is: bootstrap intervals over the units that were sampled (utterances, pairs)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = [
    "RESAMPLES",
    "Estimate",
    "bootstrap",
    "bootstrap_counts",
    "bootstrap_many",
    "bootstrap_ratio",
    "holm",
    "jackknife",
    "mean",
    "share",
    "sign_flip",
    "wilson",
]

RESAMPLES = 10_000

_EXACT = 14
"""Units up to which all 2^n signs are tried."""

_Z95 = 1.959963984540054
_BLOCK = 1 << 21


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    :param value: the figure itself, over all ``n`` units.
    :param low: the 2.5th percentile over resamples.
    :param high: the 97.5th.
    """

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: a figure over nothing is null, for JSON has no NaN."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}

    def percent(self) -> str:
        """For people: ``12.3 % [10.1, 14.9]``."""
        if math.isnan(self.value):
            return "none"
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """``sum(numerators) / sum(denominators)`` with its percentile bootstrap interval (Efron 1979).

    A word error rate is errors over words; an accuracy is right answers over ones; the difference of two
    error rates on the same items has the differences as numerators, and is so resampled in pairs.
    The interval depends on the order of the items: give them in one that is theirs (by id).

    :param numerators: one value per unit.
    :param denominators: the same length, none negative.
    :param seed: of the resampling.
    :param resamples: how many.
    :returns: NaN throughout where there is nothing to divide by.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    assert top.shape == bottom.shape, "one denominator per numerator"
    assert top.ndim == 1, "one value per unit"
    n = len(top)
    if n == 0 or bottom.sum() <= 0:
        return Estimate(math.nan, math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    rows = max(_BLOCK // n, 1)
    for start in range(0, resamples, rows):
        chosen = rng.integers(0, n, (min(rows, resamples - start), n))
        # A resample can consist of empty references alone; it has no rate.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios[start : start + rows] = top[chosen].sum(1) / bottom[chosen].sum(1)
    low, high = np.percentile(ratios[np.isfinite(ratios)], (2.5, 97.5))
    return Estimate(math.fsum(top) / math.fsum(bottom), float(low), float(high), n)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927).

    The bootstrap says [1, 1] when every answer was right, however few there were; this does not.
    """
    if n == 0:
        return math.nan, math.nan
    p = successes / n
    centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def share(flags: Sequence[bool]) -> Estimate:
    """How many of all are true, with the score interval."""
    n, right = len(flags), sum(map(bool, flags))
    low, high = wilson(right, n)
    return Estimate(right / n if n else math.nan, low, high, n)


def mean(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean with its bootstrap interval."""
    return bootstrap_ratio(values, [1.0] * len(values), seed=seed)


def bootstrap(
    statistic: Callable[..., np.ndarray], *columns: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Any statistic of units with its percentile bootstrap interval (Efron 1979); units are drawn whole.

    :param statistic: of arrays [R, n], one for each column, to [R].
    :param columns: one value per unit in each.
    :returns: NaN throughout where there is no unit.
    """

    def alone(*drawn: np.ndarray) -> np.ndarray:
        return statistic(*drawn)[:, None]

    return bootstrap_many(alone, *columns, seed=seed, resamples=resamples, figures=1)[0]


def bootstrap_many(
    statistic: Callable[..., np.ndarray],
    *columns: Sequence[float],
    figures: int,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """Several statistics of the same resamples, see `bootstrap`.

    :param statistic: of arrays [R, n], one for each column, to [R, figures]; what is not finite is in no interval.
    :param figures: how many it gives.
    """
    values = [np.asarray(column, np.float64) for column in columns]
    n = len(values[0])
    assert all(len(column) == n for column in values), "every column has a value per unit"
    if n == 0:
        return [Estimate(math.nan, math.nan, math.nan, 0)] * figures
    chosen = np.random.default_rng(seed).integers(0, n, (resamples, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic(*(column[chosen] for column in values))
        value = statistic(*(column[None] for column in values))[0]
    found = []
    for k in range(figures):
        finite = drawn[np.isfinite(drawn[:, k]), k]
        low, high = np.percentile(finite, (2.5, 97.5)) if len(finite) else (math.nan, math.nan)
        found.append(Estimate(float(value[k]), float(low), float(high), n))
    return found


def jackknife(value: float, without: Sequence[float]) -> Estimate:
    """A statistic with the interval that its jackknife standard error gives (Tukey 1958).

    For statistics that grow when units repeat, such as entropies, purities and mutual information: the percentile
    bootstrap puts their interval beside them.

    :param value: over all units.
    :param without: over all but one, for each [n].
    :returns: an interval of NaN where there are fewer than two units.
    """
    values = np.asarray(without, np.float64)
    n = len(values)
    if n < 2:
        return Estimate(value, math.nan, math.nan, n)
    half = _Z95 * math.sqrt((n - 1) / n * float(((values - values.mean()) ** 2).sum()))
    return Estimate(value, value - half, value + half, n)


def bootstrap_counts(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """The bootstrap of a statistic that is easier to say of how often each unit is drawn than of the units.

    So a curve over sorted scores is sorted once, and a corpus score is a product of counts and sums per unit.

    :param statistic: of counts [R, n] in float64 to [R]; ones are all units, once each.
    :param n: how many units there are.
    :returns: NaN throughout where there is no unit.
    """
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    rows = max(_BLOCK // n, 1)
    drawn = np.empty(resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, resamples, rows):
            chosen = rng.integers(0, n, (min(rows, resamples - start), n))
            counts = np.stack([np.bincount(row, minlength=n) for row in chosen]).astype(np.float64)
            drawn[start : start + len(counts)] = statistic(counts)
        value = float(statistic(np.ones((1, n)))[0])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, (2.5, 97.5)) if len(drawn) else (math.nan, math.nan)
    return Estimate(value, float(low), float(high), n)


def sign_flip(differences: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """How often paired differences would sum to as much, either way, if their signs meant nothing (Fisher 1935).

    All signs are tried where there are few units, else random ones.

    :returns: a p-value in (0, 1]; NaN where there is no unit.
    """
    values = np.asarray(differences, np.float64)
    n = len(values)
    if n == 0:
        return math.nan
    if n <= _EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), (resamples, n))
        signs[0] = 1.0  # what was seen is one of them
    return float(np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, raised so that one error among all of them is as rare as p says (Holm 1979).

    :param p_values: NaN, where nothing was tested, stays NaN and is not counted.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min((len(order) - rank) * p_values[i], 1.0))
        adjusted[i] = highest
    return adjusted
