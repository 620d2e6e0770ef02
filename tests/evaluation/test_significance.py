import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lalia.evaluation.significance import holm, min_f_prime, sign_flip


def test_sign_flips_written_out() -> None:
    differences = [0.3, 0.1, -0.2, 0.5, 0.4]
    flipped = (zip(signs, differences, strict=True) for signs in itertools.product((1, -1), repeat=5))
    sums = [abs(sum(s * d for s, d in pairs)) for pairs in flipped]
    expected = sum(s >= abs(sum(differences)) - 1e-12 for s in sums) / 32
    assert sign_flip(differences) == expected
    assert sign_flip([0.0] * 4) == 1.0
    assert sign_flip([1.0] * 10) == 2 / 2**10
    # Random signs, where there are many.
    rng = np.random.default_rng(0)
    assert sign_flip(rng.standard_normal(30)) > 0.02
    assert sign_flip(1 + 0.1 * rng.standard_normal(30)) < 0.001
    assert math.isnan(sign_flip([]))


def test_min_f_prime_written_out() -> None:
    rng = np.random.default_rng(2)
    for n1, n2 in ((5, 9), (9, 5), (30, 30)):
        first, second = rng.normal(0.5, 1, n1), rng.normal(0.5, 1, n2)
        f1, f2 = (scipy.stats.ttest_1samp(x, 0).statistic ** 2 for x in (first, second))
        within = (f1 + f2) ** 2 / (f1**2 / (n2 - 1) + f2**2 / (n1 - 1))
        expected = scipy.stats.f.sf(f1 * f2 / (f1 + f2), 1, within)
        assert min_f_prime(list(first), list(second)) == pytest.approx(expected)
    # Units that all differ alike leave the test of the others.
    assert min_f_prime([1.0] * 8, list(first)) == pytest.approx(scipy.stats.ttest_1samp(first, 0).pvalue)
    assert min_f_prime([1.0, 1.0], [1.0, 1.0]) == 0
    assert min_f_prime([1.0, -1.0], [1.0, 2.0]) == 1
    assert math.isnan(min_f_prime([1.0], [1.0, 2.0]))


@given(st.lists(st.floats(0.0, 1.0), max_size=12))
def test_holm_written_out(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, i in enumerate(order):
        raised = [min(1.0, (len(order) - k) * p_values[order[k]]) for k in range(rank + 1)]
        assert adjusted[i] == pytest.approx(max(raised))


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert holm([]) == []
    found = holm([0.01, math.nan, 0.04, 0.03])
    assert found[0] == pytest.approx(0.03)
    assert math.isnan(found[1])
    assert found[2:] == pytest.approx([0.06, 0.06])
