"""The cursor: one row of generation, driven by the same plan as training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.errors import LayoutError
from lalia.layouts.cells import Cell, Choice, Step
from lalia.layouts.extent import GrowingExtent, starts
from lalia.layouts.grid import ABSENT, Grid
from lalia.layouts.layout import Layout
from lalia.streams import Discrete, Streams, StreamSpec

__all__ = ["Cursor", "Laid", "grid_of"]

Value = int | Tensor
"""A code, or a frame of features [D]."""


@dataclass(frozen=True)
class Laid:
    """A cell with its value."""

    cell: Cell
    value: Value


class Cursor:
    """Walks the plan of one row: what is known is laid, the rest is asked of the model.

    :param known: streams of one row: the beginning of those that go on, the whole of the complete ones.
    :param complete: streams of which nothing more may be generated.
    :param limits: most tokens of a stream.
    """

    def __init__(
        self,
        layout: Layout,
        specs: Mapping[str, StreamSpec],
        known: Streams,
        *,
        complete: Sequence[str] = (),
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self._specs = layout.all_specs(specs)
        ends = layout.ends(specs)
        for name in known:
            if name not in self._specs:
                raise LayoutError(f"Stream {name!r} is not in the layout, which has {', '.join(self._specs)}. Fix it.")
        self._known = known
        self._extent = GrowingExtent(
            self._specs,
            ends,
            known={n: int(k.lengths[0]) for n, k in known.items()},
            complete=frozenset(complete),
            limits=limits or {},
            times={n: starts(k, self._specs[n], 0) for n, k in known.items()},
            codes={n: k.values[0, 0].numpy() for n, k in known.items() if k.discrete},
        )
        self._plan: Iterator[Step] = layout.plan(self._extent)
        self.step: Step | None = next(self._plan, None)
        """The next step; None when the plan is over."""

    def given(self, slot: Cell | Choice | None) -> Value | None:
        """The value of a slot that is known already, or None."""
        if not isinstance(slot, Cell) or not self._extent.is_known(slot):
            return None
        known = self._known.get(slot.stream)
        if known is None or slot.t >= int(known.lengths[0]):
            kind = self._specs[slot.stream].kind
            assert isinstance(kind, Discrete)
            return kind.end_id
        if known.discrete:
            return int(known.values[0, slot.codebook, slot.t])
        return known.values[0, slot.t]

    def ready(self) -> bool:
        """Whether the next step is known from one end to the other."""
        return self.step is not None and all(s is None or self.given(s) is not None for s in self.step)

    def lay(self, laid: Sequence[Laid]) -> list[Laid]:
        """Record the values of the next step and move on.

        :returns: what counts: when a stream ends at this step, its other codebooks here are dropped.
        """
        ended = set()
        for item in laid:
            kind = self._specs[item.cell.stream].kind
            code = item.value if isinstance(item.value, int) else None
            if isinstance(kind, Discrete) and item.cell.codebook == 0 and code == kind.end_id:
                if not self._is_inner_end(item.cell):
                    ended.add((item.cell.stream, item.cell.t))
                    self._extent.end(item.cell.stream, item.cell.t)
            self._extent.record(item.cell, code)
        kept = [i for i in laid if i.cell.codebook == 0 or (i.cell.stream, i.cell.t) not in ended]
        self.step = next(self._plan, None)
        return kept

    def _is_inner_end(self, cell: Cell) -> bool:
        known = self._known.get(cell.stream)
        return known is not None and cell.t < int(known.lengths[0])


def grid_of(rows: Sequence[Sequence[Sequence[Laid]]], specs: Mapping[str, StreamSpec]) -> Grid:
    """A grid from cells laid row by row and step by step.

    :param rows: for each row, for each step, its cells.
    """
    steps = max((len(r) for r in rows), default=0)
    positions, values = {}, {}
    for name, spec in specs.items():
        kind = spec.kind
        if isinstance(kind, Discrete):
            positions[name] = torch.full((len(rows), kind.num_codebooks, steps), ABSENT)
            values[name] = torch.zeros((len(rows), kind.num_codebooks, steps), dtype=torch.long)
        else:
            positions[name] = torch.full((len(rows), 1, steps), ABSENT)
            values[name] = torch.zeros((len(rows), steps, kind.dim))
    for b, row in enumerate(rows):
        for s, step in enumerate(row):
            for (stream, codebook, t), value in ((i.cell, i.value) for i in step):
                positions[stream][b, codebook, s] = t
                if isinstance(value, int):
                    values[stream][b, codebook, s] = value
                else:
                    values[stream][b, s] = value
    return Grid(positions, values, torch.tensor([len(r) for r in rows]))
