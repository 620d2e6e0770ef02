"""The keys and values of a Transformer: a preallocated state that is a value.

Shapes: B batch, S steps, H heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.streaming import State

__all__ = ["KVState", "KVView"]


@dataclass
class KVState(State):
    """Keys and values of every layer so far.

    ``keys`` and ``values``: per layer [B, H_kv, capacity, D_head]; ``position`` [B]: steps already taken by
    each row, on the CPU, where it is read. Rows may stand at different positions.
    """

    keys: list[Tensor]
    values: list[Tensor]
    position: Tensor

    @property
    def capacity(self) -> int:
        """Steps for which there is room."""
        return self.keys[0].shape[2]

    def reserve(self, steps: int) -> None:
        """Make room for ``steps`` positions, at least doubling, so that growth costs O(1) a step."""
        if steps > self.capacity:
            self._widen(max(steps, 2 * self.capacity))

    def reset(self, fresh: "KVState", rows: Tensor) -> "KVState":
        old, new = KVState(self.keys, self.values, self.position), KVState(fresh.keys, fresh.values, fresh.position)
        capacity = max(old.capacity, new.capacity)
        old._widen(capacity)
        new._widen(capacity)
        return super(KVState, old).reset(new, rows)

    def _widen(self, capacity: int) -> None:
        room = capacity - self.capacity
        if room:
            self.keys = [F.pad(k, (0, 0, 0, room)) for k in self.keys]
            self.values = [F.pad(v, (0, 0, 0, room)) for v in self.values]


class KVView:
    """Where one forward pass writes into a KVState, and what its steps may see there: alike for every layer.

    :param steps: S of the pass; the state is given room for them.
    """

    def __init__(self, state: KVState, steps: int) -> None:
        device = state.keys[0].device
        starts = state.position.tolist()
        self._first = min(starts)
        self.stop = max(starts) + steps
        """The steps of the longest row, padding included."""
        state.reserve(self.stop)
        self._state = state
        self.causal = False
        """Whether the steps see what a causal mask shows, without a mask of their own."""
        self.mask: Tensor | None = None
        """What each step may see [B or 1, 1, S, stop]; None where it is all, or ``causal``."""
        # All rows at one place is the common case (one session, or a batch of equal prompts): then what is new
        # is one slice, and a single step needs no mask.
        together = self._first == max(starts)
        self._rows = None if together else torch.arange(len(starts), device=device)[:, None]
        first = state.position[:1] if together else state.position
        self.at = (first[:, None] + torch.arange(steps)).to(device)
        """The positions of the steps [B or 1, S]."""
        if together and self._first == 0:
            self.causal = steps > 1
        elif not together or steps > 1:
            self.mask = (torch.arange(self.stop, device=device) <= self.at[..., None])[:, None]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values of a layer [B, H_kv, S, D_head], and read all that there are."""
        return self._write(self._state.keys, layer, k), self._write(self._state.values, layer, v)

    def _write(self, kept: list[Tensor], layer: int, new: Tensor) -> Tensor:
        if kept[layer].dtype != new.dtype:
            # Under autocast the state takes the type that attention computes in.
            kept[layer] = kept[layer].to(new.dtype)
        if self._rows is None:
            kept[layer][:, :, self._first : self.stop] = new
        else:
            kept[layer][self._rows, :, self.at] = new.transpose(1, 2)
        return kept[layer][:, :, : self.stop]
