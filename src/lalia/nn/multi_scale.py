"""Residual quantisation at several rates (SNAC, arXiv:2410.14411): coarse codes last longer than fine ones.

Shapes: B batch, T coarse frames, n fine frames in each, D dim, K codes of a coarse frame, L levels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError

__all__ = ["MultiScaleVQ"]


class MultiScaleVQ(nn.Module):
    """Each level quantises the mean, over its stride, of what the levels before it left over.

    The codes of a coarse frame are in the order of time, each before those of the finer levels within its span: with
    strides 4, 2, 1 the first code is of the whole frame, then one of its first half, two of the quarters of that half,
    one of its second half, and two of the quarters of that one.

    :param strides: fine frames that a code of each level lasts, each a multiple of the next, the last 1.
    :param codebook_size: codes of each level; ``codebook_dim`` the width in which they are compared, by direction.
    """

    def __init__(self, strides: tuple[int, ...], codebook_size: int, codebook_dim: int, dim: int) -> None:
        super().__init__()
        self.slots = tuple(_slots(strides))
        """The level of each code of a coarse frame, and the fine frame with which it begins."""
        self.strides, self.dim = strides, dim
        self.into = nn.ModuleList(nn.Linear(dim, codebook_dim) for _ in strides)
        self.out = nn.ModuleList(nn.Linear(codebook_dim, dim) for _ in strides)
        self.tables = nn.Parameter(torch.randn(len(strides), codebook_size, codebook_dim))

    def encode(self, x: Tensor) -> Tensor:
        """Fine frames [B, T * n, D] to codes [B, K, T]."""
        left = x.unflatten(1, (-1, self.strides[0]))
        found: dict[tuple[int, int], Tensor] = {}
        for level, stride in enumerate(self.strides):
            seen = self.into[level](left.unflatten(2, (-1, stride)).mean(dim=3))
            codes = (F.normalize(seen, dim=-1) @ F.normalize(self.tables[level], dim=-1).T).argmax(dim=-1)
            left = left - self._spoken(level, codes).repeat_interleave(stride, dim=2)
            found |= {(level, i * stride): codes[..., i] for i in range(codes.shape[2])}
        return torch.stack([found[slot] for slot in self.slots], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, k, T], the first k of each coarse frame, to fine frames [B, T * n, D]."""
        b, _, t = codes.shape
        x = self.tables.new_zeros(b, t, self.strides[0], self.dim)
        for (level, start), code in zip(self.slots, codes.unbind(1), strict=False):
            x[:, :, start : start + self.strides[level]] += self._spoken(level, code)[:, :, None]
        return x.flatten(1, 2)

    def _spoken(self, level: int, codes: Tensor) -> Tensor:
        return self.out[level](F.embedding(codes, self.tables[level]))  # type: ignore[no-any-return]


def _slots(strides: tuple[int, ...], level: int = 0, start: int = 0) -> Iterator[tuple[int, int]]:
    """Level and first fine frame of every code within a code's span, that code first."""
    below = strides[level + 1] if level + 1 < len(strides) else 0
    if strides[-1] != 1 or (below and strides[level] % below):
        raise ConfigError(
            f"MultiScaleVQ has strides {list(strides)}. Give numbers of which each is a multiple of the next, 1 last."
        )
    yield level, start
    for i in range(strides[level] // below if below else 0):
        yield from _slots(strides, level + 1, start + i * below)
