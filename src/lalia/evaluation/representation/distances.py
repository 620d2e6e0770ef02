"""Distances between the items of groups: frames by matrix products, then warped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lalia.errors import ConfigError, DataError
from lalia.evaluation.representation.dtw import STEP, STEPS, Blocks, warped

__all__ = ["Distance", "Frames", "GroupDistances", "group_distances"]

Distance = Literal["angular", "euclidean", "identical"]

_BITS = 24
"""Costs are counted in steps of the greatest distance of two frames by 2^24: as finely as float32 can tell, and so
coarsely that what is equal stays equal when it is computed in float64."""

_AT_ONCE = 1 << 22
"""Distances of frames at once: some ten thousand pairs of items."""

_FAR = 1e12


@dataclass(frozen=True)
class Frames:
    """The frames of all items, one item behind the other.

    :param values: [F, D], or units [F].
    :param starts: first frame of each item, and at the end F: [I + 1].
    :param distance: of two frames, by ``cost``.
    :param scale: by which it is multiplied.
    """

    values: Tensor
    starts: np.ndarray
    distance: Distance
    scale: float

    @classmethod
    def of(cls, items: Sequence[Tensor], distance: Distance, *, pool: bool = False) -> "Frames":
        """
        :param items: the frames of each, [T, D] or units [T].
        :param pool: take the mean of all frames of an item for its only one.
        :raises ConfigError: the distance is of units, and these are features, or the other way round.
        :raises DataError: an item has too many frames.
        """
        units = items[0].ndim == 1
        if units != (distance == "identical") or (units and pool):
            raise ConfigError(
                f"{'Units' if units else 'Features'} have no {'mean' if pool and units else distance} distance. "
                f"Take {'identical, and no pooling' if units else 'angular or euclidean'}."
            )
        if pool:
            items = [x.mean(0, keepdim=True) for x in items]
        if (longest := max(map(len, items))) > STEPS // 2:
            raise DataError(f"An item has {longest} frames. Give phones, of at most {STEPS // 2} frames.")
        values = torch.cat(list(items))
        starts = np.concatenate(([0], np.cumsum([len(x) for x in items])))
        match distance:
            case "angular":
                return cls(_on_sphere(values), starts, distance, 2**_BITS / math.pi)
            case "euclidean":
                values = values if values.dtype == torch.float64 else values.float()
                widest = 2 * float(torch.linalg.vector_norm(values, dim=1).max())
                # A power of 2, so that nothing is rounded twice.
                return cls(values, starts, distance, 2.0 ** (_BITS - math.ceil(math.log2(max(widest, 1e-30)))))
            case "identical":
                return cls(values, starts, distance, 1.0)
            case _:
                raise ConfigError(f"There is no distance {distance!r}. Take angular, euclidean or identical.")

    @property
    def one(self) -> float:
        """The cost of a distance of 1."""
        return 2.0**_BITS if self.distance == "angular" else self.scale

    def cost(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The distances of frames [R, ...] and [C, ...] as whole multiples of what costs are counted in, [R, C]."""
        match self.distance:
            case "angular":
                return (rows @ columns.T).clamp_(-1, 1).acos_().mul_(self.scale).round_()
            case "euclidean":
                # By matrix products those of near frames would be rounding errors.
                found = torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")
                return found.mul_(self.scale).round_()
            case _:
                return (rows[:, None] != columns).float()


def _on_sphere(values: Tensor) -> Tensor:
    """Frames of length 1. One of length 0 is at the greatest distance from all others, as in the public
    implementations: a dimension that is added makes it so.
    """
    values = values if values.dtype == torch.float64 else values.float()
    norm = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    if bool((norm > 0).all()):
        return values / norm
    border = torch.where(norm > 0, 1 / _FAR, -2 * _FAR)
    return torch.cat((values / norm.where(norm > 0, 1), border), dim=1)


