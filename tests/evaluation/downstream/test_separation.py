import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.downstream import separation, si_sdr
from lalia.evaluation.downstream.separation import LIMIT


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(estimate: list[float], reference: list[float]) -> float:
    a, b = ([x - sum(side) / len(side) for x in side] for side in (estimate, reference))
    scale = sum(x * y for x, y in zip(a, b, strict=True)) / sum(y * y for y in b)
    target = [scale * y for y in b]
    rest = [x - t for x, t in zip(a, target, strict=True)]
    return 10 * math.log10(sum(t * t for t in target) / sum(r * r for r in rest))


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_agrees_with_the_definition_and_with_torchmetrics(seed: int) -> None:
    public = pytest.importorskip("torchmetrics.functional.audio")
    reference, error = noise(seed, 2, 64)
    estimate = reference + 0.3 * error
    found = float(si_sdr(estimate, reference))
    assert found == pytest.approx(naive(estimate.tolist(), reference.tolist()))
    expected = public.scale_invariant_signal_distortion_ratio(estimate, reference, zero_mean=True)
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert float(si_sdr(7 * estimate + 3, reference)) == pytest.approx(found)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_order_is_the_best_of_all(seed: int, sources: int) -> None:
    references = noise(seed, sources, 50)
    mixture = references.sum(0)
    estimates = references[torch.randperm(sources, generator=torch.Generator().manual_seed(seed))]
    estimates = estimates + 0.5 * noise(seed + 1, sources, 50)
    found = separation({"x": references}, {"x": mixture}, {"x": estimates})
    best = max(
        sum(float(si_sdr(estimates[j], references[i])) for i, j in enumerate(order)) / sources
        for order in itertools.permutations(range(sources))
    )
    before = sum(float(si_sdr(mixture, r)) for r in references) / sources
    assert found.figures["si_sdr"].value == pytest.approx(best)
    assert found.value == pytest.approx(best - before)


def test_permutation_and_value_are_those_of_fast_bss_eval() -> None:
    public = pytest.importorskip("fast_bss_eval")
    references, error = noise(1, 3, 400), noise(2, 3, 400)
    estimates = references[[2, 0, 1]] + 0.4 * error
    found = separation({"x": references}, {"x": references.sum(0)}, {"x": estimates})
    value, order = public.si_sdr(references, estimates, zero_mean=True, return_perm=True)
    assert found.figures["si_sdr"].value == pytest.approx(float(value.mean()), abs=1e-3)
    assert found.items[0]["order"] == order.tolist() == [1, 2, 0]


def test_extremes_are_finite() -> None:
    reference = noise(3, 30)
    assert float(si_sdr(2 * reference, reference)) == LIMIT
    assert float(si_sdr(torch.zeros(30), reference)) == -LIMIT
    with pytest.raises(DataError, match="silent"):
        si_sdr(reference, torch.zeros(30))
    with pytest.raises(DataError, match="not finite"):
        si_sdr(reference * math.nan, reference)
    with pytest.raises(DataError, match="equal lengths"):
        si_sdr(reference[:9], reference)


def test_what_fails_takes_no_part_and_is_counted() -> None:
    references = noise(4, 2, 40)
    mixtures = {"x": references.sum(0), "y": references.sum(0)}
    found = separation({"x": references, "y": references}, mixtures, {"x": references})
    assert (found.counts.asked, found.counts.answered, found.counts.failed) == (2, 1, 1)
    assert found.figures["si_sdr"].n == 1
    with pytest.raises(DataError, match="no estimates"):
        separation({"x": references}, mixtures, {})
    with pytest.raises(DataError, match="no mixture for 'x'"):
        separation({"x": references}, {}, {"x": references})
    with pytest.raises(DataError, match="Give \\[S, N\\]"):
        separation({"x": references}, mixtures, {"x": references[:1]})
