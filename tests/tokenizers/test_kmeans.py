from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lalia.errors import DataError
from lalia.tokenizers import assign, fit_kmeans


def naive_assign(x: Tensor, centroids: Tensor) -> Tensor:
    return torch.tensor(
        [min(range(len(centroids)), key=lambda k: float((row - centroids[k]).square().sum())) for row in x]
    )


def naive_lloyd(x: Tensor, centroids: Tensor, passes: int) -> Tensor:
    """Lloyd's algorithm in double precision, one feature at a time."""
    x, centroids = x.double(), centroids.double()
    for _ in range(passes):
        near = naive_assign(x, centroids)
        centroids = torch.stack([x[near == k].mean(dim=0) for k in range(len(centroids))])
    return centroids


def blobs(n: int = 600, k: int = 5, dim: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features [n, dim] around k centres [k, dim] that lie well apart."""
    g = torch.Generator().manual_seed(seed)
    centres = 10 * torch.randn(k, dim, generator=g)
    return centres[torch.randint(k, (n,), generator=g)] + 0.5 * torch.randn(n, dim, generator=g), centres


def split(x: Tensor, size: int) -> Callable[[], Iterable[Tensor]]:
    return lambda: iter(x.split(size))


# -- nearest --------------------------------------------------------------------------------------


@given(n=st.integers(0, 30), k=st.integers(1, 6), seed=st.integers(0, 99))
def test_nearest_is_the_naive_nearest(n: int, k: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, centroids = torch.randn(n, 3, generator=g), torch.randn(k, 3, generator=g)
    got = assign(x, centroids)
    assert got.shape == (n,)
    assert got.dtype == torch.long
    assert got.tolist() == naive_assign(x, centroids).tolist()


def test_of_equals_the_first() -> None:
    assert assign(torch.randn(50, 3), torch.ones(4, 3)).tolist() == [0] * 50


def test_nearest_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    x, centroids = torch.randn(1000, 8), torch.randn(50, 8)
    whole = assign(x, centroids)
    monkeypatch.setattr("lalia.tokenizers.kmeans._CHUNK", 64)
    assert torch.equal(assign(x, centroids), whole)


# -- Lloyd ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 100, 1000])
@pytest.mark.parametrize("passes", [1, 4])
def test_lloyd_is_the_naive_lloyd_however_the_features_come(size: int, passes: int) -> None:
    x = torch.randn(300, 3)
    start = x[:6].clone()
    got = fit_kmeans(split(x, size), 6, passes=passes, tolerance=0, initial=start)
    torch.testing.assert_close(got.double(), naive_lloyd(x, start, passes), atol=1e-5, rtol=1e-5)
    assert torch.equal(start, x[:6]), "the start is not written over"


def test_error_falls_and_is_the_mean_squared_distance() -> None:
    x, errors = torch.randn(500, 4), []
    start = x[:8].clone()
    fit_kmeans(split(x, 100), 8, passes=6, tolerance=0, initial=start, report=lambda n, e: errors.append((n, e)))
    assert [n for n, _ in errors] == [1, 2, 3, 4, 5, 6]
    values = [e for _, e in errors]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(float((x - start[assign(x, start)]).square().sum(dim=1).mean()), rel=1e-5)


def test_it_stops_when_nothing_changes() -> None:
    x, _ = blobs()
    numbers: list[int] = []
    fit_kmeans(split(x, 100), 5, passes=100, report=lambda n, e: numbers.append(n))
    assert len(numbers) < 20


# -- start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_clusters_that_lie_apart_are_found(seed: int) -> None:
    x, centres = blobs(seed=seed)
    found = fit_kmeans(split(x, 64), 5, seed=seed)
    assert sorted(assign(centres, found).tolist()) == [0, 1, 2, 3, 4]
    assert float((found[assign(centres, found)] - centres).norm(dim=1).max()) < 0.3


def test_same_seed_same_bits_and_another_seed_another_order() -> None:
    x, _ = blobs()
    first, second, other = (fit_kmeans(split(x, 64), 5, seed=s) for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    state = torch.random.get_rng_state()
    fit_kmeans(split(x, 64), 5)
    assert torch.equal(state, torch.random.get_rng_state())


def test_start_is_drawn_from_everything() -> None:
    """A corpus of which the first half is one speaker: centres of the second half are found all the same."""
    x = torch.cat([torch.randn(5000, 2), 100 + torch.randn(5000, 2)])
    found = fit_kmeans(split(x, 50), 8, passes=1)
    assert 2 <= int((found[:, 0] > 50).sum()) <= 6


# -- hard cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_dead_centres_move_to_where_the_error_is_large(seed: int) -> None:
    x, _ = blobs(k=4, seed=seed)
    start = torch.cat([x.mean(dim=0)[None], torch.full((3, 4), 1e4)])
    found = fit_kmeans(split(x, 64), 4, passes=20, initial=start)
    assert sorted(set(assign(x, found).tolist())) == [0, 1, 2, 3]
    assert float((x - found[assign(x, found)]).square().sum(dim=1).mean()) < 0.25 * 4 * 1.5


def test_as_many_clusters_as_features() -> None:
    x = torch.randn(12, 3)
    found = fit_kmeans(split(x, 5), 12, passes=5)
    assert sorted(assign(x, found).tolist()) == list(range(12))


@pytest.mark.parametrize("k", [1, 2])
def test_few_clusters(k: int) -> None:
    x = torch.randn(100, 3)
    assert fit_kmeans(split(x, 30), k).shape == (k, 3)
    torch.testing.assert_close(fit_kmeans(split(x, 30), 1)[0], x.mean(dim=0), atol=1e-5, rtol=1e-5)


def test_too_few_features() -> None:
    with pytest.raises(DataError, match=r"9 frames cannot make 10 clusters\. Give more speech or fewer clusters\."):
        fit_kmeans(split(torch.randn(9, 3), 4), 10)
    with pytest.raises(DataError, match="no features to cluster"):
        fit_kmeans(list, 10)
    with pytest.raises(DataError, match="0 clusters were asked for"):
        fit_kmeans(split(torch.randn(9, 3), 4), 0)


def test_too_few_different_features() -> None:
    x = torch.randn(3, 4).repeat(50, 1)
    with pytest.raises(DataError, match="only 3 different values"):
        fit_kmeans(split(x, 40), 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite(bad: float) -> None:
    x = torch.randn(200, 4)
    x[57, 2] = bad
    with pytest.raises(DataError, match="NaN"):
        fit_kmeans(split(x, 40), 5)
    with pytest.raises(DataError, match="NaN"):
        fit_kmeans(split(x, 40), 5, initial=torch.randn(5, 4))
