"""The base of every layout: from the one method ``plan``, packing, unpacking and a text picture."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.errors import LayoutError
from lalia.layouts.cells import Cell, Extent, Step, cells_of
from lalia.layouts.extent import KnownExtent, starts
from lalia.layouts.grid import ABSENT, Grid
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence

__all__ = ["Layout"]

_Plan = dict[str, np.ndarray]
"""For each stream, its cells in the order of the plan: rows of (codebook, step, t) [n, 3]."""


@dataclass(frozen=True)
class Layout(Configuration):
    """How streams share the steps of an LM. A subclass writes ``plan`` and names its streams."""

    @property
    @abstractmethod
    def streams(self) -> tuple[str, ...]:
        """The streams that the plan reads, markers included."""

    @property
    def ending(self) -> frozenset[str]:
        """Streams that close with an end token (features never do)."""
        return frozenset(self.streams)

    @property
    def markers(self) -> Mapping[str, Discrete]:
        """Streams that the layout itself adds, such as the switches between speech and text."""
        return {}

    @property
    def timed(self) -> bool:
        """Whether the order of cells depends on when tokens happen, not on their number alone."""
        return False

    @abstractmethod
    def plan(self, extent: Extent) -> Iterator[Step]:
        """The steps in order. Lazy: what it asks of ``extent`` about generated cells was laid before."""

    def mark(self, streams: Streams, specs: Mapping[str, StreamSpec]) -> Streams:
        """``streams`` with the layout's own markers added, derived from the times of the others."""
        return streams

    # -- derived from plan ---------------------------------------------------------------------

    def all_specs(self, specs: Mapping[str, StreamSpec]) -> dict[str, StreamSpec]:
        """Specs of every stream in the plan, markers included.

        :raises LayoutError: a stream of the layout has no spec.
        """
        for name in self.streams:
            if name not in specs and name not in self.markers:
                raise LayoutError(
                    f"{type(self).__name__} lays out stream {name!r}, but the model has {', '.join(specs) or 'none'}. "
                    "Add the stream or fix the name."
                )
        marked = {n: StreamSpec(kind=k, frame_rate=None) for n, k in self.markers.items()}
        return {n: marked[n] if n in marked else specs[n] for n in self.streams}

    def ends(self, specs: Mapping[str, StreamSpec]) -> frozenset[str]:
        """Streams that have an end cell under these specs."""
        return frozenset(s for s in self.ending if isinstance(self.all_specs(specs)[s].kind, Discrete))

    def pack(self, streams: Streams, specs: Mapping[str, StreamSpec]) -> Grid:
        """Lay streams on LM steps.

        :returns: a grid in which every token of every stream has exactly one cell, and every stream that
            ends one cell more.
        :raises LayoutError: a stream is missing or not of its spec.
        """
        streams = self.mark(streams, specs)
        specs = self.all_specs(specs)
        self._check(streams, specs)
        plans = [self._plan_row(streams, specs, b) for b in range(len(streams[self.streams[0]]))]
        num_steps = max(int(n) for _, n in plans)
        positions: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for name in self.streams:
            tokens, kind = streams[name], specs[name].kind
            codebooks = kind.num_codebooks if isinstance(kind, Discrete) else 1
            position = np.full((len(plans), codebooks, num_steps), ABSENT, np.int64)
            for b, (plan, _) in enumerate(plans):
                codebook, step, t = plan[name].T
                position[b, codebook, step] = t
            positions[name] = torch.from_numpy(position).to(tokens.values.device)
            values[name] = self._gather(tokens, positions[name], kind)
        lengths = torch.tensor([n for _, n in plans], device=streams[self.streams[0]].lengths.device)
        return Grid(positions, values, lengths)

    def unpack(self, grid: Grid, specs: Mapping[str, StreamSpec]) -> Streams:
        """The streams of a grid; the inverse of ``pack`` (ends are dropped, durations and times not kept)."""
        out: Streams = {}
        for name, spec in self.all_specs(specs).items():
            position, value, kind = grid.positions[name], grid.values[name], spec.kind
            present = position >= 0
            if isinstance(kind, Discrete) and name in self.ends(specs):
                # The end is the last cell of codebook 0; an equal id before it is an ordinary token.
                first = position[:, 0]
                present[:, 0] &= (value[:, 0] != kind.end_id) | (first != first.amax(dim=1, keepdim=True))
            lengths = torch.where(present, position + 1, 0).amax(dim=(1, 2))
            longest = int(lengths.max()) if len(lengths) else 0
            b, k, s = present.nonzero(as_tuple=True)
            t = position[b, k, s]
            if isinstance(kind, Discrete):
                codes = value.new_zeros((len(grid), kind.num_codebooks, longest))
                codes[b, k, t] = value[b, k, s]
                out[name] = TokenSequence(codes, lengths)
            else:
                features = value.new_zeros((len(grid), longest, kind.dim))
                features[b, t] = value[b, s]
                out[name] = TokenSequence(features, lengths)
        return out

    def draw(self, grid: Grid, specs: Mapping[str, StreamSpec], *, width: int = 24) -> str:
        """Row 0 of a grid as text: a line per codebook, a column per LM step, ``t`` in each cell, ``E`` at ends."""
        label = max(len(s) for s in self.streams) + 4
        lines = []
        for name, spec in self.all_specs(specs).items():
            kind, position, value = spec.kind, grid.positions[name][0], grid.values[name][0]
            for k in range(len(position)):
                cells = ["." if t < 0 else str(t) for t in position[k, :width].tolist()]
                if isinstance(kind, Discrete) and k == 0 and name in self.ends(specs) and int(position[0].max()) >= 0:
                    last = int(position[0].argmax())
                    if last < width and int(value[0, last]) == kind.end_id:
                        cells[last] = "E"
                tag = f"{name}:{k}" if len(position) > 1 else name
                more = " ..." if int(grid.lengths[0]) > width else ""
                lines.append(f"{tag:<{label}}" + " ".join(f"{c:>2}" for c in cells) + more)
        return "\n".join(lines)

    def _check(self, streams: Streams, specs: Mapping[str, StreamSpec]) -> None:
        for name, spec in specs.items():
            if name not in streams:
                raise LayoutError(f"Stream {name!r} is missing; got {', '.join(streams) or 'none'}. Give every stream.")
            tokens, kind = streams[name], spec.kind
            if isinstance(kind, Discrete):
                fits = tokens.discrete and tokens.values.shape[1] == kind.num_codebooks
            else:
                fits = not tokens.discrete and tokens.values.shape[2] == kind.dim
            if not fits:
                raise LayoutError(
                    f"Stream {name!r} has {tokens.values.dtype} values of shape {tuple(tokens.values.shape)}, "
                    f"which is not {kind}. Tokenize with the model's own tokenizer."
                )
            if isinstance(kind, Discrete) and tokens.values.numel():
                low, high = int(tokens.values.min()), int(tokens.values.max())
                if low < 0 or high >= kind.codebook_size:
                    raise LayoutError(
                        f"Stream {name!r} holds code {low if low < 0 else high}, outside 0..{kind.codebook_size - 1}. "
                        "Tokenize with the model's own tokenizer."
                    )

    def _plan_row(self, streams: Streams, specs: Mapping[str, StreamSpec], b: int) -> tuple[_Plan, int]:
        lengths = {s: int(streams[s].lengths[b]) for s in self.streams}
        if not self.timed:
            return _plan_by_length(self, tuple(sorted(lengths.items())), tuple(sorted(specs.items())))
        times = {s: starts(streams[s], specs[s], b) for s in self.streams}
        codes = {s: streams[s].values[b, 0].numpy() for s in self.streams if streams[s].discrete}
        return self._plan(lengths, times, codes, specs)

    def _plan(
        self,
        lengths: Mapping[str, int],
        times: Mapping[str, np.ndarray | None],
        codes: Mapping[str, np.ndarray],
        specs: Mapping[str, StreamSpec],
    ) -> tuple[_Plan, int]:
        extent = KnownExtent(specs, self.ends(specs), lengths, times, codes)
        cells: dict[str, list[tuple[int, int, int]]] = {s: [] for s in self.streams}
        steps = 0
        for step in self.plan(extent):
            for cell in cells_of(step):
                cells[cell.stream].append((cell.codebook, steps, cell.t))
            steps += 1
        return {s: np.array(c, np.int64).reshape(-1, 3) for s, c in cells.items()}, steps

    @staticmethod
    def _gather(tokens: TokenSequence, position: Tensor, kind: Discrete | Continuous) -> Tensor:
        at = position.clamp(min=0)
        if isinstance(kind, Discrete):
            # One column more for the end, which lives past the last token of each row.
            codes = torch.nn.functional.pad(tokens.values, (0, 1), value=0)
            picked = codes.gather(2, at.clamp(max=codes.shape[2] - 1))
            closed = position >= tokens.lengths[:, None, None]
            return torch.where(closed, kind.end_id, picked)
        features = torch.nn.functional.pad(tokens.values, (0, 0, 0, 1))
        return features.gather(1, at[:, 0, :, None].expand(-1, -1, kind.dim))


@lru_cache(maxsize=4096)
def _plan_by_length(
    layout: Layout, lengths: tuple[tuple[str, int], ...], specs: tuple[tuple[str, StreamSpec], ...]
) -> tuple[_Plan, int]:
    return layout._plan(dict(lengths), dict.fromkeys(layout.streams), {}, dict(specs))


def frame(stream: str, t: int, extent: Extent) -> tuple[Cell, ...]:
    """All codebooks of one frame, for a step of their own."""
    return tuple(Cell(stream, k, t) for k in range(extent.num_codebooks(stream)) if extent.reaches(stream, t, k))
