"""Continuous streams: mel spectra, and hidden states of speech encoders."""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.encoders import SpeechEncoder, Windows, WindowState
from lalia.errors import ConfigError
from lalia.nn.fir import Field, FirState, init_fir, run_fir
from lalia.nn.spectral import LogMel
from lalia.nn.standard import StandardScale
from lalia.streaming import State
from lalia.streams import Continuous, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import identity_of
from lalia.tokenizers.held import Held
from lalia.tokenizers.over_encoder import OverEncoder
from lalia.tokenizers.widths import width_of

__all__ = ["Features", "FeaturesState", "Mel", "MelState"]


@dataclass
class MelState(State):
    """Samples of each row that make no whole frame yet, and the frames around the next spectrum."""

    samples: Held
    frames: FirState


class Mel(Configurable, nn.Module):
    """Log-mel spectra [B, T, bins] of HiFi-GAN (see ``LogMel``), T = ceil(N / hop); the end is filled with silence.

    A stream waits for the half of a window that reaches past a frame.

    :param bins: mel bands from ``fmin`` to ``fmax`` Hz.
    :param sample_rate: of the sound that is analysed, in Hz.
    :param n_fft: window length in samples.
    :param hop: samples per frame.
    :param normalize: give each band in standard scores over what ``fit`` heard (before that, and without, as it is):
        what learns to make frames from noise needs them on the scale of noise. A ``MelVocoder`` is given the scale.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        bins: int = 80
        _: KW_ONLY
        sample_rate: int = 16000
        n_fft: int = 1024
        hop: int = 256
        fmin: float = 0.0
        fmax: float | None = None
        normalize: bool = False

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            return StreamSpec(kind=Continuous(self.bins), frame_rate=self.sample_rate / self.hop)

        @property
        def mel(self) -> LogMel.Config:
            """What computes a spectrum."""
            return LogMel.Config(
                self.sample_rate, n_fft=self.n_fft, hop=self.hop, bins=self.bins, fmin=self.fmin, fmax=self.fmax
            )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec, self.sample_rate = config.spec, config.sample_rate
        self.mel: LogMel = config.mel.build()
        self.standard = StandardScale()
        reach = -(-(config.n_fft - config.hop) // 2 // config.hop)
        self.field = Field(reach, reach, 1)

    @property
    def fitted(self) -> bool:
        """Whether it has heard what its scale is taken from, or needs none."""
        return not self.config.normalize or self.standard.mean is not None

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and the scale."""
        return identity_of(self.config, self.weights())

    def weights(self) -> dict[str, Tensor]:
        """The ``mean`` and ``scale`` of each band; nothing where it is not normalised, or not fitted."""
        return self.standard.weights()

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``.

        :raises ConfigError: they are of another tokenizer; nothing is changed then.
        """
        wanted = {"mean", "scale"} if self.config.normalize else set()
        if tensors.keys() != wanted or any(t.shape != (self.config.bins,) for t in tensors.values()):
            raise ConfigError(
                f"Mel with normalize={self.config.normalize} got the weights {sorted(tensors) or 'of nothing'}, not "
                f"those of {self.config.bins} bands. They are of another tokenizer."
            )
        self.standard.adopt({n: t.to(self.mel.window.device) for n, t in tensors.items()})
        self.__dict__.pop("identity", None)

    @torch.no_grad()
    def fit(self, recordings: Iterable[Audio]) -> None:
        """Measure the mean and the standard deviation of each band in a corpus, which is read once.

        :raises DataError: there is too little.
        """
        if not self.config.normalize:
            return
        plain: Mel = replace(self.config, normalize=False).build()
        encoded = (plain.encode(audio) for audio in recordings)
        self.standard.fit(tokens.row(b).values[0] for tokens in encoded for b in range(len(tokens)))
        self.standard.to(self.mel.window.device)
        self.__dict__.pop("identity", None)

    def forward(self, samples: Tensor) -> Tensor:
        """[..., N] -> [..., N // hop, bins]."""
        spectra: Tensor = self.standard(self.mel(samples).transpose(-1, -2))
        return spectra

    def init_state(self, batch_size: int) -> MelState:
        """An empty stream for each row."""
        like = torch.zeros(1, 1, self.config.hop, device=self.mel.window.device)
        return MelState(Held.empty(batch_size), init_fir(self.field, like, batch_size))

    @torch.no_grad()
    def encode(self, audio: Audio, state: MelState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N]; channels are averaged.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows.
        :returns: [B, T, bins].
        """
        audio, hop, rows = audio.mono(), self.config.hop, []
        final = state is None or final
        if state is None:
            audio = audio.to(self.sample_rate)
        elif audio.sample_rate != self.sample_rate:
            raise ConfigError(
                f"A stream came at {audio.sample_rate} Hz. Resample it to {self.sample_rate} Hz as it comes."
            )
        for b in range(len(audio)):
            samples = audio.row(b).samples[0, 0].to(self.mel.window)
            if state is not None:
                samples = state.samples.join(b, samples)
                whole = len(samples) if final else len(samples) // hop * hop
                state.samples.rows[b], samples = samples[whole:].clone(), samples[:whole]
            samples = F.pad(samples, (0, -len(samples) % hop))
            rows.append(TokenSequence(samples.reshape(1, -1, hop), torch.tensor([len(samples) // hop])))
        frames = pad_batch(rows)
        spectra, lengths = run_fir(
            lambda x, _: self(x.flatten(1)),
            self.field,
            frames.values,
            frames.lengths.to(frames.values.device),
            state.frames if state else None,
            final=final,
        )
        if not int(lengths.max()):
            spectra = frames.values.new_zeros(len(audio), 0, self.config.bins)
        return TokenSequence(spectra, lengths)


@dataclass
class FeaturesState(State):
    """The encoder's state, and frames of each row that fill no stack yet."""

    encoder: WindowState
    held: Held


class Features(Configurable, nn.Module):
    """Hidden states of a speech encoder [B, T, stack * D], ``stack`` consecutive frames side by side.

    LLaMA-Omni (arXiv:2409.06666 §2.2) stacks 5 of Whisper's frames: 10 Hz. The last stack is filled with zeros. Nothing
    of the encoder is trained.

    :param encoder: known weights, a directory or a hub id of a speech encoder.
    :param layer: of the encoder, from 1; the last when not given.
    :param stack: frames put side by side.
    :param pool: frames averaged before that.
    :param dim: width of one frame, where neither the encoder's name nor its architecture tells it.
    :param at_least: in seconds; of a shorter recording the silence behind it is heard too, as by Whisper (30 s).
    """

    @dataclass(frozen=True)
    class Config(OverEncoder, Configurable.Config):
        encoder: str
        _: KW_ONLY
        layer: int | None = None
        stack: int = 1
        pool: int = 1
        dim: int | None = None
        at_least: float = 0.0
        windows: Windows = field(default_factory=Windows)
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            if self.stack < 1 or self.pool < 1:
                raise ConfigError(
                    f"Features stacks {self.stack} frames of {self.pool} averaged. Give at least 1 of each."
                )

        def tiny(self) -> "Features.Config":
            """A random encoder of HuBERT's shape: its features are the same each time, but mean nothing."""
            return replace(self, dim=None, **self.tiny_encoder)

        @property
        def width(self) -> int:
            """Of one frame of the encoder.

            :raises ConfigError: it is not known.
            """
            return self.dim or width_of(self.encoder, self.architecture)

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            return StreamSpec(
                kind=Continuous(self.width * self.stack), frame_rate=self.encoder_config.frame_rate / self.stack
            )

    def __init__(self, config: Config, encoder: SpeechEncoder | None = None) -> None:
        """
        :param encoder: one that is built already, so that several tokenizers can share it.
        :raises ConfigError: it is another than the configuration says, or has features of another width.
        """
        super().__init__()
        self.config = config
        self.encoder = config.build_encoder(encoder)
        if self.encoder.dim != config.width:
            raise ConfigError(
                f"{config.encoder!r} has features of {self.encoder.dim} values, not {config.width}. "
                f"Set dim to {self.encoder.dim}."
            )
        self.spec, self.sample_rate = config.spec, self.encoder.sample_rate

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and the encoder's weights."""
        return identity_of(self.config, {}, encoder=self.encoder.fingerprint)

    def init_state(self, batch_size: int) -> FeaturesState:
        """An empty stream for each row."""
        return FeaturesState(self.encoder.init_state(batch_size), Held.empty(batch_size, self.config.width))

    @torch.no_grad()
    def encode(self, audio: Audio, state: FeaturesState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N]; channels are averaged.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows.
        :returns: [B, T, stack * D], T = ceil(N / 320 / pool / stack).
        """
        if self.config.at_least and (state is None or final):
            audio = self._filled(audio, state)
        features = self.encoder.encode(audio, state.encoder if state else None, final=final)
        rows = []
        for b in range(len(features)):
            frames = features.row(b).values[0]
            if state is not None:
                frames = state.held.join(b, frames)
                whole = len(frames) if final else len(frames) // self.config.stack * self.config.stack
                state.held.rows[b], frames = frames[whole:].clone(), frames[:whole]
            frames = F.pad(frames, (0, 0, 0, -len(frames) % self.config.stack))
            stacked = frames.reshape(-1, self.config.stack * frames.shape[1])
            rows.append(TokenSequence(stacked[None], torch.tensor([len(stacked)])))
        return pad_batch(rows)

    def _filled(self, audio: Audio, state: FeaturesState | None) -> Audio:
        """The last of a recording with the silence that makes it long enough."""
        audio = audio.mono() if state is not None else audio.mono().to(self.sample_rate)
        needed = round(self.config.at_least * self.sample_rate)
        before = [0] * len(audio)
        if state is not None:
            before = [o + len(s) for o, s in zip(state.encoder.origin, state.encoder.samples, strict=True)]
        lengths = (needed - torch.tensor(before)).to(audio.lengths).maximum(audio.lengths)
        said = torch.arange(audio.samples.shape[2], device=audio.samples.device) < audio.lengths[:, None, None]
        more = max(int(lengths.max()) - audio.samples.shape[2], 0)
        return Audio(F.pad(audio.samples * said, (0, more)), audio.sample_rate, lengths)
