"""Semantic units: a layer of a speech encoder, quantised by k-means (HuBERT units and their relatives)."""

import copy
import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.encoders import SpeechEncoder, Windows, WindowState
from lalia.errors import ConfigError, DataError, OutputError
from lalia.streaming import State
from lalia.streams import Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import identity_of
from lalia.tokenizers.kmeans import assign, fit_kmeans
from lalia.tokenizers.over_encoder import OverEncoder
from lalia.tokenizers.runs import OpenRun

__all__ = ["SSLUnits", "UnitState"]

_FIT_ROWS = 32768


@dataclass
class UnitState(State):
    """The encoder's state, and the run of each row that is still going."""

    encoder: WindowState
    run: OpenRun


class SSLUnits(Configurable, nn.Module):
    """Codes [B, 1, T] at the encoder's frame rate; with ``deduplicate``, one per run, with durations."""

    @dataclass(frozen=True)
    class Config(OverEncoder, Configurable.Config):
        """
        :param encoder: known weights, a directory or a hub id of a speech encoder.
        :param layer: of the encoder, from 1; the last when not given.
        :param clusters: size of the codebook.
        :param deduplicate: runs of one code become one token that keeps its duration.
        :param pool: frames averaged before quantising (2: 25 Hz).
        :param standardize: scale each feature to unit variance before quantising. A few dimensions of Whisper's
            states are hundreds of times larger than the others and would decide everything.
        """

        encoder: str
        _: KW_ONLY
        clusters: int
        layer: int | None = None
        deduplicate: bool = False
        pool: int = 1
        standardize: bool = False
        windows: Windows = field(default_factory=Windows)
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            if self.clusters < 2:
                raise ConfigError(f"SSLUnits has {self.clusters} clusters. Give at least 2.")
            if self.pool < 1:
                raise ConfigError(f"SSLUnits averages {self.pool} frames. Give pool at least 1.")

        def tiny(self) -> "SSLUnits.Config":
            """A random encoder of HuBERT's shape: its units are the same each time, but mean nothing."""
            return replace(
                self,
                clusters=min(self.clusters, 50),
                **self.tiny_encoder,
            )

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            return StreamSpec(
                kind=Discrete(self.clusters), frame_rate=self.encoder_config.frame_rate, deduplicated=self.deduplicate
            )

    mean: Tensor
    scale: Tensor
    centroids: Tensor

    def __init__(self, config: Config, encoder: SpeechEncoder | None = None) -> None:
        """
        :param encoder: one that is built already, so that several quantisers can share it.
        :raises ConfigError: it is another than the configuration says.
        """
        super().__init__()
        self.config = config
        self.spec = config.spec
        self.encoder = config.build_encoder(encoder)
        self.sample_rate = self.encoder.sample_rate
        self.fitted = False
        dim = self.encoder.dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        # Drawn, not empty: a quantiser that was never fitted still gives codes (for tests and tiny models).
        self.register_buffer("centroids", torch.randn(config.clusters, dim, generator=torch.Generator().manual_seed(0)))
        self.requires_grad_(False).eval()

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration, the encoder's weights and the centroids."""
        return identity_of(self.config, self.weights(), encoder=self.encoder.fingerprint)

    def weights(self) -> dict[str, Tensor]:
        """What this tokenizer learned itself; the encoder's weights are fetched, never copied."""
        return self._quantiser if self.fitted else {}

    @property
    def _quantiser(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "scale": self.scale, "centroids": self.centroids}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``.

        :raises ConfigError: they are of another tokenizer; nothing is changed then.
        """
        for name, buffer in self._quantiser.items():
            if name not in tensors or tensors[name].shape != buffer.shape:
                got = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ConfigError(
                    f"The quantiser's {name} should be {tuple(buffer.shape)}, not {got}. It is of another tokenizer."
                )
        for name, buffer in self._quantiser.items():
            buffer.copy_(tensors[name])
        self.fitted = True
        self.__dict__.pop("identity", None)

    @torch.no_grad()
    def fit(
        self,
        recordings: Iterable[Audio],
        *,
        passes: int = 10,
        seed: int = 0,
        report: Callable[[int, float], None] | None = None,
    ) -> None:
        """Fit the quantiser on a corpus.

        The encoder, which costs nearly everything, runs once; its features wait in a temporary file in half
        precision (138 MB per hour of speech at 50 Hz and 384 dimensions) for the passes over them. The same recordings
        in the same order give the same units.

        :param recordings: audio, read once.
        :param passes: most passes of k-means.
        :param report: called after each pass with its number and the mean squared distance.
        :raises DataError: there is too little speech.
        :raises OutputError: the folder for temporary files is full.
        """
        with tempfile.TemporaryFile(buffering=0) as file:
            n, mean, scale = self._store(recordings, file)
            if self.config.standardize:
                self.mean.copy_(mean)
                self.scale.copy_(scale)
            stored = np.memmap(file, np.float16, "r", shape=(n, self.encoder.dim))
            middle, width = self.mean.cpu(), self.scale.cpu()

            def scaled() -> Iterable[Tensor]:
                for start in range(0, n, _FIT_ROWS):
                    part = torch.from_numpy(stored[start : start + _FIT_ROWS].astype(np.float32))
                    yield (part - middle) / width

            self.centroids.copy_(fit_kmeans(scaled, self.config.clusters, passes=passes, seed=seed, report=report))
        self.fitted = True
        self.__dict__.pop("identity", None)

    def _store(self, recordings: Iterable[Audio], file: IO[bytes]) -> tuple[int, Tensor, Tensor]:
        """Write all features [n, D]; n, and the mean and the standard deviation [D] of each."""
        n = 0
        total, square = (torch.zeros(self.encoder.dim, dtype=torch.float64) for _ in range(2))
        for audio in recordings:
            for pieces in self.encoder.pieces(audio, each=_half):
                for x in pieces:
                    _append(file, x)
                    wide = x.double()
                    n, total, square = n + len(x), total + wide.sum(0), square + wide.square().sum(0)
        if n == 0:
            raise DataError("There is nothing to fit units on. Give recordings with speech in them.")
        mean = total / n
        return n, mean.float(), (square / n - mean.square()).clamp(min=1e-10).sqrt().float()

    def with_windows(self, windows: Windows) -> "SSLUnits":
        """The same units, of an encoder that cuts audio in another way: nearly the same codes, with another delay.

        Nothing is copied.
        """
        other = copy.copy(self)
        # Its modules are this one's, but for the encoder.
        other._modules = dict(self._modules)
        other.encoder = self.encoder.with_windows(windows)
        other.config = replace(self.config, windows=windows)
        other.__dict__.pop("identity", None)
        return other

    def init_state(self, batch_size: int) -> UnitState:
        """An empty stream for each row."""
        return UnitState(self.encoder.init_state(batch_size), OpenRun.empty(batch_size))

    def encode(self, audio: Audio, state: UnitState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N]; channels are averaged.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows.
        :returns: codes [B, 1, T]; with ``deduplicate`` also durations [B, T] in frames. A run that may go on is held
            back until it is over.
        """
        pieces = self.encoder.pieces(audio, None if state is None else state.encoder, final=final, each=self._quantize)
        rows = []
        for b, codes in enumerate(pieces):
            row = torch.cat([torch.zeros(0, dtype=torch.long), *codes])
            tokens = TokenSequence(row[None, None], torch.tensor([len(row)]))
            if self.config.deduplicate:
                tokens = tokens.deduplicate() if state is None else state.run.add(row, b, final=final)
            rows.append(tokens)
        return pad_batch(rows)

    def _quantize(self, features: Tensor) -> Tensor:
        """Codes [t] of the features [t, D] of one window: always of one, so that a stream rounds as the whole does."""
        return assign((features - self.mean) / self.scale, self.centroids).cpu()


def _half(features: Tensor) -> Tensor:
    """For keeping: what half precision cannot hold is cut off at its end."""
    return features.clamp(-65504, 65504).half().cpu()


def _append(file: IO[bytes], features: Tensor) -> None:
    data = features.numpy().tobytes()
    try:
        reason = None if file.write(data) == len(data) else os.strerror(errno.ENOSPC)
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise OutputError(
            f"{tempfile.gettempdir()} has no room for features ({reason}). Point TMPDIR to a larger disk."
        )
