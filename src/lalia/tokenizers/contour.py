"""Contours: one number per frame that rises and falls with the voice, relative to a level, continuous or in bins."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.errors import ConfigError, DataError, LayoutError
from lalia.streaming import State
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import identity_of
from lalia.tokenizers.held import Held
from lalia.tokenizers.runs import pool_by_runs

__all__ = ["Contour", "ContourState", "quantiles"]


@dataclass
class ContourState(State):
    """Where the analysis stands, the frames that wait, and the last value [B] before them (NaN: none)."""

    source: State
    held: Held
    last: Tensor


class Contour(Configurable, nn.Module, ABC):
    """The base of what follows one property of a voice.

    A subclass measures: ``measure`` gives each frame's value and whether it has one.

    :param frame_rate: in Hz.
    :param clusters: bins that hold equally many frames of what ``fit`` heard; features when None.
    :param normalize: subtract a level. That of the speaker is given to ``encode``; where it is not, and with
        "utterance", it is the mean of the recording, for which a stream must wait.
    :param interpolate: draw straight lines through frames without a value, and level ones to both ends. A stream waits
        for the next value.
    :param sample_rate: of the sound that is analysed, in Hz.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        frame_rate: float = 50.0
        clusters: int | None = None
        normalize: Literal["speaker", "utterance"] | None = None
        interpolate: bool = True
        sample_rate: int = 16000

        def __post_init__(self) -> None:
            if self.clusters is not None and self.clusters < 2:
                raise ConfigError(f"{self.owner.__name__} has {self.clusters} bins. Give at least 2, or None.")
            if self.frame_rate <= 0 or self.sample_rate % self.frame_rate:
                raise ConfigError(
                    f"Frames at {self.frame_rate:g} Hz are no whole number of samples at {self.sample_rate} Hz. "
                    "Choose another frame_rate or sample_rate."
                )

        @property
        def dim(self) -> int:
            """Values per frame."""
            return 1

        @property
        def hop(self) -> int:
            """Samples per frame."""
            return int(self.sample_rate / self.frame_rate)

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            kind = Continuous(self.dim) if self.clusters is None else Discrete(self.clusters)
            return StreamSpec(kind=kind, frame_rate=self.frame_rate)

    edges: Tensor
    centres: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec, self.sample_rate = config.spec, config.sample_rate
        self.fitted = config.clusters is None
        if config.clusters is not None:
            count = self._num_bins
            # Even, not empty: what was never fitted still gives codes (for tests and tiny models).
            self.register_buffer("edges", torch.linspace(-1, 1, count + 1)[1:-1])
            self.register_buffer("centres", torch.linspace(-1, 1, count))

    # -- what a subclass does -----------------------------------------------------------------------

    @abstractmethod
    def init_source(self, batch_size: int) -> State:
        """The state of ``measure``."""

    @abstractmethod
    def measure(self, audio: Audio, state: State | None, *, final: bool) -> list[Tensor]:
        """For each row the new frames [t, 2]: the value, and 1 where there is one (0 elsewhere)."""

    def pooled(self, tokens: TokenSequence, units: TokenSequence) -> TokenSequence:
        """One value for each run of units: the mean over its frames, in the same bins where there are some."""
        if not tokens.discrete:
            return pool_by_runs(tokens, units)
        mean = pool_by_runs(replace(tokens, values=self.centres[tokens.values[:, 0]][..., None]), units)
        codes = torch.bucketize(mean.values[..., 0].contiguous(), self.edges)
        return TokenSequence(codes[:, None], mean.lengths)

    # -- what was learned ---------------------------------------------------------------------------

    @property
    def by_speaker(self) -> bool:
        """Whether values are relative to the speaker's level."""
        return self.config.normalize == "speaker"

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and the bins."""
        return identity_of(self.config, self.weights())

    def weights(self) -> dict[str, Tensor]:
        """The bins: their inner ``edges``, and their ``centres``. Nothing where there are none, or none fitted."""
        return self._bins if self.fitted else {}

    @property
    def _bins(self) -> dict[str, Tensor]:
        return {} if self.config.clusters is None else {"edges": self.edges, "centres": self.centres}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``.

        :raises ConfigError: they are of another tokenizer; nothing is changed then.
        """
        own, name = self._bins, type(self).__name__
        for key in sorted(own.keys() | tensors.keys()):
            if key not in own or key not in tensors or own[key].shape != tensors[key].shape:
                raise ConfigError(f"The weights are not those of this {name}: {key!r} differs. Give those it saved.")
        for key, buffer in own.items():
            buffer.copy_(tensors[key])
        self.fitted = True
        self.__dict__.pop("identity", None)

    @torch.no_grad()
    def fit(self, recordings: Iterable[Audio], *, speakers: Iterable[Hashable] | None = None) -> None:
        """Fit the bins on a corpus, of which one number per frame is kept in memory.

        :param recordings: audio, read once.
        :param speakers: who speaks in each row of each recording, in order, read after these; with
            ``normalize="speaker"`` the level of each is that of all that he says. Otherwise every recording counts as
            of its own speaker.
        :raises DataError: there is too little with a value, or there are fewer speakers than rows.
        """
        if self.config.clusters is None:
            return
        found = self._levelled(recordings, speakers)
        values = [value if self.config.interpolate else value[there > 0] for value, there in found]
        self.edges.copy_(quantiles(torch.cat([torch.zeros(0), *values]), self._num_bins, self.centres))
        self.fitted = True
        self.__dict__.pop("identity", None)

    def levelled(self, recordings: Iterable[Audio], speakers: Iterable[Hashable] | None = None) -> list[Tensor]:
        """What ``encode`` makes of the rows of a corpus before it is quantised [T, dim], each relative to its level.

        :param speakers: as for ``fit``.
        """
        return [self._features(*found) for found in self._levelled(recordings, speakers)]

    def _levelled(
        self, recordings: Iterable[Audio], speakers: Iterable[Hashable] | None
    ) -> list[tuple[Tensor, Tensor]]:
        """The values of every row, and where there were any."""
        rows = [row for audio in recordings for row in self.measure(audio, None, final=True)]
        if speakers is None or not self.by_speaker:
            names: list[Hashable] = list(range(len(rows)))
        else:
            names = list(speakers)
            if len(names) != len(rows):
                raise DataError(f"There are {len(rows)} rows and {len(names)} speakers. Name one for each row.")
        grouped: dict[Hashable, list[Tensor]] = {}
        for name, row in zip(names, rows, strict=True):
            grouped.setdefault(name, []).append(row)
        levels = {name: _level(torch.cat(parts)) for name, parts in grouped.items()}
        return [
            self._finish(row, levels[name] if self.config.normalize else 0.0, float("nan"))
            for name, row in zip(names, rows, strict=True)
        ]

    @torch.no_grad()
    def level(self, recordings: Iterable[Audio]) -> float:
        """The mean value of somebody's recordings, as ``encode`` takes it."""
        rows = [row for audio in recordings for row in self.measure(audio, None, final=True)]
        return _level(torch.cat([torch.zeros(0, 2), *rows]))

    # -- encoding -----------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> ContourState:
        """An empty stream for each row."""
        return ContourState(
            self.init_source(batch_size), Held.empty(batch_size, 2), torch.full((batch_size,), float("nan"))
        )

    @torch.no_grad()
    def encode(
        self,
        audio: Audio,
        state: ContourState | None = None,
        *,
        final: bool = False,
        level: float | Tensor | None = None,
    ) -> TokenSequence:
        """
        :param audio: [B, C, N]; channels are averaged.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows.
        :param level: of the speaker, one for all rows or [B] (see ``level``), NaN where it is not known; the same for
            all pieces of a stream.
        :returns: features [B, T, 1], or codes [B, 1, T].
        """
        final = state is None or final
        measured = self.measure(audio, state.source if state else None, final=final)
        rows = []
        for b, new in enumerate(measured):
            frames, last = new, float("nan")
            if state is not None:
                frames, last = state.held.join(b, new), float(state.last[b])
            known = None if level is None else float(torch.as_tensor(level).reshape(-1).expand(len(measured))[b])
            known = None if known is None or math.isnan(known) else known
            ready = self._ready(frames, known is not None, final)
            if state is not None:
                values = frames[:ready][frames[:ready, 1] > 0]
                state.held.rows[b] = frames[ready:].clone()
                state.last[b] = float("nan") if final else values[-1, 0] if len(values) else last
            rows.append(self._row(frames[:ready], known, last))
        return pad_batch(rows)

    def _ready(self, frames: Tensor, levelled: bool, final: bool) -> int:
        """How many frames no later one can change."""
        if final:
            return len(frames)
        if self.config.normalize and not levelled:
            return 0
        if not self.config.interpolate:
            return len(frames)
        there = frames[:, 1].nonzero()
        return int(there[-1]) + 1 if len(there) else 0

    def _row(self, frames: Tensor, level: float | None, last: float) -> TokenSequence:
        if self.config.normalize is None or not len(frames):
            level = 0.0
        elif level is None:
            level = _level(frames)
        value, there = self._finish(frames, level, last)
        return self._tokens(value, there)

    def _finish(self, frames: Tensor, level: float, last: float) -> tuple[Tensor, Tensor]:
        """Values [t] relative to a level, with lines through the gaps, and where there was a value [t]."""
        value, there = frames.unbind(-1)
        if self.config.interpolate:
            value, through = _interpolate(value, there > 0, last)
        else:
            through = there > 0
        return torch.where(through, value - level, 0.0), there

    def _tokens(self, value: Tensor, there: Tensor) -> TokenSequence:
        features = TokenSequence(self._features(value, there)[None], torch.tensor([len(value)]))
        return features if self.config.clusters is None else self.quantize(features, there[None] > 0)

    def _features(self, value: Tensor, there: Tensor) -> Tensor:
        """What a frame is made of [t, dim]."""
        return value[:, None]

    # -- bins ---------------------------------------------------------------------------------------

    @property
    def _num_bins(self) -> int:
        """Bins with values: without lines through the gaps, the first code is that of a gap."""
        assert self.config.clusters is not None
        return self.config.clusters - (not self.config.interpolate)

    def quantize(self, features: TokenSequence, there: Tensor | None = None) -> TokenSequence:
        """The bins [B, 1, T] of features [B, T, 1], for example of those averaged over units.

        :param there: where there is a value [B, T]; everywhere when None.
        :raises LayoutError: the tokenizer has no bins.
        """
        if self.config.clusters is None:
            raise LayoutError(f"This {type(self).__name__} has no bins. Set clusters.")
        codes = torch.bucketize(features.values[..., 0].contiguous(), self.edges)
        if not self.config.interpolate:
            codes = codes + 1 if there is None else torch.where(there, codes + 1, 0)
        return TokenSequence(codes[:, None], features.lengths, features.durations)

    def dequantize(self, codes: TokenSequence) -> TokenSequence:
        """The mean [B, T, 1] of each bin; 0 for a gap."""
        if self.config.clusters is None:
            raise LayoutError(f"This {type(self).__name__} has no bins. Set clusters.")
        table = self.centres if self.config.interpolate else torch.cat([self.centres.new_zeros(1), self.centres])
        return TokenSequence(table[codes.values[:, 0]][..., None], codes.lengths, codes.durations)


