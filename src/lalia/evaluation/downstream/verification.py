"""Speaker verification from scores: equal error rate and minimum detection cost."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lalia.errors import DataError
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import bootstrap_counts

__all__ = ["verification"]

_RESAMPLES = 1000


def verification(
    targets: Mapping[str, bool],
    scores: Mapping[str, float | None],
    *,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_false_alarm: float = 1.0,
    seed: int = 0,
) -> Scored:
    """EER and minDCF of trials, of which a higher score means the same speaker.

    At every threshold, equal scores going together, there is a miss rate and a false-alarm rate. The EER is where the
    two are equal on the straight line between the neighbouring thresholds (linear interpolation of the ROC, which is
    what s3prl does; no convex hull). minDCF is the least ``c_miss p_target P_miss + c_fa (1 - p_target) P_fa`` over
    thresholds, divided by the cost of the better of accepting and rejecting all (NIST SRE 2016 plan, section 3).
    The interval resamples trials as if they were independent; trials that share speakers are not, so it is too narrow
    where there are few speakers.

    :param targets: whether each trial is of one speaker.
    :param scores: a trial without one has failed, and takes no part.
    :raises DataError: there is no target or no impostor with a score, or a score is NaN.
    """
    rows = by_id(targets, scores)
    kept = [(key, bool(same), float(score)) for key, same, score in rows if score is not None]
    if nan := [key for key, _, score in kept if math.isnan(score)]:
        raise DataError(f"The score of trial {nan[0]!r} is NaN. Leave it out, or give a number.")
    same = np.array([s for _, s, _ in kept], bool)
    if same.all() or not same.any():
        raise DataError(f"Of {len(kept)} scored trials {int(same.sum())} are targets. Give both targets and impostors.")
    curve = _Curve.of(np.array([score for *_, score in kept]), same)
    trials = len(kept)
    costs = (c_miss * p_target, c_false_alarm * (1 - p_target))

    def cost(miss: np.ndarray, false_alarm: np.ndarray) -> np.ndarray:
        return np.asarray((costs[0] * miss + costs[1] * false_alarm).min(1) / min(costs))

    def resampled(statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda drawn: statistic(*curve.rates(drawn))

    return Scored(
        figures={
            "eer": bootstrap_counts(resampled(_equal_error_rate), trials, seed=seed, resamples=_RESAMPLES),
            "min_dcf": bootstrap_counts(resampled(cost), trials, seed=seed, resamples=_RESAMPLES),
        },
        counts=Counts(len(rows), trials, failed=len(rows) - trials),
        items=[{"id": key, "target": bool(same), "score": score} for key, same, score in rows],
        settings={
            "interpolation": "linear between thresholds",
            "p_target": p_target,
            "c_miss": c_miss,
            "c_false_alarm": c_false_alarm,
            "resamples": _RESAMPLES,
        },
    )


@dataclass(frozen=True)
class _Curve:
    """Trials from the highest score down, which is also the order in which they are drawn.

    :param same: whether each is a target.
    :param ends: the last of each run of equal scores.
    """

    same: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, same: np.ndarray) -> "_Curve":
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        return cls(same[order], np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1))

    def rates(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Miss and false-alarm rates [R, thresholds + 1] of draws [R, trials], from accepting none to accepting all."""
        right = np.cumsum(drawn * self.same, 1)[:, self.ends]
        wrong = np.cumsum(drawn, 1)[:, self.ends] - right
        hits, alarms = (np.pad(a, ((0, 0), (1, 0))) / a[:, -1:] for a in (right, wrong))
        return 1 - hits, alarms


def _equal_error_rate(miss: np.ndarray, false_alarm: np.ndarray) -> np.ndarray:
    gap = miss - false_alarm
    # It falls from 1 to -1: the first that is not above 0, and the one before.
    after = np.argmax(gap <= 0, 1)
    rows = np.arange(len(gap))
    before = after - 1
    part = gap[rows, before] / (gap[rows, before] - gap[rows, after])
    left = false_alarm[rows, before]
    return np.asarray(left + part * (false_alarm[rows, after] - left))
