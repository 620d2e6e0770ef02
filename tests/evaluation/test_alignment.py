from itertools import combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lalia.evaluation.alignment import attention_scores, monotonic_path


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 10_000))
def test_the_path_is_the_best_of_all(s: int, more: int, seed: int) -> None:
    t = s + more
    scores = np.random.default_rng(seed).normal(size=(s, t))

    def total(starts: tuple[int, ...]) -> float:
        bounds = [*starts, t]
        return sum(scores[i, a:b].sum() for i, (a, b) in enumerate(pairwise(bounds)))

    best = max(((0, *rest) for rest in combinations(range(1, t), s - 1)), key=total)
    assert tuple(monotonic_path(scores)) == best


def test_finds_a_diagonal_under_noise_in_attention() -> None:
    rng = np.random.default_rng(0)
    s, t, heads = 10, 200, 4
    bounds = np.sort(rng.choice(np.arange(5, t, 8), s - 1, replace=False))
    starts = [0, *bounds]
    weights = 0.2 * rng.random((heads, s, t))
    for i, (a, b) in enumerate(zip(starts, [*bounds, t], strict=True)):
        weights[:, i, a:b] += 0.5
    # A frame that every step attends to is no evidence for any.
    weights[:, :, 50] += 5
    assert np.abs(monotonic_path(attention_scores(weights)) - starts).max() <= 3


def test_scores_of_flat_attention_are_zero() -> None:
    assert not attention_scores(np.full((2, 3, 20), 0.05)).any()


def test_a_single_outlier_is_filtered_out() -> None:
    weights = np.zeros((1, 2, 20))
    weights[0, 0, 10] = 1.0
    assert not attention_scores(weights).any()
