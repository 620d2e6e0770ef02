import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, DataError
from lalia.evaluation.generation.tradeoff import Curve, Oracle, Point, evaluate_tradeoff


def points(*pairs):
    return [Point(float(t), ppx, vert) for t, (vert, ppx) in enumerate(pairs)]


def test_worked_example() -> None:
    # ln PPX falls from 4 at VERT 0.1 over 2 at 0.3 to 1 at 0.5, where texts repeat themselves.
    curve = Curve(points((0.5, math.e), (0.1, math.exp(4)), (0.3, math.exp(2))))
    found = curve.read(Oracle(ppx=math.exp(1.5), vert=0.2))
    assert found.ppx_at_oracle_vert == pytest.approx(math.exp(3))
    assert found.vert_at_oracle_ppx == pytest.approx(0.4)
    # Trapezoids of 3 to 2 and 2 to 1.5, each 0.1 wide.
    assert found.area == pytest.approx(0.25 + 0.175)


def test_nothing_is_extrapolated() -> None:
    curve = Curve(points((0.1, 100.0), (0.3, 50.0)))
    found = curve.read(Oracle(ppx=10.0, vert=0.05))
    assert all(map(math.isnan, (found.ppx_at_oracle_vert, found.vert_at_oracle_ppx, found.area)))
    at_the_edge = curve.read(Oracle(ppx=50.0, vert=0.1))
    assert at_the_edge.ppx_at_oracle_vert == pytest.approx(100)
    assert at_the_edge.vert_at_oracle_ppx == 0.3
    assert at_the_edge.area == pytest.approx(0.2 * (math.log(100) + math.log(50)) / 2)


def test_better_than_the_oracle_is_a_negative_area() -> None:
    curve = Curve(points((0.1, 100.0), (0.3, 50.0)))
    assert curve.read(Oracle(ppx=90.0, vert=0.25)).area < 0


def test_of_several_crossings_the_first() -> None:
    curve = Curve(points((0.1, 100.0), (0.2, 10.0), (0.3, 100.0), (0.4, 10.0)))
    assert curve.vert(math.sqrt(1000)) == pytest.approx(0.15)


def test_a_cubic_is_found_again() -> None:
    def ppx(v):
        return math.exp(5 - 6 * v + 3 * v**2 - 20 * v**3)

    curve = Curve([Point(t, ppx(v), v) for t, v in enumerate((0.05, 0.1, 0.2, 0.3, 0.4))], "cubic")
    assert curve.ppx(0.15) == pytest.approx(ppx(0.15), rel=1e-4)
    assert curve.vert(ppx(0.33)) == pytest.approx(0.33, abs=1e-4)
    exact = np.polynomial.Polynomial([5, -6, 3, -20]).integ()
    assert curve.area(0.15, 0.33) == pytest.approx(exact(0.33) - exact(0.15), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 99), st.floats(1, 1e4)), min_size=2, max_size=8, unique_by=lambda p: p[0]))
def test_the_curve_passes_through_what_was_measured(pairs) -> None:
    curve = Curve(points(*((v / 100, ppx) for v, ppx in pairs)))
    for v, ppx in pairs:
        assert curve.ppx(v / 100) == pytest.approx(ppx)
        at = curve.vert(ppx)
        assert at <= v / 100 + 1e-9
        assert curve.ppx(at) == pytest.approx(ppx, rel=1e-6)
    low, high = min(pairs)[0] / 100, max(pairs)[0] / 100
    grid = np.linspace(low, high, 2_000)
    naive = sum(math.log(curve.ppx(min(x, high))) for x in grid[:-1]) * (high - low) / len(grid)
    assert curve.area(low, high) == pytest.approx(naive, abs=0.01)


def test_bad_points() -> None:
    with pytest.raises(DataError, match="2 temperatures"):
        Curve(points((0.1, 2.0)))
    with pytest.raises(DataError, match="4 temperatures"):
        Curve(points((0.1, 2.0), (0.2, 2.0), (0.3, 2.0)), "cubic")
    with pytest.raises(DataError, match="each once"):
        Curve([Point(1.0, 2.0, 0.1), Point(1.0, 3.0, 0.2)])
    with pytest.raises(DataError, match="PPX nan"):
        Curve(points((0.1, math.nan), (0.2, 2.0)))
    with pytest.raises(ConfigError, match="'spline'"):
        Curve(points((0.1, 2.0), (0.2, 2.0)), "spline")  # type: ignore[arg-type]


def measured(ppx: float, vert: float, n: int = 30, fails: int = 0):
    """Texts with perplexities around one value, and the same BLEUs each."""
    rng = np.random.default_rng(round(1000 * vert))
    nlls = math.log(ppx) + 0.1 * rng.standard_normal(n)
    surprise = [{"id": f"p{i}", "nll": float(x)} for i, x in enumerate(nlls)][fails:]
    return {"items": surprise}, {"items": [{"id": f"p{i}", "self_bleu2": vert, "auto_bleu2": vert} for i in range(n)]}


def test_evaluation() -> None:
    sampled = {1.0: measured(100, 0.2), 0.5: measured(20, 0.4, fails=3), 1.5: measured(400, 0.1)}
    found = evaluate_tradeoff(sampled, measured(50, 0.15), average="geometric")
    assert [p["temperature"] for p in found["points"]] == [0.5, 1.0, 1.5]
    assert found["points"][1]["vert"] == pytest.approx(0.2)
    # The mean of 30 has a deviation of 0.1 / sqrt(30).
    assert found["points"][1]["ppx"] == pytest.approx(100, rel=0.06)
    summary = found["summary"]
    assert summary["ppx_at_oracle_vert"]["value"] == pytest.approx(200, rel=0.08)
    assert summary["vert_at_oracle_ppx"]["value"] == pytest.approx(0.4 - 0.2 * math.log(2.5) / math.log(5), rel=0.08)
    for name in summary:
        assert summary[name]["low"] < summary[name]["value"] < summary[name]["high"]
    arithmetic = evaluate_tradeoff(sampled, measured(50, 0.15))
    assert arithmetic["points"][0]["ppx"] > found["points"][0]["ppx"]


def test_evaluation_of_too_little() -> None:
    oracle = measured(50, 0.15)
    far = evaluate_tradeoff({1.0: measured(100, 0.2), 0.5: measured(90, 0.4)}, oracle)["summary"]
    assert far["ppx_at_oracle_vert"]["value"] is None
    with pytest.raises(DataError, match=r"temperature 0\.5"):
        evaluate_tradeoff({1.0: measured(100, 0.2), 0.5: ({"items": []}, {"items": []})}, oracle)
    with pytest.raises(DataError, match="2 temperatures"):
        evaluate_tradeoff({1.0: measured(100, 0.2)}, oracle)
    with pytest.raises(ConfigError, match="'median'"):
        evaluate_tradeoff({}, oracle, average="median")  # type: ignore[arg-type]
