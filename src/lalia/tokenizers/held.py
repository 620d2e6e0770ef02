"""What a stream holds back, row by row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.streaming import State

__all__ = ["Held"]


@dataclass
class Held(State):
    """Frames [t, ...] of each row that are still needed."""

    rows: list[Tensor]

    @classmethod
    def empty(cls, batch_size: int, *shape: int) -> "Held":
        """Nothing yet.

        :param shape: of one frame.
        """
        return cls([torch.zeros(0, *shape) for _ in range(batch_size)])

    def select(self, rows: Tensor) -> "Held":
        return Held([self.rows[i] for i in rows.tolist()])

    def reset(self, fresh: "Held", rows: Tensor) -> "Held":
        return Held([(fresh if new else self).rows[b] for b, new in enumerate(rows.tolist())])

    def join(self, row: int, new: Tensor) -> Tensor:
        """What is held of a row, and what is new."""
        return torch.cat([self.rows[row].to(new), new])
