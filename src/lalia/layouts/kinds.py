"""The six layouts. Each is its ``plan``; everything else is derived."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

import torch

from lalia.errors import LayoutError
from lalia.layouts.cells import Cell, Choice, Extent, Step
from lalia.layouts.extent import starts
from lalia.layouts.layout import Layout, frame
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence, pad_batch

__all__ = ["Chunks", "Concat", "Flat", "Merge", "Parallel", "Switch"]


@dataclass(frozen=True)
class Flat(Layout):
    """One stream, one code a step; the codebooks of a frame follow one another (AudioLM, arXiv:2209.03143)::

    units  0 1 2 3 E
    """

    stream: str
    _: KW_ONLY
    closed: bool = True

    @property
    def streams(self) -> tuple[str, ...]:
        return (self.stream,)

    @property
    def ending(self) -> frozenset[str]:
        return frozenset(self.streams if self.closed else ())

    def plan(self, extent: Extent) -> Iterator[Step]:
        t = 0
        while extent.reaches(self.stream, t):
            for k in range(extent.num_codebooks(self.stream)):
                # Asked again for each codebook: in generation the stream may have ended just now.
                if extent.reaches(self.stream, t, k):
                    yield (Cell(self.stream, k, t),)
            t += 1


@dataclass(frozen=True)
class Parallel(Layout):
    """Streams of one clock side by side, each codebook late by its delay in steps::

        text     0 1 2 3 E
        codes:0  . 0 1 2 3 E
        codes:1  . . 0 1 2 3

    :param delays: one per codebook of all streams in order (MusicGen, Moshi: arXiv:2410.00037 §3.4.4);
        none means 0 everywhere.
    :param closed: whether streams end by a token, rather than with the session.
    """

    parallel: tuple[str, ...]
    _: KW_ONLY
    delays: tuple[int, ...] = ()
    closed: bool = True

    def __post_init__(self) -> None:
        if any(d < 0 for d in self.delays):
            raise LayoutError(f"Parallel has delays {self.delays}. Give none below 0.")

    @property
    def streams(self) -> tuple[str, ...]:
        return self.parallel

    @property
    def ending(self) -> frozenset[str]:
        return frozenset(self.streams if self.closed else ())

    def plan(self, extent: Extent) -> Iterator[Step]:
        columns = [(s, k) for s in self.parallel for k in range(extent.num_codebooks(s))]
        delays = self.delays or (0,) * len(columns)
        if len(delays) != len(columns):
            raise LayoutError(
                f"Parallel has {len(delays)} delays for {len(columns)} codebooks of {', '.join(self.parallel)}. "
                "Give one delay for each codebook."
            )
        step = 0
        while True:
            slots: Step = tuple(
                Cell(s, k, step - d) if step >= d and extent.reaches(s, step - d, k) else None
                for (s, k), d in zip(columns, delays, strict=True)
            )
            if step >= max(delays) and not any(slots):
                return
            yield slots
            step += 1


@dataclass(frozen=True)
class Chunks(Layout):
    """Streams by turns in chunks of fixed size; when one ends, the others go on (GLM-4-Voice)::

        text    0 1 . . . . 2 E . . . .
        speech  . . 0 1 2 3 . . 4 5 6 E

    The codebooks of a frame share a step.
    """

    sizes: Mapping[str, int]
    _: KW_ONLY
    closed: bool = True

    def __post_init__(self) -> None:
        if not self.sizes or any(n < 1 for n in self.sizes.values()):
            raise LayoutError(f"Chunks has sizes {dict(self.sizes)}. Give each stream a size of at least 1.")

    def __hash__(self) -> int:
        return hash((tuple(self.sizes.items()), self.closed))

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.sizes)

    @property
    def ending(self) -> frozenset[str]:
        return frozenset(self.streams if self.closed else ())

    def plan(self, extent: Extent) -> Iterator[Step]:
        t = dict.fromkeys(self.sizes, 0)
        while any(extent.reaches(s, t[s]) for s in self.sizes):
            for stream, size in self.sizes.items():
                stop = t[stream] + size
                while t[stream] < stop and extent.reaches(stream, t[stream]):
                    yield frame(stream, t[stream], extent)
                    t[stream] += 1


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


@dataclass(frozen=True)
class Merge(Layout):
    """Streams in the order in which their tokens happen, in one vocabulary (SpiRit-LM expressive)::

        units  . 0 1 . 2 3
        pitch  0 . . 1 . .

    Tokens of one time keep the order of ``merged``. Where durations are not known before they are
    generated, the model itself chooses whose token comes next.
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

        switch  0 . . 1 . . 0 . E
        speech  . 0 1 . . . . 2 .
        text    . . . . 0 1 . . .

    The spans follow the times of the tokens: give streams whose tokens take turns. The marker stream
    holds which stream opens (its index in ``switched``), and its end closes everything.
    """

    switched: tuple[str, ...]
    _: KW_ONLY
    marker: str = "switch"

    @property
    def streams(self) -> tuple[str, ...]:
        return (self.marker, *self.switched)

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
        if self.marker in streams:
            return streams
        missing = [s for s in self.switched if s not in streams]
        if missing:
            raise LayoutError(
                f"Stream {missing[0]!r} is missing; got {', '.join(streams) or 'none'}. Give every stream."
            )
        rows = [self._mark_row(streams, specs, b) for b in range(len(streams[self.switched[0]]))]
        return {**streams, self.marker: pad_batch(rows)}

    def _mark_row(self, streams: Streams, specs: Mapping[str, StreamSpec], b: int) -> TokenSequence:
        queues: list[deque[float]] = []
        for name in self.switched:
            times = starts(streams[name], specs[name], b)
            if times is None:
                raise LayoutError(
                    f"Stream {name!r} has no times, so Switch cannot tell its spans. Give TokenSequence.times."
                )
            queues.append(deque(times.tolist()))
        spans: list[tuple[int, float]] = []
        current = -1
        while any(queues):
            # Of tokens at one time, those of the open span come first, as in ``plan``.
            i = min((i for i, q in enumerate(queues) if q), key=lambda i: (queues[i][0], i != current, i))
            if i != current:
                spans.append((i, queues[i][0]))
                current = i
            queues[i].popleft()
        return TokenSequence(
            torch.tensor([i for i, _ in spans], dtype=torch.long).reshape(1, 1, -1),
            torch.tensor([len(spans)]),
            times=torch.tensor([x for _, x in spans], dtype=torch.float64).reshape(1, -1),
        )

    def plan(self, extent: Extent) -> Iterator[Step]:
        _single(extent, self.switched, "Switch")
        t = dict.fromkeys(self.switched, 0)
        mark = Cell(self.marker, 0, 0)
        yield (mark,)
        while (which := extent.value(self.marker, mark.t)) < len(self.switched):
            stream, mark = self.switched[which], mark._replace(t=mark.t + 1)
            opened = False
            while True:
                here = Cell(stream, 0, t[stream])
                more = (here,) if extent.reaches(stream, here.t) else ()
                # A span holds at least one token; from then on, either it goes on or the next marker comes.
                chosen = yield from _next(extent, more if more and not opened else (*more, mark))
                if chosen == mark:
                    break
                t[stream] += 1
                opened = True


@dataclass(frozen=True)
class Concat(Layout):
    """Layouts one after another: prompt then answer, chains of modality (SpeechGPT, arXiv:2305.11000)::

    question  0 1 2 E . . . . .
    text      . . . . 0 1 E . .
    units     . . . . . . . 0 1
    """

    parts: tuple[Layout, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s for p in self.parts for s in p.streams))

    @property
    def ending(self) -> frozenset[str]:
        return frozenset().union(*(p.ending for p in self.parts))

    @property
    def markers(self) -> Mapping[str, Discrete]:
        return {n: k for p in self.parts for n, k in p.markers.items()}

    @property
    def timed(self) -> bool:
        return any(p.timed for p in self.parts)

    def mark(self, streams: Streams, specs: Mapping[str, StreamSpec]) -> Streams:
        for part in self.parts:
            streams = part.mark(streams, specs)
        return streams

    def plan(self, extent: Extent) -> Iterator[Step]:
        for part in self.parts:
            yield from part.plan(extent)