@dataclass(frozen=True)
class GroupDistances:
    """The distances of the items of pairs of groups.

    :param values: those of all pairs, flat.
    :param keys: of the pairs, in order: ``first * groups + second``, the first being at most the second.
    :param starts: of the pairs in ``values``, by rows of the first.
    """

    values: np.ndarray
    keys: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def places(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where in ``values`` the distances of groups [N] and [N] start, and how far it is to the next item of each."""
        turned = first > second
        low, high = np.minimum(first, second), np.maximum(first, second)
        start = self.starts[np.searchsorted(self.keys, low * len(self.sizes) + high)]
        one = np.ones_like(start)
        return start, np.where(turned, one, self.sizes[high]), np.where(turned, self.sizes[high], one)


def group_distances(frames: Frames, bounds: np.ndarray, first: np.ndarray, second: np.ndarray) -> GroupDistances:
    """The distance of every item of one group to every item of the other, once for each pair of groups that is named.

    It is the mean over the path that dynamic time warping finds. An item is infinitely far from itself: it is never
    compared with itself.

    :param bounds: first item of each group, and at the end the number of items [G + 1].
    :param first: groups [N].
    :param second: groups [N].
    """
    sizes = np.diff(bounds)
    groups = len(sizes)
    keys = np.unique(np.minimum(first, second) * groups + np.maximum(first, second))
    low, high = np.divmod(keys, groups)
    starts = np.concatenate(([0], np.cumsum(sizes[low] * sizes[high])))
    values = np.empty(starts[-1])
    spans = frames.starts[bounds]
    work = np.concatenate(([0], np.cumsum(np.diff(spans)[low] * np.diff(spans)[high])))
    begin = 0
    while begin < len(keys):
        end = max(int(np.searchsorted(work, work[begin] + _AT_ONCE, side="right")) - 1, begin + 1)
        _fill(values, frames, bounds, low[begin:end], high[begin:end], starts[begin:end])
        begin = end
    return GroupDistances(values, keys, starts[:-1], sizes)


def _fill(
    values: np.ndarray, frames: Frames, bounds: np.ndarray, low: np.ndarray, high: np.ndarray, starts: np.ndarray
) -> None:
    """The distances of some pairs of groups, which are sorted by the first."""
    spans, sizes = frames.starts[bounds], np.diff(bounds)
    long = np.diff(spans)
    # A matrix for every first group: its frames down, those of its partners across.
    heads = np.flatnonzero(np.diff(low, prepend=-1))
    tails = np.append(heads[1:], len(low))
    before = np.cumsum(long[high]) - long[high]
    width = np.add.reduceat(long[high], heads)
    size = long[low[heads]] * width
    offset = np.cumsum(size) - size
    costs = torch.empty(int(size.sum()), dtype=torch.float32 if frames.distance == "identical" else torch.float64)
    for a, z, o, n in zip(heads, tails, offset, size, strict=True):
        rows = frames.values[spans[low[a]] : spans[low[a] + 1]]
        partners = high[a:z]
        if partners[-1] - partners[0] == len(partners) - 1:
            columns = frames.values[spans[partners[0]] : spans[partners[-1] + 1]]
        else:
            columns = torch.cat([frames.values[spans[h] : spans[h + 1]] for h in partners])
        costs[o : o + n].copy_(frames.cost(rows, columns).view(-1))
    costs += STEP
    # Every pair of items of every pair of groups.
    of = np.repeat(np.arange(len(low)), sizes[low] * sizes[high])
    nth = np.arange(len(of)) - np.repeat(starts - starts[0], sizes[low] * sizes[high])
    i, j = np.divmod(nth, sizes[high][of])
    diagonal = low[of] == high[of]
    keep = ~diagonal | (i < j)
    of, nth, i, j = of[keep], nth[keep], i[keep], j[keep]
    group = np.repeat(np.arange(len(heads)), tails - heads)[of]
    one, other = bounds[low[of]] + i, bounds[high[of]] + j
    row = frames.starts[one] - spans[low[of]]
    column = frames.starts[other] - spans[high[of]] + before[of] - before[heads][group]
    stride = width[group]
    found = warped(
        costs.numpy(),
        Blocks(
            offset[group] + row * stride + column,
            stride,
            np.ones_like(stride),
            frames.starts[one + 1] - frames.starts[one],
            frames.starts[other + 1] - frames.starts[other],
        ),
    )
    found /= frames.one
    place = starts[of] + nth
    values[place] = found
    within = low[of] == high[of]
    values[(starts[of] + j * sizes[high[of]] + i)[within]] = found[within]
    for a in np.flatnonzero(low == high):
        n = sizes[low[a]]
        values[starts[a] : starts[a] + n * n : n + 1] = np.inf
