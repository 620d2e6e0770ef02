"""How well a judge foresees the turns of people: areas under its ROC curves."""

import math
from collections.abc import Sequence

import numpy as np

from lalia.errors import DataError
from lalia.evaluation.statistics import Estimate, bootstrap_counts
from lalia.evaluation.talking_turns.turns import LABELS, Decisions, Likelihoods, together

__all__ = ["area_under_curve", "areas_under_curve"]

_RESAMPLES = 1000


def area_under_curve(positive: Sequence[bool], scores: Sequence[float], *, seed: int = 0) -> Estimate:
    """How often one that is has a higher score than one that is not, a tie being half (the area under the ROC curve).

    The interval resamples them one by one; neighbours in time are alike, so that it is too narrow.

    :raises DataError: there are not both, or a score is NaN.
    """
    there, values = np.asarray(positive, bool), np.asarray(scores, np.float64)
    if there.all() or not there.any() or np.isnan(values).any():
        raise DataError(f"Of {len(there)} scores {int(there.sum())} are of what is looked for. Give both, and no NaN.")
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    is_it = there[order].astype(np.float64)

    def area(drawn: np.ndarray) -> np.ndarray:
        up = np.cumsum(drawn * is_it, 1)[:, ends]
        down = np.cumsum(drawn * (1 - is_it), 1)[:, ends]
        new, before = np.diff(up, prepend=0, axis=1), np.pad(down, ((0, 0), (1, 0)))[:, :-1]
        return np.asarray((new * (before + down) / 2).sum(1) / (up[:, -1] * down[:, -1]))

    return bootstrap_counts(area, len(there), seed=seed, resamples=_RESAMPLES)


def areas_under_curve(decisions: Decisions, likelihoods: Likelihoods, *, seed: int = 0) -> dict[str, Estimate]:
    """How well a judge foresees what happens: the area for each label against the others, and ``overall``, their mean.

    Backchannels count where one side has the floor (turn ``A`` or ``B``); other ones take no part. ``overall`` has the
    interval NaN.

    :param decisions: what happened, between people.
    :raises DataError: no 40 ms are judged, or a label never happens.
    """
    rows = [pair for both in together(decisions, likelihoods).values() for pair in both]
    counted = [
        (row.label, said)
        for row, said in rows
        if row.label in LABELS and not (row.label == "BC" and row.turn not in ("A", "B"))
    ]
    found = {}
    for n, label in enumerate(LABELS):
        try:
            found[label] = area_under_curve(
                [x == label for x, _ in counted], [said[n] for _, said in counted], seed=seed
            )
        except DataError as error:
            raise DataError(f"The label {label}: {error}") from None
    overall = math.fsum(x.value for x in found.values()) / len(found)
    return {"overall": Estimate(overall, math.nan, math.nan, len(counted)), **found}
