"""The keys and values of a Transformer: a preallocated state that is a value.

Shapes: B batch, S steps, H heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.nn.kernels import attend
from lalia.nn.masks import Sight
from lalia.streaming import RowStates, State

__all__ = ["KVState", "KVView", "RowsView", "View"]


@dataclass
class KVState(State):
    """Keys and values of every layer so far.

    ``keys`` and ``values``: per layer [B, H_kv, capacity, D_head]; ``position`` [B]: steps already taken by
    each row, on the CPU, where it is read. Rows may stand at different positions. With a ``window``, no more
    than that many steps are kept: the step at position p lies at p modulo the window.
    """

    keys: list[Tensor]
    values: list[Tensor]
    position: Tensor
    window: int | None = None

    @property
    def capacity(self) -> int:
        """Steps for which there is room."""
        return self.keys[0].shape[2]

    def reserve(self, steps: int) -> None:
        """Make room for ``steps`` positions, at least doubling, so that growth costs O(1) a step."""
        most = steps if self.window is None else min(steps, self.window)
        if most > self.capacity:
            # Below the window nothing has come round yet, so that room at the end keeps every step in its place.
            room = max(most, 2 * self.capacity)
            self._widen(room if self.window is None else min(room, self.window))

    def rewinds(self, steps: int) -> bool:
        """Whether ``steps`` more can be taken and then taken back: none of them comes to lie where another was."""
        return self.window is None or int(self.position.max()) + steps <= self.window

    def rewind(self, steps: int) -> None:
        """Take the last steps of every row back."""
        self.position = self.position - steps

    def reset(self, fresh: "KVState", rows: Tensor) -> "KVState":
        old, new = (KVState(s.keys, s.values, s.position, s.window) for s in (self, fresh))
        capacity = max(old.capacity, new.capacity)
        old._widen(capacity)
        new._widen(capacity)
        return super(KVState, old).reset(new, rows)

    def _widen(self, capacity: int) -> None:
        room = capacity - self.capacity
        if room:
            self.keys = [F.pad(k, (0, 0, 0, room)) for k in self.keys]
            self.values = [F.pad(v, (0, 0, 0, room)) for v in self.values]


class View:
    """What the steps of one forward pass see, alike for every layer; here, of a whole input.

    :param steps: S of the pass.
    """

    def __init__(
        self,
        sight: Sight,
        steps: int,
        device: torch.device,
        *,
        lengths: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> None:
        self.at = torch.arange(steps, device=device)
        """The positions of the steps [S], or [B or 1, S]."""
        self.stop = steps
        """The steps of the longest row, padding included."""
        self.causal = False
        """Whether the steps see what a causal mask shows, without a mask of their own."""
        self.mask: Tensor | None = None
        """What each step may see [B or 1, 1, S, T]; None where it is all, or ``causal``."""
        if sight.mask == "causal" and (sight.window is None or steps <= sight.window):
            self.causal = steps > 1
        elif sight.mask != "full" or lengths is not None or sight.window is not None:
            at = self.at[None]
            self.mask = sight.visible(at, at, lengths=lengths, prefix=prefix)[:, None]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take the new keys and values of a layer [B, H_kv, S, D_head], and give all that there are."""
        return k, v

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
        """What the queries [B, H, S, D_head] of a layer find in the new keys and values and those before."""
        k, v = self.extend(layer, k, v)
        return attend(q, k, v, mask=self.mask, causal=self.causal, dropout=dropout)


