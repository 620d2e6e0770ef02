"""The base of every layout: from the one method ``plan``, packing, unpacking and a text picture."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.config import Configuration
from lalia.errors import LayoutError
from lalia.layouts.cells import Extent, Step, cells_of
from lalia.layouts.extent import KnownExtent, times_of
from lalia.layouts.grid import ABSENT, Grid
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence

__all__ = ["Layout", "check_streams"]

_Plan = dict[str, np.ndarray]
"""For each stream, its cells in the order of the plan: columns of codebook, step and t [3, n]."""


@dataclass(frozen=True)
class Layout(Configuration):
    """How streams share the steps of an LM. A subclass writes ``plan`` and names its streams."""

    def __post_init__(self) -> None:
        names = self.streams
        if not names or len(set(names)) < len(names):
            raise LayoutError(
                f"{type(self).__name__} lays out streams {', '.join(names) or 'none'}. Name at least one, each once."
            )

    @property
    @abstractmethod
    def streams(self) -> tuple[str, ...]:
        """The streams that the plan reads, markers included."""

    @property
    def ending(self) -> frozenset[str]:
        """Streams that close with an end token (features never do)."""
        return frozenset(self.streams)

    @property
    def ends_with(self) -> Mapping[str, str]:
        """Streams that end, in generation, where another does, by that one's name; features have no other sign."""
        return {}

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
        markers = self.markers
        for name in self.streams:
            if name not in specs and name not in markers:
                raise LayoutError(
                    f"{type(self).__name__} lays out stream {name!r}, but the model has {', '.join(specs) or 'none'}. "
                    "Add the stream or fix the name."
                )
        marked = {n: StreamSpec(kind=k, frame_rate=None) for n, k in markers.items()}
        return {n: marked[n] if n in marked else specs[n] for n in self.streams}

    def ends(self, specs: Mapping[str, StreamSpec]) -> frozenset[str]:
        """Streams that have an end cell under these specs."""
        ending = self.ending
        return frozenset(n for n, s in self.all_specs(specs).items() if n in ending and isinstance(s.kind, Discrete))

    def pack(self, streams: Streams, specs: Mapping[str, StreamSpec]) -> Grid:
        """Lay streams on LM steps.

        :returns: a grid in which every token of every stream has exactly one cell, and every stream that
            ends one cell more.
        :raises LayoutError: a stream is missing or not of its spec.
        """
        specs = self.all_specs(specs)
        for name in self.streams:
            if name not in streams and name not in self.markers:
                raise LayoutError(f"Stream {name!r} is missing; got {', '.join(streams) or 'none'}. Give every stream.")
        given = {n: streams[n] for n in self.streams if n in streams}
        check_streams(given, specs)
        given = self.mark(given, specs)
        plans = self._plans(given, specs)
        num_steps = max((n for _, n in plans), default=0)
        positions: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for name, spec in specs.items():
            tokens, kind = given[name], spec.kind
            codebooks = kind.num_codebooks if isinstance(kind, Discrete) else 1
            position = np.full((len(plans), codebooks, num_steps), ABSENT, np.int64)
            for b, (plan, _) in enumerate(plans):
                codebook, step, t = plan[name]
                position[b, codebook, step] = t
            positions[name] = torch.from_numpy(position).to(tokens.values.device)
            values[name] = _gather(tokens, positions[name], kind)
        lengths = torch.tensor([n for _, n in plans], dtype=torch.long)
        return Grid(positions, values, lengths.to(given[self.streams[0]].lengths.device))

    def unpack(self, grid: Grid, specs: Mapping[str, StreamSpec]) -> Streams:
        """The streams of a grid; the inverse of ``pack`` (ends are dropped, durations and times not kept)."""
        ends = self.ends(specs)
        out: Streams = {}
        for name, spec in self.all_specs(specs).items():
            position, value, kind = grid.positions[name], grid.values[name], spec.kind
            present = position >= 0
            if isinstance(kind, Discrete) and name in ends:
                # The end is the last cell of codebook 0; an equal id before it is an ordinary token.
                first = position[:, 0]
                present[:, 0] &= (value[:, 0] != kind.end_id) | (first != _last(first)[:, None])
            lengths = _last(torch.where(present, position, ABSENT).flatten(1)) + 1
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
        ends, num_steps = self.ends(specs), int(grid.lengths[0])
        lines = []
        for name, spec in self.all_specs(specs).items():
            kind, position, value = spec.kind, grid.positions[name][0], grid.values[name][0]
            for k in range(len(position)):
                cells = ["." if t < 0 else str(t) for t in position[k, : min(width, num_steps)].tolist()]
                if isinstance(kind, Discrete) and k == 0 and name in ends and int(_last(position[0])) >= 0:
                    last = int(position[0].argmax())
                    if last < width and int(value[0, last]) == kind.end_id:
                        cells[last] = "E"
                tag = f"{name}:{k}" if len(position) > 1 else name
                line = f"{tag:<{label}}" + " ".join(f"{c:>2}" for c in cells) + (" ..." if num_steps > width else "")
                lines.append(line.rstrip())
        return "\n".join(lines)

    def num_codebooks(self, specs: Mapping[str, StreamSpec]) -> dict[str, int]:
        """K of every stream of the plan; 1 for features."""
        kinds = {n: s.kind for n, s in self.all_specs(specs).items()}
        return {n: k.num_codebooks if isinstance(k, Discrete) else 1 for n, k in kinds.items()}

    def _plans(self, streams: Streams, specs: Mapping[str, StreamSpec]) -> list[tuple[_Plan, int]]:
        """The plan of each row, and its number of steps."""
        num_codebooks, ends = self.num_codebooks(specs), self.ends(specs)
        lengths = {s: streams[s].lengths.tolist() for s in self.streams}
        rows = range(len(lengths[self.streams[0]]))
        if not self.timed:
            shape = tuple((s, k, s in ends) for s, k in num_codebooks.items())
            return [_plan_by_length(_Itself(self), shape, tuple(n[b] for n in lengths.values())) for b in rows]
        plans = []
        for b in rows:
            row = {s: n[b] for s, n in lengths.items()}
            times = {s: times_of(streams[s], specs[s], b) for s in self.streams}
            codes = {s: [*streams[s].values[b, 0, : row[s]].tolist(), k.end_id] for s, k in self.markers.items()}
            plan, steps = _lay_out(self, KnownExtent(num_codebooks, ends, row, times, codes))
            for name, cells in plan.items():
                if cells.shape[1] != row[name] * num_codebooks[name] + (name in ends):
                    raise LayoutError(
                        f"Stream {name!r} of row {b} has {row[name]} tokens, which its markers do not fit. "
                        "Leave the markers to the layout."
                    )
            plans.append((plan, steps))
        return plans


