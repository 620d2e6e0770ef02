"""How sure a score is: bootstrap intervals over the units that were sampled (utterances, pairs)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

__all__ = [
    "RESAMPLES",
    "Estimate",
    "bootstrap",
    "bootstrap_counts",
    "bootstrap_crossed",
    "bootstrap_many",
    "bootstrap_ratio",
    "jackknife",
    "mean",
    "share",
    "wilson",
]

RESAMPLES = 10_000

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

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The figure that ``to_dict`` wrote; what else is in the data does not matter."""
        value, low, high = (math.nan if data[k] is None else float(data[k]) for k in ("value", "low", "high"))
        return cls(value, low, high, int(data["n"]))

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
    return _percentiles(math.fsum(top) / math.fsum(bottom), ratios, n)


def _percentiles(value: float, drawn: np.ndarray, n: int) -> Estimate:
    """A figure with the interval of its resamples [R], of those in which there is one."""
    finite = drawn[np.isfinite(drawn)]
    low, high = np.percentile(finite, (2.5, 97.5)) if len(finite) else (math.nan, math.nan)
    return Estimate(value, float(low), float(high), n)


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
    return [_percentiles(float(value[k]), drawn[:, k], n) for k in range(figures)]


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
    return _percentiles(value, drawn, n)


def bootstrap_crossed(
    statistic: Callable[[np.ndarray], np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    figures: int,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """Intervals where two kinds of units were sampled and cross in every observation, such as raters and items.

    Both are drawn, each by itself, and an observation counts as often as its row times its column was drawn (the
    pigeonhole bootstrap, Owen 2007, Annals of Applied Statistics 1, 386-411). The variance that it gives is never much
    too small; where raters and items hardly differ, and all variance is that of single observations, it is up to three
    times too large. Cells may be empty, or hold several observations.

    :param statistic: of weights [R, n] in float64, one per observation, to [R, figures]; what is not finite is in no
        interval.
    :param rows: the unit of the first kind of each observation, [n].
    :param columns: that of the second.
    :returns: figures with ``n`` the number of observations; NaN throughout where there is none.
    """
    n = len(rows)
    assert len(columns) == n, "every observation has a row and a column"
    if n == 0:
        return [Estimate(math.nan, math.nan, math.nan, 0)] * figures
    rng = np.random.default_rng(seed)
    codes = [np.unique(np.asarray(units), return_inverse=True)[1] for units in (rows, columns)]
    counts = [int(code.max()) + 1 for code in codes]
    drawn = np.empty((resamples, figures))
    size = max(_BLOCK // max(n, *counts), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, resamples, size):
            some = min(size, resamples - start)
            weights = np.ones((some, n))
            for code, count in zip(codes, counts, strict=True):
                weights *= rng.multinomial(count, np.full(count, 1 / count), some)[:, code]
            drawn[start : start + some] = statistic(weights)
        value = statistic(np.ones((1, n)))[0]
    return [_percentiles(float(value[k]), drawn[:, k], n) for k in range(figures)]
