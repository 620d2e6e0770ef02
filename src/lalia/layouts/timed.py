"""The layouts whose order depends on when tokens happen: ``Merge`` and ``Switch``."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

import torch

from lalia.errors import LayoutError
from lalia.layouts.cells import Cell, Choice, Extent, Step
from lalia.layouts.extent import times_of
from lalia.layouts.layout import Layout
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence, pad_batch

__all__ = ["Merge", "Switch"]


@dataclass(frozen=True)
class Merge(Layout):
    """Streams in the order in which their tokens happen (SpiRit-LM expressive, arXiv:2402.05755 §3.2)::

        units  . 0 1 . 2 3
        pitch  0 . . 1 . .

    Tokens of one time keep the order of ``merged``. Clocked streams are ordered by their clocks. Where one has
    none, as after the removal of repeats, only the model can tell in generation whose token comes next, and
    the streams need one vocabulary; their ends come after everything else. A stream whose tokens were given
    other times than its clock's cannot be ordered in generation as it was in training: give its spec no
    frame rate.
    """

    merged: tuple[str, ...]
    _: KW_ONLY
    closed: bool = True

    @property
    def streams(self) -> tuple[str, ...]:
        return self.merged

    @property
    def ending(self) -> frozenset[str]:
        return frozenset(self.streams if self.closed else ())

    @property
    def timed(self) -> bool:
        return True

    def plan(self, extent: Extent) -> Iterator[Step]:
        _single(extent, self.merged, "Merge")
        t = dict.fromkeys(self.merged, 0)
        while candidates := tuple(Cell(s, 0, t[s]) for s in self.merged if extent.reaches(s, t[s])):
            chosen = yield from _next(extent, candidates)
            t[chosen.stream] += 1


@dataclass(frozen=True)
class Switch(Layout):
    """Spans of one stream after another, each opened by a marker (SUTLM, SpiRit-LM)::

        switch  0 . . 1 . . 2 . E
        speech  . 0 1 . . . . 2 .
        text    . . . . 0 1 . . .

    The spans follow the times of the tokens: give streams whose tokens take turns. A row in which only one
    stream has tokens needs no times. The marker stream holds which stream opens (its index in
    ``switched``), and its end closes everything.

    :param beside: streams that share the spans of one, merged with it in the order in which their tokens happen
        (SpiRit-LM expressive: ``{"speech": ("style", "pitch")}``); at one time they come first, in this order.
    """

    switched: tuple[str, ...]
    _: KW_ONLY
    marker: str = "switch"
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.beside:
            if name not in self.switched:
                raise LayoutError(
                    f"Switch merges {', '.join(self.beside[name])} with {name!r}, but its spans are of "
                    f"{', '.join(self.switched)}. Name one of these."
                )

    @property
    def streams(self) -> tuple[str, ...]:
        return (self.marker, *self.switched, *(s for others in self.beside.values() for s in others))

    def span(self, which: int) -> tuple[str, ...]:
        """The streams of a span, in the order in which they come at one time."""
        name = self.switched[which]
        return (*self.beside.get(name, ()), name)

    @property
    def ending(self) -> frozenset[str]:
        return frozenset((self.marker,))

    @property
    def markers(self) -> Mapping[str, Discrete]:
        return {self.marker: Discrete(len(self.switched))}

    @property
    def timed(self) -> bool:
        return True

    def mark(self, streams: Streams, specs: Mapping[str, StreamSpec]) -> Streams:
        """``streams`` with the marker, and with the times by which the plan orders them."""
        if self.marker in streams:
            return streams
        rows = [self._mark_row(streams, specs, b) for b in range(len(streams[self.switched[0]]))]
        return {**streams, **{s: pad_batch([row[s] for row in rows]) for s in self.streams}}

    def _mark_row(self, streams: Streams, specs: Mapping[str, StreamSpec], b: int) -> Streams:
        times = self._times(streams, specs, b)
        parts = [(i, name) for i in range(len(self.switched)) for name in self.span(i)]
        # Of tokens at one time, those of the open span come first, as in ``plan``.
        spans: list[tuple[int, float]] = []
        place, current = dict.fromkeys(times, 0), -1
        while waiting := [(i, name) for i, name in parts if place[name] < len(times[name])]:
            i, name = min(waiting, key=lambda part: (times[part[1]][place[part[1]]], part[0] != current))
            if i != current:
                spans.append((i, times[name][place[name]]))
                current = i
            place[name] += 1
        marker = TokenSequence(
            torch.tensor([i for i, _ in spans], dtype=torch.long).reshape(1, 1, -1),
            torch.tensor([len(spans)]),
            times=torch.tensor([x for _, x in spans], dtype=torch.float64).reshape(1, -1),
        )
        out = {self.marker: marker}
        for name, at in times.items():
            out[name] = replace(streams[name].row(b), times=torch.tensor(at, dtype=torch.float64).reshape(1, -1))
        return out

    def _times(self, streams: Streams, specs: Mapping[str, StreamSpec], b: int) -> dict[str, list[float]]:
        """When the tokens of each stream begin."""
        lengths = {s: int(streams[s].lengths[b]) for s in self.streams if s != self.marker}
        out = {}
        for name, n in lengths.items():
            times = times_of(streams[name], specs[name], b)
            at = [x for t in range(n) if (x := times.at(t)) is not None]
            if len(at) < n < sum(lengths.values()):
                raise LayoutError(
                    f"Stream {name!r} has no times, so Switch cannot tell its spans. Give TokenSequence.times."
                )
            # Alone, its tokens come one after another, whenever that may be.
            out[name] = at if len(at) == n else [float(t) for t in range(n)]
        return out

    def plan(self, extent: Extent) -> Iterator[Step]:
        _single(extent, self.streams[1:], "Switch")
        t = dict.fromkeys(self.streams[1:], 0)
        mark = Cell(self.marker, 0, 0)
        if not extent.reaches(self.marker, 0):
            return
        yield (mark,)
        while (which := extent.value(self.marker, mark.t)) < len(self.switched):
            own, mark = self.span(which), mark._replace(t=mark.t + 1)
            opened = False
            while True:
                here = tuple(Cell(s, 0, t[s]) for s in own if extent.reaches(s, t[s]))
                # A span holds at least one token; from then on, either it goes on or the next marker comes.
                turns = opened and extent.reaches(self.marker, mark.t)
                if not here and not turns:
                    # Only in generation: what the model wants to go on with may not.
                    return
                chosen = yield from _next(extent, here + (mark,) * turns)
                if chosen == mark:
                    break
                t[chosen.stream] += 1
                opened = True


def _next(extent: Extent, candidates: tuple[Cell, ...]) -> Generator[Step, None, Cell]:
    """Yield the step of whichever candidate comes next, and return that cell."""
    chosen = extent.pick(candidates)
    if chosen is not None:
        yield (chosen,)
        return chosen
    yield (Choice(candidates),)
    chosen = extent.pick(candidates)
    assert chosen is not None, "a choice was not recorded"
    return chosen


def _single(extent: Extent, streams: tuple[str, ...], name: str) -> None:
    for stream in streams:
        if extent.num_codebooks(stream) > 1:
            raise LayoutError(
                f"{name} orders single tokens, but stream {stream!r} has {extent.num_codebooks(stream)} codebooks. "
                "Use Parallel or Chunks for it."
            )
