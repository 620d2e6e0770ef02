"""Accuracy, in which a reply that says nothing is wrong, and seen to be."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from lalia.errors import DataError
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import Estimate, share

__all__ = ["accuracy"]

_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, two-sided 95 %, for 1 to 9 degrees of freedom."""


def accuracy(
    references: Mapping[str, Hashable],
    predictions: Mapping[str, Any],
    *,
    read: Callable[[str, Any], Hashable | None] | None = None,
    folds: Mapping[str, Hashable] | None = None,
) -> Scored:
    """The share that is right, with its score interval (Wilson).

    :param predictions: what was predicted; without one an item has failed, and is wrong.
    :param read: finds the answer to an item, by its id, in a prediction; None is unparsable, and wrong.
    :param folds: of cross-validation, by item: the first figure is then the mean over folds with its t-interval, as
        for the emotions of SUPERB; ``accuracy`` is over all. ``settings`` has each fold's, and their deviation.
    :raises DataError: there are no references, a prediction has none, or an item no fold.
    """
    rows = by_id(references, predictions)
    items: list[dict[str, Any]] = []
    unparsable = failed = 0
    for key, right, said in rows:
        answer = said if said is None or read is None else read(key, said)
        failed += said is None
        unparsable += said is not None and answer is None
        items.append(
            {"id": key, "answer": answer, "reference": right, "right": bool(answer is not None and answer == right)}
        )
    figures: dict[str, Estimate] = {"accuracy": share([x["right"] for x in items])}
    settings: dict[str, Any] = {}
    if folds is not None:
        over, settings = _over_folds(items, folds)
        figures = {"accuracy_over_folds": over, **figures}
    counts = Counts(len(rows), len(rows) - unparsable - failed, unparsable, failed)
    return Scored(figures, counts, items, settings)


def _over_folds(items: list[dict[str, Any]], folds: Mapping[str, Hashable]) -> tuple[Estimate, dict[str, Any]]:
    by_fold: dict[Hashable, list[bool]] = {}
    for item in items:
        if item["id"] not in folds:
            raise DataError(f"{item['id']!r} has no fold. Give one for each reference.")
        by_fold.setdefault(folds[item["id"]], []).append(item["right"])
    values = np.array([np.mean(right) for right in by_fold.values()])
    n = len(values)
    if not 2 <= n <= len(_T95) + 1:
        raise DataError(f"There are {n} folds. Give from 2 to {len(_T95) + 1}.")
    deviation = float(values.std(ddof=1))
    half = _T95[n - 2] * deviation / n**0.5
    value = float(values.mean())
    settings = {"folds": {str(f): float(v) for f, v in zip(by_fold, values, strict=True)}, "deviation": deviation}
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), n), settings