def check_streams(streams: Streams, specs: Mapping[str, StreamSpec]) -> None:
    """Raise unless the streams have as many rows as one another and are what their specs say.

    :raises LayoutError: they do not; the message names the stream.
    """
    rows = {n: len(t) for n, t in streams.items()}
    if len(set(rows.values())) > 1:
        raise LayoutError(f"The streams have {rows} rows. Give each as many.")
    for name, tokens in streams.items():
        kind = specs[name].kind
        if isinstance(kind, Discrete):
            fits = tokens.discrete and tokens.values.shape[1] == kind.num_codebooks
        else:
            fits = not tokens.discrete and tokens.values.shape[2] == kind.dim
        if not fits:
            raise LayoutError(
                f"Stream {name!r} has {tokens.values.dtype} values of shape {tuple(tokens.values.shape)}, "
                f"which is not {kind}. Tokenize with the model's own tokenizer."
            )
        if len(tokens) and int(tokens.lengths.max()) > tokens.num_tokens:
            raise LayoutError(
                f"Stream {name!r} has {tokens.num_tokens} tokens, but a row of length {int(tokens.lengths.max())}. "
                "Fix its lengths."
            )
        if isinstance(kind, Discrete) and tokens.values.numel():
            low, high = (int(x) for x in tokens.values.aminmax())
            if low < 0 or high >= kind.codebook_size:
                raise LayoutError(
                    f"Stream {name!r} holds code {low if low < 0 else high}, outside 0..{kind.codebook_size - 1}. "
                    "Tokenize with the model's own tokenizer."
                )


def _last(position: Tensor) -> Tensor:
    """The largest position of each row [..., S] to [...]; ``ABSENT`` where there is none."""
    return F.pad(position, (0, 1), value=ABSENT).amax(dim=-1)


def _gather(tokens: TokenSequence, position: Tensor, kind: Discrete | Continuous) -> Tensor:
    """The values of the cells at ``position`` [B, K, S]."""
    at = position.clamp(min=0)
    if isinstance(kind, Discrete):
        # One column more, for ends past the last token.
        codes = F.pad(tokens.values.long(), (0, 1))
        closed = position >= tokens.lengths.to(position.device)[:, None, None]
        return torch.where(closed, kind.end_id, codes.gather(2, at))
    features = F.pad(tokens.values, (0, 0, 0, 1))
    return features.gather(1, at[:, 0, :, None].expand(-1, -1, kind.dim))


def _lay_out(layout: Layout, extent: KnownExtent) -> tuple[_Plan, int]:
    cells: dict[str, list[Sequence[int]]] = {s: [] for s in layout.streams}
    steps = 0
    for step in layout.plan(extent):
        for stream, codebook, t in cells_of(step):
            cells[stream].append((codebook, steps, t))
        steps += 1
    return {s: np.array(c, np.int32).reshape(-1, 3).T for s, c in cells.items()}, steps


class _Itself:
    """A layout as a key that is equal to nothing else: equal layouts may differ in the order of their turns."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.layout is self.layout

    def __hash__(self) -> int:
        return id(self.layout)


# Utterances of one length are laid out alike, and training sees the same lengths again and again.
@lru_cache(maxsize=1024)
def _plan_by_length(
    key: _Itself, shape: tuple[tuple[str, int, bool], ...], lengths: tuple[int, ...]
) -> tuple[_Plan, int]:
    num_codebooks = {s: k for s, k, _ in shape}
    row = dict(zip(num_codebooks, lengths, strict=True))
    return _lay_out(key.layout, KnownExtent(num_codebooks, {s for s, _, ends in shape if ends}, row))
