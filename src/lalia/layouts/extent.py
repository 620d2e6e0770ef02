"""The two extents: streams that are all there, and streams that are being generated."""

from collections.abc import Mapping

import numpy as np

from lalia.errors import LayoutError
from lalia.layouts.cells import Cell
from lalia.streams import Discrete, StreamSpec, TokenSequence

__all__ = ["GrowingExtent", "KnownExtent", "starts"]


def starts(tokens: TokenSequence, spec: StreamSpec, b: int) -> np.ndarray | None:
    """Start time of each token of row ``b`` in seconds [T], or None where the stream has no clock."""
    n = int(tokens.lengths[b])
    if tokens.times is not None:
        return tokens.times[b, :n].double().numpy()
    if spec.frame_rate is None:
        return None
    if spec.deduplicated:
        if tokens.durations is None:
            return None
        frames = tokens.durations[b, :n].double().numpy()
        return (np.cumsum(frames) - frames) / spec.frame_rate
    return np.arange(n) / spec.frame_rate


class KnownExtent:
    """The extent of one row whose streams are all there (training, scoring)."""

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        ending: frozenset[str],
        lengths: Mapping[str, int],
        times: Mapping[str, np.ndarray | None],
        codes: Mapping[str, np.ndarray],
    ) -> None:
        self._specs, self._ending, self._lengths, self._times, self._codes = specs, ending, lengths, times, codes

    def num_codebooks(self, stream: str) -> int:
        kind = self._specs[stream].kind
        return kind.num_codebooks if isinstance(kind, Discrete) else 1

    def reaches(self, stream: str, t: int, codebook: int = 0) -> bool:
        return t < self._lengths[stream] + (codebook == 0 and stream in self._ending)

    def pick(self, candidates: tuple[Cell, ...]) -> Cell | None:
        # A stable minimum: of cells at the same time, the earlier candidate comes first.
        return min(candidates, key=self._time, default=None)

    def value(self, stream: str, t: int) -> int:
        if t < self._lengths[stream]:
            return int(self._codes[stream][t])
        kind = self._specs[stream].kind
        assert isinstance(kind, Discrete)
        return kind.end_id

    def _time(self, cell: Cell) -> float:
        times = self._times[cell.stream]
        if times is None:
            raise LayoutError(
                f"Stream {cell.stream!r} has no times, so it cannot be ordered among others. "
                "Give TokenSequence.times, or durations and a frame rate."
            )
        return float(times[cell.t]) if cell.t < len(times) else float("inf")


class GrowingExtent:
    """The extent of one row in generation: a known start, then what the model made.

    :param known: for each stream its known codes [n] of codebook 0 (or n alone for features).
    :param complete: streams of which nothing more may come.
    :param limits: most tokens of a stream; it counts as ended there, without an end token.
    """

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        ending: frozenset[str],
        known: Mapping[str, int],
        complete: frozenset[str],
        limits: Mapping[str, int],
        times: Mapping[str, np.ndarray | None],
        codes: Mapping[str, np.ndarray],
    ) -> None:
        self._specs, self._ending = specs, ending
        self._known, self._times = dict(known), times
        self._lengths: dict[str, int | None] = {s: known.get(s, 0) if s in complete else None for s in specs}
        self._limits = dict(limits)
        self._codes: dict[str, dict[int, int]] = {s: dict(enumerate(c.tolist())) for s, c in codes.items()}
        self._picked: Cell | None = None

    def num_codebooks(self, stream: str) -> int:
        kind = self._specs[stream].kind
        return kind.num_codebooks if isinstance(kind, Discrete) else 1

    def reaches(self, stream: str, t: int, codebook: int = 0) -> bool:
        length = self._lengths[stream]
        if length is None:
            limit = self._limits.get(stream)
            return limit is None or t < limit
        return t < length + (codebook == 0 and stream in self._ending)

    def pick(self, candidates: tuple[Cell, ...]) -> Cell | None:
        if self._picked in candidates:
            chosen, self._picked = self._picked, None
            return chosen
        if len(candidates) == 1:
            return candidates[0]
        times = [self._time(c) for c in candidates]
        if all(t is not None for t in times):
            return min(zip(times, range(len(candidates)), candidates, strict=True))[2]
        known = [(t, i, c) for i, (t, c) in enumerate(zip(times, candidates, strict=True)) if self.is_known(c)]
        if known:
            return min(known, key=lambda x: (float("-inf") if x[0] is None else x[0], x[1]))[2]
        return None

    def value(self, stream: str, t: int) -> int:
        return self._codes[stream][t]

    def is_known(self, cell: Cell) -> bool:
        """Whether the cell was given rather than generated; the end of a complete stream is given too."""
        return cell.t < self._known.get(cell.stream, 0) or cell.t == self._lengths[cell.stream]

    def end(self, stream: str, length: int) -> None:
        """From now on the stream has ``length`` tokens."""
        self._lengths[stream] = length

    def record(self, cell: Cell, value: int | None) -> None:
        """This cell has been laid; what follows may depend on it."""
        self._picked = cell
        if value is not None and cell.codebook == 0:
            self._codes.setdefault(cell.stream, {})[cell.t] = value

    def _time(self, cell: Cell) -> float | None:
        spec = self._specs[cell.stream]
        times = self._times.get(cell.stream)
        if times is not None and cell.t < len(times):
            return float(times[cell.t])
        if cell.t == self._lengths[cell.stream]:
            return float("inf")
        if spec.clocked:
            assert spec.frame_rate is not None
            return cell.t / spec.frame_rate
        return None
