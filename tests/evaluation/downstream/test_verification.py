import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.downstream import verification

trials = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=25).filter(
    lambda x: len({same for same, _ in x}) == 2
)


def naive(pairs: list[tuple[bool, int]], p_target: float = 0.01) -> tuple[float, float]:
    """Rates at every threshold, as they are defined; the crossing of neighbours; the least cost."""
    targets = [s for same, s in pairs if same]
    others = [s for same, s in pairs if not same]
    points = []
    for theta in sorted({s for _, s in pairs} | {math.inf}, reverse=True):
        miss = sum(s < theta for s in targets) / len(targets)
        false_alarm = sum(s >= theta for s in others) / len(others)
        points.append((miss, false_alarm))
    for (m0, f0), (m1, f1) in itertools.pairwise(points):
        if m1 <= f1:
            part = (m0 - f0) / ((m0 - f0) - (m1 - f1))
            eer = f0 + part * (f1 - f0)
            break
    cost = min(p_target * m + (1 - p_target) * f for m, f in points) / min(p_target, 1 - p_target)
    return eer, cost


@settings(max_examples=25)
@given(trials)
def test_agrees_with_the_definition(pairs: list[tuple[bool, int]]) -> None:
    targets = {f"{i:02}": same for i, (same, _) in enumerate(pairs)}
    scores = {f"{i:02}": float(s) for i, (_, s) in enumerate(pairs)}
    found = verification(targets, scores)
    eer, cost = naive(pairs)
    assert found.figures["eer"].value == pytest.approx(eer)
    assert found.figures["min_dcf"].value == pytest.approx(cost)
    assert found.figures["min_dcf"].value <= 1


def test_agrees_with_the_roc_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    optimize, interpolate = pytest.importorskip("scipy.optimize"), pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(0)
    same = rng.random(400) < 0.3
    score = rng.standard_normal(400) + 1.5 * same
    found = verification(
        {f"{i:03}": bool(x) for i, x in enumerate(same)}, {f"{i:03}": float(x) for i, x in enumerate(score)}
    )
    fpr, tpr, _ = metrics.roc_curve(same, score, drop_intermediate=False)
    curve = interpolate.interp1d(fpr, tpr)
    eer = optimize.brentq(lambda x: 1 - x - curve(x), 0, 1)
    assert found.figures["eer"].value == pytest.approx(eer, abs=0.003)
    assert found.figures["eer"].low < eer < found.figures["eer"].high
    expected = min(0.01 * (1 - tpr) + 0.99 * fpr) / 0.01
    assert found.figures["min_dcf"].value == pytest.approx(expected)


def test_separated_scores_make_no_error_and_reversed_ones_all() -> None:
    targets = {"a": True, "b": True, "c": False, "d": False}
    assert verification(targets, {"a": 2.0, "b": 3.0, "c": 0.0, "d": 1.0}).value == 0
    assert verification(targets, {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}).value == 1
    # All scores equal: the only line is from none to all.
    assert verification(targets, dict.fromkeys(targets, 1.0)).value == 0.5


def test_failed_trials_and_bad_input() -> None:
    found = verification({"a": True, "b": False, "c": False}, {"a": 1.0, "b": 0.0, "c": None})
    assert (found.counts.asked, found.counts.failed) == (3, 1)
    with pytest.raises(DataError, match="'b' is NaN"):
        verification({"a": True, "b": False}, {"a": 1.0, "b": math.nan})
    with pytest.raises(DataError, match="both targets and impostors"):
        verification({"a": True, "b": False}, {"a": 1.0})
