"""The grid: streams laid out on LM steps, as tensors.

Shapes: B batch, K codebooks, S LM steps, D dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ABSENT", "Grid"]

ABSENT = -1
"""The position of a slot that holds nothing."""


@dataclass(frozen=True, eq=False)
class Grid:
    """For each stream, the cell that it has at each step.

    ``positions[stream]`` [B, K, S]: t of the cell, or ``ABSENT``. ``values[stream]``: ids [B, K, S] (any id
    where absent), or features [B, S, D]. ``lengths`` [B]: steps of each row.
    """

    positions: dict[str, Tensor]
    values: dict[str, Tensor]
    lengths: Tensor

    @property
    def num_steps(self) -> int:
        """S, padding included."""
        return next(iter(self.positions.values())).shape[2]

    def __len__(self) -> int:
        return len(self.lengths)

    def present(self, stream: str) -> Tensor:
        """Where the stream has a cell [B, K, S]."""
        return self.positions[stream] >= 0

    def steps(self, start: int, stop: int) -> "Grid":
        """Steps ``start`` to ``stop`` of every row."""
        return Grid(
            {n: p[:, :, start:stop] for n, p in self.positions.items()},
            {n: v[:, start:stop] if v.is_floating_point() else v[:, :, start:stop] for n, v in self.values.items()},
            (self.lengths - start).clamp(0, max(stop - start, 0)),
        )

    def rows(self, index: Tensor) -> "Grid":
        """The given rows, in that order."""
        return Grid(
            {n: p[index] for n, p in self.positions.items()},
            {n: v[index] for n, v in self.values.items()},
            self.lengths[index],
        )

    def to(self, device: torch.device | str) -> "Grid":
        return Grid(
            {n: p.to(device, non_blocking=True) for n, p in self.positions.items()},
            {n: v.to(device, non_blocking=True) for n, v in self.values.items()},
            self.lengths.to(device, non_blocking=True),
        )

    def num_cells(self, stream: str) -> int:
        """Cells of a stream in the whole grid, ends included."""
        return int(self.present(stream).sum())
