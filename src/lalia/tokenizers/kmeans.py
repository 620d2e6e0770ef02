"""k-means over more features than fit in memory, reproducibly.

One pass of mini-batch updates (Sculley 2010) finds the region, then full passes of Lloyd's algorithm
that keep only sums settle it. Starting centres are k-means++ (Arthur & Vassilvitskii 2007) on a sample.

The same features in the same batches give the same bits, run after run, on one machine with one number of
threads. Another split into batches rounds sums elsewhere, and also moves the mini-batch pass.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lalia.errors import DataError

__all__ = ["assign", "fit_kmeans"]

_SAMPLE_PER_CLUSTER = 64
_CANDIDATES_PER_CLUSTER = 8
_CHUNK = 16384


def assign(features: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each feature: [N, D] and [K, D] to [N]; of equals, the first."""
    half = (centroids * centroids).sum(dim=1) / 2
    # argmin |x - c|^2 = argmax x.c - |c|^2 / 2; in chunks, so that N x K never lies in memory at once.
    return torch.cat([(part @ centroids.T - half).argmax(dim=1) for part in features.split(_CHUNK)])


def fit_kmeans(
    batches: Callable[[], Iterable[Tensor]],
    clusters: int,
    *,
    passes: int = 10,
    seed: int = 0,
    tolerance: float = 1e-4,
    initial: Tensor | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Centroids [K, D] of the features that ``batches()`` yields.

    :param batches: called once for each pass; yields [n, D] in the same order each time.
    :param clusters: K.
    :param passes: most Lloyd passes; they stop when the mean squared distance falls by less than ``tolerance``.
    :param seed: of the starting centres, and of where centres go that nothing is near.
    :param initial: start Lloyd's passes from these centroids [K, D] instead.
    :param report: called after each pass with its number and the mean squared distance before it.
    :raises DataError: fewer features, or fewer different ones, than clusters, or features that are not finite.
    """
    if clusters < 1:
        raise DataError(f"{clusters} clusters were asked for. Ask for at least 1.")
    generator = torch.Generator().manual_seed(seed)
    if initial is None:
        sample = _reservoir(batches(), _SAMPLE_PER_CLUSTER * clusters, generator)
        centroids = _mini_batch(batches(), _plus_plus(sample, clusters, generator))
    else:
        assert initial.shape[0] == clusters
        centroids = initial.clone()
    previous = float("inf")
    for number in range(passes):
        sums, counts = torch.zeros_like(centroids, dtype=torch.float64), torch.zeros(clusters, dtype=torch.float64)
        error, candidates = 0.0, _Candidates(clusters, centroids.shape[1], generator)
        for x in batches():
            near = assign(x, centroids)
            distance = (x - centroids[near]).square().sum(dim=1)
            sums.index_add_(0, near, x.double())
            counts += torch.bincount(near, minlength=clusters)
            error += float(distance.double().sum())
            candidates.add(x, distance)
        mean = error / max(float(counts.sum()), 1.0)
        if not math.isfinite(mean):
            raise DataError("The features to cluster contain NaN or infinite values. Check the encoder's weights.")
        centroids = (sums / counts.clamp(min=1)[:, None]).float()
        empty = (counts == 0).nonzero()[:, 0]
        # A centre that nothing is near moves to where the error is large.
        centroids[empty] = candidates.take(len(empty))
        if report:
            report(number + 1, mean)
        if previous - mean < tolerance * mean and not len(empty):
            break
        previous = mean
    return centroids


class _Candidates:
    """Features for centres that nothing is near: drawn as k-means++ draws them, by their squared distance.

    (The farthest themselves would often be of one place, and all but one of the moved centres wasted on it.)
    """

    def __init__(self, clusters: int, dim: int, generator: torch.Generator) -> None:
        self._points, self._distance, self._keys = torch.zeros(0, dim), torch.zeros(0), torch.zeros(0)
        self._size, self._generator = _CANDIDATES_PER_CLUSTER * clusters, generator

    def add(self, x: Tensor, distance: Tensor) -> None:
        # The smallest of exponential numbers with these rates are such a draw (Efraimidis & Spirakis 2006).
        keys = torch.empty(len(x)).exponential_(generator=self._generator) / distance.clamp(min=1e-30)
        keys = torch.cat([self._keys, keys])
        keep = keys.argsort(stable=True)[: self._size]
        self._points, self._keys = torch.cat([self._points, x])[keep], keys[keep]
        self._distance = torch.cat([self._distance, distance])[keep]

    def take(self, count: int) -> Tensor:
        """Some that lie far from every centre and from one another."""
        taken, distance = [], self._distance
        for _ in range(count):
            i = int(distance.argmax())
            taken.append(self._points[i])
            distance = torch.minimum(distance, (self._points - self._points[i]).square().sum(dim=1))
        return torch.stack(taken) if taken else self._points[:0]


def _reservoir(batches: Iterable[Tensor], size: int, generator: torch.Generator) -> Tensor:
    """An even sample of everything: each feature draws a number, and the smallest stay."""
    points, keys = None, None
    for x in batches:
        key = torch.rand(len(x), generator=generator, dtype=torch.float64)
        points = x if points is None else torch.cat([points, x])
        keys = key if keys is None else torch.cat([keys, key])
        if len(keys) > 4 * size:
            keep = keys.argsort()[:size]
            points, keys = points[keep], keys[keep]
    if points is None or keys is None:
        raise DataError("There are no features to cluster. Give recordings with speech in them.")
    return points[keys.argsort()[:size]]


def _plus_plus(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    if len(points) < clusters:
        raise DataError(f"{len(points)} frames cannot make {clusters} clusters. Give more speech or fewer clusters.")
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen, distance = [first], (points - points[first]).square().sum(dim=1)
    for _ in range(1, clusters):
        p = distance.double().clamp(min=0)
        total = float(p.sum())
        if math.isnan(total):
            raise DataError("The features to cluster contain NaN. Check the encoder's weights.")
        if total <= 0:
            raise DataError(f"The features have only {len(chosen)} different values. Use at most so many clusters.")
        u = torch.rand(1, generator=generator, dtype=torch.float64) * total
        index = min(int(torch.searchsorted(p.cumsum(0), u)), len(points) - 1)
        chosen.append(index)
        distance = torch.minimum(distance, (points - points[index]).square().sum(dim=1))
    return points[chosen].clone()


def _mini_batch(batches: Iterable[Tensor], centroids: Tensor) -> Tensor:
    centroids, counts = centroids.clone(), torch.zeros(len(centroids))
    for x in batches:
        near = assign(x, centroids)
        n = torch.bincount(near, minlength=len(centroids)).float()
        sums = torch.zeros_like(centroids).index_add_(0, near, x)
        counts += n
        hit = n > 0
        centroids[hit] += (sums[hit] - n[hit, None] * centroids[hit]) / counts[hit, None]
    return centroids
