"""pGSLM's metrics against loops over values."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.prosody import Sampled, consistency, correctness, expressiveness

values = st.integers(-4, 4).map(float)


@st.composite
def prompts(draw):
    found = []
    for _ in range(draw(st.integers(1, 5))):
        n, s = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        row = st.lists(values, min_size=n, max_size=n)
        prefix = draw(st.lists(values, min_size=1, max_size=4))
        found.append(Sampled(prefix, draw(row), [draw(row) for _ in range(s)]))  # type: ignore[arg-type]
    return found


@given(prompts())
def test_correctness_and_expressiveness(found: list[Sampled]) -> None:
    errors, tokens, first, second = 0.0, 0, 0.0, 0.0
    for p in found:
        errors += min(sum(abs(x - y) for x, y in zip(row, p.target, strict=True)) for row in p.samples)
        tokens += len(p.target)
        first += sum(x for row in p.samples for x in row) / len(p.samples)
        second += sum(x * x for row in p.samples for x in row) / len(p.samples)
    assert correctness(found).value == pytest.approx(errors / tokens)
    assert correctness(found).n == len(found)
    assert expressiveness(found).value == pytest.approx(
        math.sqrt(max(second / tokens - (first / tokens) ** 2, 0)), abs=1e-6
    )


@given(prompts(), st.booleans())
def test_consistency_is_pearson_s_over_samples_of_prompts(found: list[Sampled], voiced: bool) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    xs, ys = [], []
    for p in found:
        before = [v for v in p.prefix if v != 0 or not voiced]
        for row in p.samples:
            after = [v for v in row if v != 0 or not voiced]
            if before and after:
                xs.append(sum(before) / len(before))
                ys.append(sum(after) / len(after))
    value = consistency(found, voiced=voiced).value
    if len(xs) < 2 or np.ptp(xs) < 1e-9 or np.ptp(ys) < 1e-9:
        assert math.isnan(value)
        return
    assert value == pytest.approx(scipy_stats.pearsonr(xs, ys)[0], abs=1e-6)


def test_a_worked_example() -> None:
    one = Sampled([1, 3], [1, 2], [[1, 4], [0, 1]])  # type: ignore[arg-type]
    two = Sampled([0, 5], [3], [[3], [7]])  # type: ignore[arg-type]
    # Least sums of errors: min(2, 2) and min(0, 4), over three values.
    assert correctness([one, two]).value == pytest.approx(2 / 3)
    # Sums over samples by samples: (6 + 10) / 2 = 8 of 3 values; squares (18 + 58) / 2 = 38.
    assert expressiveness([one, two]).value == pytest.approx(math.sqrt(38 / 3 - (8 / 3) ** 2))
    # Means of the prompts: 2, 2, 5, 5 where zeros are unvoiced, of the samples 2.5, 1, 3, 7.
    assert consistency([one, two], voiced=True).value == pytest.approx(np.corrcoef([2, 2, 5, 5], [2.5, 1, 3, 7])[0, 1])
    assert consistency([one, two], voiced=False).value == pytest.approx(
        np.corrcoef([2, 2, 2.5, 2.5], [2.5, 0.5, 3, 7])[0, 1]
    )


@given(prompts())
def test_more_samples_are_no_less_correct(found: list[Sampled]) -> None:
    fewer = [Sampled(p.prefix, p.target, p.samples[:1]) for p in found]
    assert correctness(found).value <= correctness(fewer).value + 1e-12


@given(prompts())
def test_what_is_recorded_is_correct(found: list[Sampled]) -> None:
    recorded = [Sampled(p.prefix, p.target, p.target[None]) for p in found]
    assert correctness(recorded).value == 0
    pooled = np.concatenate([p.target for p in found])
    assume(len(pooled) > 1)
    assert expressiveness(recorded).value == pytest.approx(pooled.std(), abs=1e-6)


def test_what_cannot_be_measured() -> None:
    for metric in (correctness, expressiveness, lambda p: consistency(p, voiced=True)):
        with pytest.raises(DataError, match="no prompts"):
            metric([])
    for prefix, target, samples, message in (
        ([], [1], [[1]], "a prefix of shape"),
        ([1], [1], [1], "a samples of shape"),
        ([1], [1], [[1, 2]], "2 values, and the recording 1"),
        ([1], [math.nan], [[1]], "a target that is not finite"),
        ([1], [1], [[math.inf]], "a samples that is not finite"),
    ):
        with pytest.raises(DataError, match=message):
            Sampled(prefix, target, samples)  # type: ignore[arg-type]