class KVView(View):
    """What the steps of one forward pass see where others came before them, and where they go in a KVState.

    :param state: what came before; it is given room.
    :param lengths: [B] steps of each row; all S when not given.
    """

    def __init__(
        self,
        sight: Sight,
        steps: int,
        state: KVState,
        *,
        lengths: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> None:
        device = state.keys[0].device
        starts = state.position.tolist()
        first, last = min(starts), max(starts)
        self.stop = last + steps
        state.reserve(self.stop)
        self._state, self._steps = state, steps
        self.causal, self.mask = False, None
        # All rows at one place is the common case (one session, or a batch of equal prompts): then what is new
        # is one slice, and a single step needs no mask.
        together = first == last
        self.at = (state.position[: 1 if together else None, None] + torch.arange(steps)).to(device)
        self._round = self.stop > state.capacity
        """Whether steps come to lie where older ones were."""
        self._old = self._round and steps > 1 and last > 0
        """Whether what is new is seen beside what is kept, and written only after: it takes the place of what
        its first steps still see."""
        whole = sight.mask == "causal" and together
        if whole and first == 0 and (sight.window is None or self.stop <= sight.window):
            self.causal = steps > 1
        elif not whole or steps > 1:
            after = state.position + (steps if lengths is None else lengths.to(state.position))
            sight.check_pass(state.position, after, prefix)
            seen = sight.visible(self.at, self._kept(), lengths=after if sight.ends_late else None, prefix=prefix)
            self.mask = seen[:, None]
        self._slice: slice | None = None
        if together and not self._round:
            self._slice = slice(first, self.stop)
        elif together and steps == 1:
            self._slice = slice(first % state.capacity, first % state.capacity + 1)
        else:
            self._rows, self._columns = self._targets(lengths)
            self._slots = self.at.expand(len(starts), -1)[self._rows, self._columns] % state.capacity

    def _kept(self) -> Tensor:
        """The positions of the keys that the steps look at [B or 1, T]; below 0 where there is none yet."""
        capacity = self._state.capacity
        slots = torch.arange(capacity, device=self.at.device)
        if not self._round:
            return slots[None, : self.stop]
        if self._steps == 1:
            return self.at - (self.at - slots) % capacity
        if self._old:
            before = self.at[:, :1] - 1
            return torch.cat([before - (before - slots) % capacity, self.at], dim=1)
        return self.at

    def _targets(self, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows and steps [n] of what is written."""
        rows = len(self._state.position)
        keep = torch.ones((rows, self._steps), dtype=torch.bool)
        if self._round and self._steps > 1:
            # Padding must not take the place of what is still seen; of too many steps the last are kept.
            step = torch.arange(self._steps)
            count = torch.full((rows, 1), self._steps) if lengths is None else lengths.cpu()[:, None]
            keep = (step < count) & (step >= count - self._state.capacity)
        at = keep.nonzero(as_tuple=True)
        return at[0].to(self.at.device), at[1].to(self.at.device)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._write(self._state.keys, layer, k), self._write(self._state.values, layer, v)

    def _write(self, kept: list[Tensor], layer: int, new: Tensor) -> Tensor:
        if kept[layer].dtype != new.dtype:
            # Under autocast the state takes the type that attention computes in.
            kept[layer] = kept[layer].to(new.dtype)
        seen = torch.cat([kept[layer], new], dim=2) if self._old else new
        if self._slice is not None:
            kept[layer][:, :, self._slice] = new
        else:
            kept[layer][self._rows, :, self._slots] = new[self._rows, :, self._columns]
        return seen if self._round and self._steps > 1 else kept[layer][:, :, : self.stop]


class RowsView(View):
    """What the steps of rows see that have a state each: the maps of a layer are one product for all, and each row
    looks for itself, at no more than it has.
    """

    def __init__(
        self,
        sight: Sight,
        steps: int,
        states: RowStates,
        *,
        lengths: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> None:
        def part(x: Tensor | None, b: int) -> Tensor | None:
            return None if x is None else x[b : b + 1]

        self._rows = [
            KVView(sight, steps, state, lengths=part(lengths, b), prefix=part(prefix, b))
            for b, state in enumerate(states.rows)
        ]
        self.at = torch.cat([view.at for view in self._rows])
        self.stop = max(view.stop for view in self._rows)
        self.causal, self.mask = False, None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
        parts = zip(self._rows, q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([view.attend(layer, *of_row, dropout=dropout) for view, *of_row in parts])
