"""Spoken term detection: term-weighted value (NIST STD 2006)."""

import math
from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from lalia.errors import ConfigError, DataError
from lalia.evaluation.scored import Counts, Scored
from lalia.evaluation.statistics import bootstrap_counts

__all__ = ["term_weighted_value"]

_RESAMPLES = 1000


def term_weighted_value(
    targets: Mapping[str, Collection[str]],
    scores: Mapping[str, Mapping[str, float]],
    *,
    seconds: float,
    beta: float = 999.9,
    normalize: Literal["none", "z"] = "none",
    threshold: float | None = None,
    seed: int = 0,
) -> Scored:
    """MTWV: the most, over one threshold θ for all queries, of ``1 - mean_q(P_miss(q) + β P_fa(q))``.

    P_miss is over the places where the query is, P_fa over ``seconds`` minus these: trials are one a second (NIST STD
    2006 plan, section 5). A detection counts at scores from θ on; accepting nothing is a value of 0, so it is never
    less. Queries that are nowhere are left out of the mean, as they are there. The interval is a bootstrap over
    queries, θ found anew in each.

    :param targets: where each query is.
    :param scores: of each query and place that was looked at; a target without a score is missed at every θ.
    :param seconds: how much speech was searched.
    :param normalize: ``z`` takes from the scores of each query their mean, and divides by their standard deviation
        (over all its places), as SUPERB does.
    :param threshold: of scores after that, gives ATWV as well. A place is accepted above it (SUPERB: 2).
    :raises DataError: no query is anywhere; there are scores for others, or scores that are not finite.
    :raises ConfigError: there is less speech than targets.
    """
    queries = sorted(q for q in targets if targets[q])
    if not queries:
        raise DataError("No query is in the speech. Give targets of at least one.")
    if strangers := sorted(set(scores) - set(targets)):
        raise DataError(f"There are scores for the query {strangers[0]!r}, which has no targets. Check the names.")
    if seconds <= max(len(targets[q]) for q in queries):
        raise ConfigError(f"There are {seconds} s of speech, fewer than targets of a query. Give the seconds searched.")
    found = [_normalized(q, scores.get(q, {}), normalize) for q in queries]
    hits = [
        np.array([key in set(targets[q]) for key in names], bool) for q, (names, _) in zip(queries, found, strict=True)
    ]
    # The value only grows where a target is accepted: thresholds elsewhere cannot be the best.
    thetas = np.unique(np.concatenate([values[hit] for (_, values), hit in zip(found, hits, strict=True)]))[::-1]
    curves = np.zeros((len(queries), len(thetas) + 1))
    decided = np.zeros(len(queries))
    for i, (query, (_, values), hit) in enumerate(zip(queries, found, hits, strict=True)):
        n = len(set(targets[query]))

        ranked = [np.sort(-values[side]) for side in (hit, ~hit)]
        right, wrong = (np.searchsorted(side, -thetas, side="right") for side in ranked)
        curves[i, 1:] = right / n - beta * wrong / (seconds - n)
        if threshold is not None:
            accepted = values > threshold
            decided[i] = (accepted & hit).sum() / n - beta * (accepted & ~hit).sum() / (seconds - n)

    def best(drawn: np.ndarray) -> np.ndarray:
        return np.asarray((drawn @ curves).max(1) / drawn.sum(1))

    where = int(curves.mean(0).argmax())
    figures = {"mtwv": bootstrap_counts(best, len(queries), seed=seed, resamples=_RESAMPLES)}
    if threshold is not None:
        figures["atwv"] = bootstrap_counts(
            lambda drawn: np.asarray(drawn @ decided / drawn.sum(1)), len(queries), seed=seed, resamples=_RESAMPLES
        )
    missing = sum(not scores.get(q) for q in queries)
    return Scored(
        figures=figures,
        counts=Counts(len(queries), len(queries) - missing, failed=missing),
        items=[
            {"id": q, "targets": len(set(targets[q])), "value": float(curves[i, where])} for i, q in enumerate(queries)
        ],
        settings={
            "beta": beta,
            "seconds": seconds,
            "normalize": normalize,
            "theta": None if where == 0 else float(thetas[where - 1]),
            "threshold": threshold,
            "queries_left_out": len(targets) - len(queries),
            "resamples": _RESAMPLES,
        },
    )


def _normalized(query: str, scores: Mapping[str, float], normalize: str) -> tuple[list[str], np.ndarray]:
    names, values = list(scores), np.array(list(scores.values()), np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"A score of the query {query!r} is not finite. Leave it out, or give a number.")
    match normalize:
        case "none":
            return names, values
        case "z":
            spread = float(values.std()) if len(values) else math.nan
            return names, (values - values.mean()) / max(spread, 1e-9) if len(values) else values
    raise ConfigError(f"There is no normalisation {normalize!r}. Use none or z.")