def quantiles(values: Tensor, bins: int, centres: Tensor | None = None) -> Tensor:
    """The inner edges [bins - 1] of bins with equally many values [N].

    :param centres: receives the mean of each bin [bins].
    :raises DataError: there are fewer different values than bins.
    """
    ordered = values.double().sort().values
    if len(ordered.unique()) < bins:
        raise DataError(f"{len(ordered.unique())} different values cannot fill {bins} bins. Give more speech.")
    places = torch.arange(1, bins, dtype=torch.float64) * len(ordered) / bins
    edges = ordered[places.round().long().clamp(1, len(ordered) - 1) - 1].float()
    if centres is not None:
        code = torch.bucketize(values.float(), edges)
        count = torch.bincount(code, minlength=bins)
        total = torch.zeros(bins, dtype=torch.float64).index_add_(0, code, values.double())
        # A bin between equal edges is empty; it stands for its edge.
        ends = torch.cat([edges, ordered[-1:].float()])
        centres.copy_(torch.where(count > 0, (total / count.clamp(min=1)).float(), ends))
    return edges


def _level(frames: Tensor) -> float:
    """The mean of the values there are; 0 where there is none."""
    value, there = frames.double().unbind(-1)
    return float((value * there).sum() / there.sum().clamp(min=1))


def _interpolate(value: Tensor, there: Tensor, last: float) -> tuple[Tensor, Tensor]:
    """Straight lines [t] between the values there are, level before the first and after the last.

    :param last: the value of the frame before the first; NaN where there is none.
    :returns: also where there is a line: nowhere, without any value.
    """
    known = last == last  # noqa: PLR0124  NaN is not equal to itself
    value = torch.cat([value.new_tensor([last if known else 0.0]), value])
    there = torch.cat([there.new_tensor([known]), there])
    place = torch.arange(len(value))
    before = torch.where(there, place, -1).cummax(0).values
    after = torch.where(there, place, len(value)).flip(0).cummin(0).values.flip(0)
    left, right = value[before.clamp(min=0)], value[after.clamp(max=len(value) - 1)]
    left, right = torch.where(before < 0, right, left), torch.where(after >= len(value), left, right)
    share = (place - before) / (after - before).clamp(min=1)
    drawn = torch.where(there, value, left + (right - left) * share)
    return drawn[1:], ((before >= 0) | (after < len(value)))[1:]
