"""Several rows as one sequence, in which a row may go on from the first steps of another.

Nothing is padded, and what rows begin with alike is computed once. Shapes: N steps of the sequence, H heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.nn.kernels import attend
from lalia.nn.kv import View

__all__ = ["BranchView", "Branches"]


@dataclass(frozen=True)
class Branches:
    """Where the rows of a sequence lie. Each has its own steps there, after those that it shares with the row before.

    :param steps: of each row, from its first one on.
    :param shared: how many of them are those of the row before it, whosoever these are; the first row shares none.
    """

    steps: tuple[int, ...]
    shared: tuple[int, ...]

    @property
    def size(self) -> int:
        """N: the steps of the sequence."""
        return sum(self.steps) - sum(self.shared)

    def spans(self) -> list[list[tuple[int, int]]]:
        """Where in the sequence the steps of each row lie, in order, from start to stop; its own are the last span."""
        found: list[list[tuple[int, int]]] = []
        place = 0
        for steps, shared in zip(self.steps, self.shared, strict=True):
            path, left = [], shared
            for start, stop in found[-1] if shared else ():
                if left and stop > start:
                    path.append((start, min(stop, start + left)))
                    left -= path[-1][1] - start
            found.append([*path, (place, place + steps - shared)])
            place += steps - shared
        return found

    def positions(self) -> Tensor:
        """Of each step of the sequence in its row [N]."""
        return torch.cat([torch.arange(a, b) for a, b in zip(self.shared, self.steps, strict=True)])


class BranchView(View):
    """What the steps of such rows see: those before them in their own row, and no other row."""

    def __init__(self, branches: Branches, device: torch.device) -> None:
        self.at = branches.positions().to(device)
        self.stop = max(branches.steps)
        self.causal, self.mask = False, None
        self._rows: list[tuple[list[tuple[int, int]], Tensor | None]] = []
        for spans, shared in zip(branches.spans(), branches.shared, strict=True):
            own = spans[-1][1] - spans[-1][0]
            if own:
                mask = torch.ones(own, shared + own, dtype=torch.bool, device=device).tril(shared) if shared else None
                self._rows.append((spans, mask))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
        # Laid out so that heads merge without a copy.
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
        for spans, mask in self._rows:
            start, stop = spans[-1]
            seen = [torch.cat([x[:, :, a:b] for a, b in spans], dim=2) if mask is not None else x for x in (k, v)]
            if mask is None:
                seen = [x[:, :, start:stop] for x in seen]
            causal = mask is None and stop - start > 1
            out[:, :, start:stop] = attend(q[:, :, start:stop], *seen, mask=mask, causal=causal, dropout=dropout)
        return out
