"""One table of codes that follows the data: assignment, running averages, and what becomes of dead codes.

Shapes: N vectors, C codes, D dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Codebook", "Usage"]

_EPSILON = 1e-5
_ROWS = 8192
_FIT_ROWS = 64
"""Vectors per code that the first centres are fitted on."""


@dataclass
class Usage:
    """What a batch asks of a codebook. Adding is summing, over micro-batches and over ranks.

    :param counts: [C] vectors that chose each code.
    :param sums: [C, D] of these vectors.
    :param fresh: [C, D] vectors of the batch, to take the place of dead codes; ``known`` [C] how many were added up.
    """

    counts: Tensor
    sums: Tensor
    fresh: Tensor
    known: Tensor

    @classmethod
    def nothing(cls, book: "Codebook") -> "Usage":
        """That of no vectors at all."""
        counts, vectors = torch.zeros_like(book.counts), torch.zeros_like(book.vectors)
        return cls(counts, vectors, vectors, counts)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def reduced(self, reduce: Callable[[Tensor], Tensor], rank: int = 0, world: int = 1) -> "Usage":
        """Summed over processes.

        :param reduce: sums a tensor over ranks.
        :param rank: of this process of ``world``. Each proposes its own share of the vectors for dead codes, so that
            none is a mixture.
        """
        mine = torch.arange(len(self.known), device=self.known.device) % world == rank
        counts, known = self.counts, torch.where(mine, self.known, 0)
        fresh = torch.where(mine[:, None], self.fresh, 0)
        return Usage(reduce(counts), reduce(self.sums), reduce(fresh), reduce(known))


class Codebook(nn.Module):
    """C vectors, each the running mean of what chose it (VQ-VAE, arXiv:1711.00937 appendix A.1).

    :param size: C.
    :param dim: D.
    :param normalize: compare directions only: vectors and codes are scaled to length 1 (arXiv:2110.04627 §3.2).
    :param decay: of the running averages, per update.
    :param dead_below: a code whose running count falls below this share of what an even use would give it is dead, and
        a vector of the batch takes its place (Jukebox, arXiv:2005.00341 §3.1).
    """

    vectors: Tensor
    counts: Tensor

    def __init__(
        self, size: int, dim: int, *, normalize: bool = False, decay: float = 0.99, dead_below: float = 0.05
    ) -> None:
        super().__init__()
        self.size, self.dim, self.normalize = size, dim, normalize
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("vectors", self._scaled(torch.randn(size, dim) / dim**0.5))
        # Zero until the first update: what the table held before then weighs nothing.
        self.register_buffer("counts", torch.zeros(size))

    def _scaled(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.normalize else x

    def assign(self, x: Tensor) -> Tensor:
        """The nearest code [...] of each vector [..., D]."""
        flat = self._scaled(x.detach().reshape(-1, self.dim).float())
        # In single precision also under autocast, which would take one code for another.
        with torch.autocast(flat.device.type, enabled=False):
            table = self.vectors.float()
            # |x - v|^2 without the |x|^2 that all codes share; in pieces, so that memory does not grow with the input.
            sizes, table = table.square().sum(1), -2 * table.T
            nearest = [torch.addmm(sizes, part, table).argmin(dim=1) for part in flat.split(_ROWS)]
        return torch.cat(nearest).view(x.shape[:-1])

    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors [..., D] of codes [...]."""
        return F.embedding(codes, self.vectors)

    @torch.no_grad()
    def usage(self, x: Tensor, codes: Tensor) -> Usage:
        """What vectors [..., D] that chose codes [...] ask for."""
        flat, chosen = self._scaled(x.detach().reshape(-1, self.dim).float()), codes.reshape(-1)
        counts = torch.bincount(chosen, minlength=self.size).to(flat)
        sums = torch.zeros(self.size, self.dim, device=flat.device).index_add_(0, chosen, flat)
        fresh = flat[torch.randint(len(flat), (self.size,), device=flat.device)]
        return Usage(counts, sums, fresh, torch.ones_like(counts))

    @torch.no_grad()
    def update(self, usage: Usage) -> None:
        """Move the codes towards what chose them, and replace the dead."""
        counts = self.decay * self.counts + (1 - self.decay) * usage.counts
        sums = self.decay * self.counts[:, None] * self.vectors + (1 - self.decay) * usage.sums
        moved = self._scaled(sums / counts[:, None].clamp(min=_EPSILON))
        used = counts > _EPSILON
        self.vectors.copy_(torch.where(used[:, None], moved, self.vectors))
        total = counts.sum()
        dead = (counts < self.dead_below * total / self.size) & (usage.known > 0)
        fresh = self._scaled(usage.fresh / usage.known.clamp(min=1)[:, None])
        self.vectors.copy_(torch.where(dead[:, None], fresh, self.vectors))
        # An even share, so that it has time to be chosen.
        self.counts.copy_(torch.where(dead, total / self.size, counts))

    @torch.no_grad()
    def fit(self, x: Tensor, *, passes: int = 10, seed: int = 0) -> None:
        """Start from the data: k-means over vectors [N, D].

        With fewer vectors than codes, what is left over are vectors again, moved a little.
        """
        chance = torch.Generator().manual_seed(seed)
        flat = self._scaled(x.detach().reshape(-1, self.dim).float())
        flat = flat[torch.randperm(len(flat), generator=chance)[: _FIT_ROWS * self.size].to(flat.device)]
        chosen = torch.arange(self.size, device=flat.device) % len(flat)
        centres = flat[chosen]
        if len(flat) < self.size:
            noise = torch.randn(centres.shape, generator=chance).to(flat)
            centres = centres + 0.01 * flat.std().nan_to_num(1.0) * noise
        self.vectors.copy_(self._scaled(centres))
        for _ in range(passes):
            usage = self.usage(flat, self.assign(flat))
            means = self._scaled(usage.sums / usage.counts.clamp(min=1)[:, None])
            spare = flat[torch.randint(len(flat), (self.size,), generator=chance).to(flat.device)]
            self.vectors.copy_(torch.where(usage.counts[:, None] > 0, means, spare))
        self.counts.fill_(len(flat) / self.size)
