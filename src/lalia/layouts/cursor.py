"""The cursor: one row of generation, driven by the same plan as training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lalia.errors import LayoutError
from lalia.layouts.cells import Cell, Choice, Step
from lalia.layouts.extent import GrowingExtent, times_of
from lalia.layouts.grid import ABSENT, Grid
from lalia.layouts.layout import Layout, check_streams
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence

__all__ = ["Cursor", "Laid", "grid_of"]

Value = int | Tensor
"""A code, or a frame of features [D]."""


class Laid(NamedTuple):
    """A cell with its value.

    ``last``: nothing more of its stream follows. Codes say so by the id of the end; features have no other way.
    """

    cell: Cell
    value: Value
    last: bool = False


class Cursor:
    """Walks the plan of one row: what is known is laid, the rest is asked of the model.

    :param known: streams of one row: the beginning of those that go on, the whole of the complete ones.
    :param complete: streams of which nothing more may be generated.
    :param limits: most tokens of a stream, the known ones counted.
    :raises LayoutError: one of these names a stream that the layout does not have.
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
        all_specs = layout.all_specs(specs)
        for name in (*known, *complete, *(limits or ())):
            if name not in all_specs:
                raise LayoutError(f"Stream {name!r} is not in the layout, which has {', '.join(all_specs)}. Fix it.")
        ends = layout.ends(specs)
        self._together = layout.ends_with
        self._end_ids = {n: s.kind.end_id for n, s in all_specs.items() if n in ends and isinstance(s.kind, Discrete)}
        self._lengths = {n: int(k.lengths[0]) for n, k in known.items()}
        self._codes: dict[str, list[list[int]]] = {n: k.values[0].tolist() for n, k in known.items() if k.discrete}
        self._features = {n: k.values[0] for n, k in known.items() if not k.discrete}
        self._specs, self._dropped = all_specs, dict.fromkeys(known, 0)
        self._extent = GrowingExtent(
            layout.num_codebooks(specs),
            ends,
            known=self._lengths,
            complete=frozenset(complete),
            limits=limits or {},
            times={n: times_of(known.get(n), s) for n, s in all_specs.items()} if layout.timed else {},
            codes={n: self._codes[n][0][: self._lengths[n]] if n in known else () for n in layout.markers},
        )
        self._plan: Iterator[Step] = layout.plan(self._extent)
        self.step: Step | None = next(self._plan, None)
        """The next step; None when the plan is over."""

    def given(self, slot: Cell | Choice | None) -> Value | None:
        """The value of a slot that is known already, or None."""
        if not isinstance(slot, Cell) or not self._extent.is_known(slot):
            return None
        stream, codebook, t = slot
        if t >= self._lengths.get(stream, 0):
            return self._end_ids[stream]
        codes, t = self._codes.get(stream), t - self._dropped[stream]
        return self._features[stream][t] if codes is None else codes[codebook][t]

    def extend(self, stream: str, more: TokenSequence) -> None:
        """Know more of a stream, behind what is known of it: it comes from outside, as it happens.

        :param more: of one row.
        :raises LayoutError: it is not of the layout, or not of its spec.
        """
        if stream not in self._specs:
            raise LayoutError(f"Stream {stream!r} is not in the layout, which has {', '.join(self._specs)}. Fix it.")
        check_streams({stream: more}, self._specs)
        new = more.values[0, ..., : int(more.lengths[0])] if more.discrete else more.values[0, : int(more.lengths[0])]
        first = self._dropped.setdefault(stream, 0)
        if not more.discrete:
            kept = self._features.get(stream)
            self._features[stream] = new if kept is None else torch.cat([kept, new])
        else:
            books = self._codes.setdefault(stream, [[] for _ in range(len(new))])
            known = self._lengths.get(stream, 0) - first
            for book, codes in zip(books, new.tolist(), strict=True):
                del book[known:]
                book += codes
        self._lengths[stream] = self._lengths.get(stream, 0) + int(more.lengths[0])
        self._extent.extend(stream, int(more.lengths[0]))

    def drop(self, stream: str, before: int) -> None:
        """Keep no tokens of a known stream before one: all of their cells have been laid."""
        count = before - self._dropped[stream]
        if count <= 0:
            return
        if stream in self._features:
            self._features[stream] = self._features[stream][count:].clone()
        for book in self._codes.get(stream, ()):
            del book[:count]
        self._dropped[stream] = before

    def known_step(self) -> list[Laid] | None:
        """The next step if it is known from one end to the other, or None."""
        if self.step is None:
            return None
        laid = []
        for slot in self.step:
            if slot is not None:
                value = self.given(slot)
                if value is None:
                    return None
                assert isinstance(slot, Cell)
                laid.append(Laid(slot, value))
        return laid

    def lay(self, laid: Sequence[Laid]) -> list[Laid]:
        """Record the values of the next step and move on.

        :returns: what counts: when a stream ends at this step, its other codebooks here are dropped.
        """
        ended: set[tuple[str, int]] = set()
        for (stream, codebook, t), value, last in laid:
            if last:
                self._end(stream, t + 1)
            code = value if isinstance(value, int) else None
            # Before the end of what is known, the id of the end is an ordinary token.
            if codebook == 0 and code is not None and code == self._end_ids.get(stream):
                if t >= self._lengths.get(stream, 0):
                    ended.add((stream, t))
                    self._end(stream, t)
            self._extent.record(Cell(stream, codebook, t), code)
        self.step = next(self._plan, None)
        if not ended:
            return list(laid)
        return [i for i in laid if i.cell.codebook == 0 or (i.cell.stream, i.cell.t) not in ended]

    def _end(self, stream: str, length: int) -> None:
        """The stream has ``length`` tokens, and so have those that end with it."""
        self._extent.end(stream, length)
        for other, leader in self._together.items():
            if leader == stream:
                self._end(other, length)


def grid_of(rows: Sequence[Sequence[Sequence[Laid]]], specs: Mapping[str, StreamSpec]) -> Grid:
    """A grid from cells laid row by row and step by step.

    :param rows: for each row, for each step, its cells.
    """
    steps = max((len(r) for r in rows), default=0)
    positions: dict[str, np.ndarray] = {}
    codes: dict[str, np.ndarray] = {}
    frames: dict[str, list[tuple[int, int, Tensor]]] = {}
    for name, spec in specs.items():
        if isinstance(spec.kind, Discrete):
            positions[name] = np.full((len(rows), spec.kind.num_codebooks, steps), ABSENT)
            codes[name] = np.zeros((len(rows), spec.kind.num_codebooks, steps), np.int64)
        else:
            positions[name] = np.full((len(rows), 1, steps), ABSENT)
            frames[name] = []
    for b, row in enumerate(rows):
        for s, step in enumerate(row):
            for (stream, codebook, t), value, _ in step:
                positions[stream][b, codebook, s] = t
                if isinstance(value, int):
                    codes[stream][b, codebook, s] = value
                else:
                    frames[stream].append((b, s, value))
    values = {n: torch.from_numpy(c) for n, c in codes.items()}
    for name, found in frames.items():
        kind = specs[name].kind
        assert not isinstance(kind, Discrete)
        values[name] = torch.zeros((len(rows), steps, kind.dim))
        if found:
            b_, s_, features = zip(*found, strict=True)
            stacked = torch.stack(features)
            values[name] = values[name].to(stacked)
            values[name][list(b_), list(s_)] = stacked
    return Grid({n: torch.from_numpy(p) for n, p in positions.items()}, values, torch.tensor([len(r) for r in rows]))
