"""The layouts whose order depends on how many tokens there are. Each is its ``plan``; all else is derived."""

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field

from lalia.errors import LayoutError
from lalia.layouts.cells import Cell, Extent, Step
from lalia.layouts.layout import Layout
from lalia.streams import Discrete, Streams, StreamSpec

__all__ = ["Chunks", "Concat", "Flat", "Parallel"]


@dataclass(frozen=True)
class Flat(Layout):
    """One stream, one code a step; the codebooks of a frame follow one another (AudioLM, arXiv:2209.03143)::

        units  0 1 2 3 E

    :param closed: whether the stream ends by a token, rather than with the session.
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
    :param closed: whether streams end by a token, rather than with the session. The token is in codebook 0,
        so that no other codebook of its stream may be ahead of it.
    :param together: streams that end where another does, which must be ahead of them: ``{"mel": "state"}``.
    """

    parallel: tuple[str, ...]
    _: KW_ONLY
    delays: tuple[int, ...] = ()
    closed: bool = True
    together: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(d < 0 for d in self.delays):
            raise LayoutError(f"Parallel has delays {self.delays}. Give none below 0.")
        for stream, other in self.together.items():
            if stream not in self.parallel or other not in self.parallel or not self.closed:
                raise LayoutError(
                    f"Parallel ends {stream!r} together with {other!r}, but has {', '.join(self.parallel)}"
                    f"{'' if self.closed else ', which do not end'}. Name two of its streams that end."
                )

    @property
    def streams(self) -> tuple[str, ...]:
        return self.parallel

    @property
    def ending(self) -> frozenset[str]:
        return frozenset(self.streams if self.closed else ())

    @property
    def ends_with(self) -> Mapping[str, str]:
        return self.together

    def plan(self, extent: Extent) -> Iterator[Step]:
        columns = [(s, k) for s in self.parallel for k in range(extent.num_codebooks(s))]
        delays = self._delays(columns)
        last = max(delays)
        step = 0
        while True:
            slots: Step = tuple(
                Cell(s, k, step - d) if step >= d and extent.reaches(s, step - d, k) else None
                for (s, k), d in zip(columns, delays, strict=True)
            )
            if step >= last and not any(slots):
                return
            yield slots
            step += 1

    def _delays(self, columns: list[tuple[str, int]]) -> tuple[int, ...]:
        delays = self.delays or (0,) * len(columns)
        if len(delays) != len(columns):
            raise LayoutError(
                f"Parallel has {len(delays)} delays for {len(columns)} codebooks of {', '.join(self.parallel)}. "
                "Give one delay for each codebook."
            )
        for (stream, k), d in zip(columns, delays, strict=True):
            first = delays[columns.index((stream, 0))]
            if self.closed and d < first:
                raise LayoutError(
                    f"Parallel delays codebook {k} of {stream!r} by {d}, and codebook 0, which ends the stream, by "
                    f"{first}. Delay codebook 0 least, or set closed=False."
                )
            if stream in self.together and d <= delays[columns.index((self.together[stream], 0))]:
                raise LayoutError(
                    f"Parallel ends {stream!r} together with {self.together[stream]!r}, which is not ahead of it. "
                    f"Delay {stream!r} more."
                )
        return delays


@dataclass(frozen=True)
class Chunks(Layout):
    """Streams by turns in chunks of fixed size; when one ends, the others go on (GLM-4-Voice)::

        text    0 1 . . . . 2 E . . . .
        speech  . . 0 1 2 3 . . 4 5 6 E

    The codebooks of a frame share a step. An end counts as a cell of its chunk.

    :param sizes: steps of each stream's chunk, in the order of the turns.
    """

    sizes: Mapping[str, int]
    _: KW_ONLY
    closed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(n < 1 for n in self.sizes.values()):
            raise LayoutError(f"Chunks has sizes {dict(self.sizes)}. Give each stream a size of at least 1.")

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
                    yield _frame(stream, t[stream], extent)
                    t[stream] += 1


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
        return tuple(s for p in self.parts for s in p.streams)

    @property
    def ending(self) -> frozenset[str]:
        return frozenset().union(*(p.ending for p in self.parts))

    @property
    def ends_with(self) -> Mapping[str, str]:
        return {n: other for p in self.parts for n, other in p.ends_with.items()}

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


def _frame(stream: str, t: int, extent: Extent) -> tuple[Cell, ...]:
    """All codebooks of one frame, for a step of their own."""
    return tuple(Cell(stream, k, t) for k in range(extent.num_codebooks(stream)) if extent.reaches(stream, t, k))
