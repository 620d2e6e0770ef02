"""Whether a difference is more than chance: tests, and what is left of their p-values where there are several."""

import math
from collections.abc import Sequence

import numpy as np

from lalia.errors import MissingDependency
from lalia.evaluation.statistics import RESAMPLES

__all__ = ["holm", "min_f_prime", "sign_flip"]

_EXACT = 14
"""Units up to which all 2^n signs are tried."""


def min_f_prime(by_rows: Sequence[float], by_columns: Sequence[float]) -> float:
    """Whether a difference is none, for units of two kinds that were sampled and cross (min F', Clark 1973).

    A test by one kind alone says nothing of other units of the other kind; nor is it enough that both say so.

    :param by_rows: the difference within each unit of the first kind.
    :param by_columns: within each of the second; their means are of the same difference.
    :returns: a p-value, two-sided; NaN where there are fewer than two units of a kind.
    :raises MissingDependency: scipy is not installed.
    """
    squares, freedom = [], []
    for values in (np.asarray(by_rows, np.float64), np.asarray(by_columns, np.float64)):
        if len(values) < 2:
            return math.nan
        error = float(values.var(ddof=1)) / len(values)
        square = float(values.mean()) ** 2
        squares.append(square / error if error else math.inf if square else 0.0)
        freedom.append(len(values) - 1)
    (f1, f2), (n1, n2) = squares, freedom
    if not f1 or not f2:
        return 1.0
    if math.isinf(f1) and math.isinf(f2):
        return 0.0
    # With shares of F1 + F2, one of which may have no end.
    smaller, larger, of_larger, of_smaller = (f1, f2, n2, n1) if f1 <= f2 else (f2, f1, n1, n2)
    ratio = 0.0 if math.isinf(larger) else smaller / larger
    least = smaller / (1 + ratio)
    within = (1 + ratio) ** 2 / (ratio**2 / of_larger + 1 / of_smaller)
    try:
        from scipy.stats import t
    except ModuleNotFoundError:
        raise MissingDependency("scipy", "eval") from None
    return float(2 * t.sf(math.sqrt(least), within))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values for all of a family at once (Holm 1979): none is below another that was below it.

    :param p_values: NaN where a test could not be made; it is none of the family.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(p * (len(order) - rank), 1.0))
        adjusted[i] = highest
    return adjusted


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
