"""The two extents: streams that are all there, and streams that are being generated."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from lalia.errors import LayoutError
from lalia.layouts.cells import Cell
from lalia.streams import StreamSpec, TokenSequence

__all__ = ["GrowingExtent", "KnownExtent", "Times", "times_of"]


@dataclass(frozen=True)
class Times:
    """When the tokens of one row of a stream begin.

    :param starts: seconds, of the tokens that there are; None where they are not known.
    :param rate: frames per second of a clock that gives the time of every token there may ever be.
    """

    starts: np.ndarray | None = None
    rate: float | None = None

    def at(self, t: int) -> float | None:
        """The start of token ``t`` in seconds, where it can be known."""
        if self.rate is not None:
            return t / self.rate
        return float(self.starts[t]) if self.starts is not None and t < len(self.starts) else None


def times_of(tokens: TokenSequence | None, spec: StreamSpec, b: int = 0) -> Times:
    """The times of row ``b``: those that are given, or else those of the stream's clock."""
    if tokens is not None and tokens.times is not None:
        return Times(tokens.times[b, : int(tokens.lengths[b])].cpu().double().numpy())
    if spec.clocked:
        return Times(rate=spec.frame_rate)
    if tokens is not None and spec.deduplicated and spec.frame_rate is not None and tokens.durations is not None:
        frames = tokens.durations[b, : int(tokens.lengths[b])].cpu().double().numpy()
        return Times((np.cumsum(frames) - frames) / spec.frame_rate)
    return Times()


class _Extent:
    """What both kinds know: the streams of one row, and when their tokens begin."""

    def __init__(
        self, num_codebooks: Mapping[str, int], ending: AbstractSet[str], times: Mapping[str, Times] | None
    ) -> None:
        self._num_codebooks, self._ending, self._times = num_codebooks, ending, times or {}

    def num_codebooks(self, stream: str) -> int:
        return self._num_codebooks[stream]

    def _time(self, cell: Cell, length: int | None) -> float | None:
        """When a cell happens. An end that no clock times happens after everything."""
        known = self._times.get(cell.stream, Times()).at(cell.t)
        return float("inf") if known is None and cell.t == length else known


class KnownExtent(_Extent):
    """The extent of one row whose streams are all there (training, scoring).

    :param num_codebooks: K of each stream; 1 for features.
    :param ending: streams that close with an end cell.
    :param lengths: tokens of each stream.
    :param times: of each stream; needed only by layouts that order by time.
    :param codes: of codebook 0, with the end, of the streams at whose values the layout looks.
    """

    def __init__(
        self,
        num_codebooks: Mapping[str, int],
        ending: AbstractSet[str],
        lengths: Mapping[str, int],
        times: Mapping[str, Times] | None = None,
        codes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(num_codebooks, ending, times)
        self._lengths, self._codes = lengths, codes or {}

    def reaches(self, stream: str, t: int, codebook: int = 0) -> bool:
        length = self._lengths[stream]
        return t < length or (t == length and codebook == 0 and stream in self._ending)

    def pick(self, candidates: tuple[Cell, ...]) -> Cell | None:
        if len(candidates) == 1:
            return candidates[0]
        # A stable minimum: of cells at the same time, the earlier candidate comes first.
        return min(candidates, key=self._certain_time)

    def value(self, stream: str, t: int) -> int:
        return self._codes[stream][t]

    def _certain_time(self, cell: Cell) -> float:
        time = self._time(cell, self._lengths[cell.stream])
        if time is None:
            raise LayoutError(
                f"Stream {cell.stream!r} has no times, so it cannot be ordered among others. "
                "Give TokenSequence.times, or durations and a frame rate."
            )
        return time


class GrowingExtent(_Extent):
    """The extent of one row in generation: a known start, then what the model made.

    :param num_codebooks: K of each stream; 1 for features.
    :param ending: streams that close with an end cell.
    :param known: known tokens of each stream.
    :param complete: streams of which nothing more may come.
    :param limits: most tokens of a stream; it counts as ended there, without an end token. What is known is
        laid even past it.
    :param times: of the known tokens.
    :param codes: known codes of codebook 0 of the streams at whose values the layout looks, and of no others.
    """

    def __init__(
        self,
        num_codebooks: Mapping[str, int],
        ending: AbstractSet[str],
        *,
        known: Mapping[str, int],
        complete: AbstractSet[str],
        limits: Mapping[str, int],
        times: Mapping[str, Times],
        codes: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__(num_codebooks, ending, times)
        self._known = {s: known.get(s, 0) for s in num_codebooks}
        self._lengths: dict[str, int | None] = {s: self._known[s] if s in complete else None for s in num_codebooks}
        self._limits = {s: max(n, self._known[s]) for s, n in limits.items()}
        self._codes: dict[str, dict[int, int]] = {s: dict(enumerate(c)) for s, c in codes.items()}
        self._picked: Cell | None = None

    def reaches(self, stream: str, t: int, codebook: int = 0) -> bool:
        length = self._lengths[stream]
        if length is None:
            limit = self._limits.get(stream)
            return limit is None or t < limit
        return t < length or (t == length and codebook == 0 and stream in self._ending)

    def pick(self, candidates: tuple[Cell, ...]) -> Cell | None:
        if self._picked in candidates:
            chosen, self._picked = self._picked, None
            return chosen
        if len(candidates) == 1:
            return candidates[0]
        times = [self._time(c, self._lengths[c.stream]) for c in candidates]
        timed = [(t, i) for i, t in enumerate(times) if t is not None]
        if len(timed) == len(candidates):
            return candidates[min(timed)[1]]
        # Something here waits for the model. What is known was said before that.
        known = [i for i, c in enumerate(candidates) if self.is_known(c)]
        if not known:
            return None
        return candidates[min(known, key=lambda i: (float("-inf") if (t := times[i]) is None else t, i))]

    def value(self, stream: str, t: int) -> int:
        return self._codes[stream][t]

    def is_known(self, cell: Cell) -> bool:
        """Whether the cell was given rather than generated; the end of a complete stream is given too."""
        return cell.t < self._known[cell.stream] or cell.t == self._lengths[cell.stream]

    def extend(self, stream: str, tokens: int) -> None:
        """So many more tokens of the stream are known."""
        self._known[stream] += tokens

    def end(self, stream: str, length: int) -> None:
        """From now on the stream has ``length`` tokens."""
        self._lengths[stream] = length

    def record(self, cell: Cell, value: int | None) -> None:
        """This cell has been laid; what follows may depend on it."""
        self._picked = cell
        if value is not None and cell.codebook == 0 and cell.stream in self._codes:
            self._codes[cell.stream][cell.t] = value
