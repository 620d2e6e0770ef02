import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.evaluation.statistics import (
    Estimate,
    bootstrap,
    bootstrap_crossed,
    bootstrap_many,
    bootstrap_ratio,
    jackknife,
    mean,
    share,
    wilson,
)


def naive_bootstrap(top: list[float], bottom: list[float], resamples: int) -> tuple[float, float]:
    rng, ratios = random.Random(1), []
    for _ in range(resamples):
        chosen = [rng.randrange(len(top)) for _ in top]
        ratios.append(sum(top[i] for i in chosen) / sum(bottom[i] for i in chosen))
    ratios.sort()
    return ratios[int(0.025 * resamples)], ratios[int(0.975 * resamples)]


def test_agrees_with_a_bootstrap_written_out() -> None:
    rng = random.Random(0)
    bottom = [rng.randrange(5, 40) for _ in range(40)]
    top = [rng.randrange(0, b // 3 + 1) for b in bottom]
    found = bootstrap_ratio(top, bottom)
    low, high = naive_bootstrap(top, bottom, 4000)
    assert found.value == sum(top) / sum(bottom)
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        found = bootstrap_ratio(list(rng.random(60) < 0.7), [1.0] * 60, resamples=500)
        hits += found.low <= 0.7 <= found.high
    assert 180 <= hits <= 199


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_the_interval_holds_the_value_and_repeats(items: list[tuple[int, int]]) -> None:
    top, bottom = [a for a, _ in items], [b for _, b in items]
    found = bootstrap_ratio(top, bottom, resamples=200)
    assert found == bootstrap_ratio(top, bottom, resamples=200)
    ratios = [a / b for a, b in items]
    assert min(ratios) - 1e-12 <= found.low <= found.high <= max(ratios) + 1e-12


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    top, bottom = list(range(20)), [20] * 20
    whole = bootstrap_ratio(top, bottom, resamples=1000)
    monkeypatch.setattr("lalia.evaluation.statistics._BLOCK", 20 * 7)
    assert bootstrap_ratio(top, bottom, resamples=1000) == whole


def test_nothing_to_divide_by() -> None:
    for found in (bootstrap_ratio([], []), bootstrap_ratio([1, 2], [0, 0])):
        assert math.isnan(found.value)
        assert found.to_dict()["value"] is None
        assert found.percent() == "none"


def test_resamples_without_a_reference_are_no_rate() -> None:
    found = bootstrap_ratio([1, 1], [0, 4], resamples=200)
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)


def test_percent() -> None:
    assert Estimate(0.1234, 0.1, 0.15, 9).percent() == "12.3 % [10.0, 15.0]"


def test_wilson() -> None:
    # 81 of 263: the worked example of Newcombe (1998), Statistics in Medicine 17, 857-872, method 3.
    assert wilson(81, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert wilson(29, 29)[0] == pytest.approx(0.8830, abs=1e-4)
    assert wilson(29, 29)[1] == 1.0
    assert all(math.isnan(x) for x in wilson(0, 0))


def test_a_bootstrap_of_any_statistic_is_that_of_the_ratio() -> None:
    rng = random.Random(3)
    top, bottom = [rng.random() for _ in range(12)], [1 + rng.random() for _ in range(12)]
    ratio = bootstrap(lambda a, b: a.sum(1) / b.sum(1), top, bottom)
    assert ratio.to_dict() == pytest.approx(bootstrap_ratio(top, bottom).to_dict())
    assert mean(top).value == pytest.approx(np.mean(top))
    median = bootstrap(lambda a: np.median(a, axis=1), top)
    assert median.low < median.value == np.median(top) < median.high
    assert math.isnan(bootstrap(lambda a: a.sum(1), []).value)


def test_shares_have_the_score_interval() -> None:
    found = share([True] * 9 + [False])
    assert (found.value, found.low, found.high, found.n) == (0.9, *wilson(9, 10), 10)
    assert math.isnan(share([]).value)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    found = jackknife(values.mean(), [np.delete(values, i).mean() for i in range(4)])
    half = 1.959963984540054 * values.std(ddof=1) / 2
    assert (found.low, found.value, found.high) == pytest.approx((3.5 - half, 3.5, 3.5 + half))
    assert found.n == 4
    assert math.isnan(jackknife(1.0, []).low)


def test_several_statistics_of_the_same_resamples() -> None:
    values = [1.0, 2.0, 4.0, 8.0]

    def both(x: np.ndarray) -> np.ndarray:
        # The second has no value in a resample without the 8.
        return np.stack([x.mean(1), np.where((x == 8).any(1), x.max(1), np.nan)], 1)

    first, second = bootstrap_many(both, values, figures=2, resamples=300)
    assert first == bootstrap(lambda x: x.mean(1), values, resamples=300)
    assert (second.value, second.low, second.high) == (8.0, 8.0, 8.0)
    assert [e.n for e in bootstrap_many(both, [], figures=2)] == [0, 0]


def test_crossed_resamples_written_out() -> None:
    rows, columns, y = list("aabbc"), list("xyxyy"), np.array([1.0, 4.0, 2.0, 8.0, 3.0])

    def means(weights: np.ndarray) -> np.ndarray:
        return np.stack([(weights * y).sum(1) / weights.sum(1), weights.sum(1)], axis=1)

    found = bootstrap_crossed(means, rows, columns, figures=2, resamples=20_000)
    # All 27 x 4 equally likely draws.
    values = []
    for drawn_rows in itertools.product("abc", repeat=3):
        for drawn_columns in itertools.product("xy", repeat=2):
            weights = [drawn_rows.count(r) * drawn_columns.count(c) for r, c in zip(rows, columns, strict=True)]
            if sum(weights):
                values.append(np.dot(weights, y) / sum(weights))
    assert found[0].value == y.mean()
    assert (found[0].low, found[0].high) == tuple(np.percentile(values, (2.5, 97.5)))
    assert found[1].value == found[0].n == 5
    assert math.isnan(bootstrap_crossed(means, [], [], figures=2)[1].low)


def test_crossed_intervals_hold_what_two_kinds_of_units_add() -> None:
    rng = np.random.default_rng(1)
    raters, items = 20, 30
    y = (rng.normal(0, 0.5, (raters, 1)) + rng.normal(0, 0.7, items) + rng.normal(0, 0.5, (raters, items))).ravel()
    rows = [f"r{i // items}" for i in range(raters * items)]
    columns = [f"i{i % items}" for i in range(raters * items)]
    found = bootstrap_crossed(lambda w: (w @ y / w.sum(1))[:, None], rows, columns, figures=1, resamples=4000)[0]
    grid = y.reshape(raters, items)
    expected = math.sqrt(grid.mean(1).var(ddof=1) / raters + grid.mean(0).var(ddof=1) / items)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(expected, rel=0.1)
