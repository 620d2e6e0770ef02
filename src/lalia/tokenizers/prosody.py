"""Prosody as streams: pitch, energy and style."""

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.encoders import PitchTracker, Windows, WindowState
from lalia.errors import ConfigError
from lalia.streaming import State
from lalia.tokenizers.contour import Contour
from lalia.tokenizers.held import Held
from lalia.tokenizers.ssl_units import SSLUnits

__all__ = ["Energy", "EnergyState", "Pitch", "Style"]

_QUIETEST = 1e-5
"""Of the root mean square: -100 dBFS."""


class Pitch(Contour):
    """F0 as pGSLM has it (arXiv:2109.03264 §2.1): log-F0 less the speaker's mean, and lines through unvoiced stretches.

    Features [B, T, 1], or [B, T, 2] with ``voicing``; with ``clusters``, codes [B, 1, T] of bins that hold equally many
    frames (pGSLM: 32). A recording without a voiced frame is 0 throughout. The tracker is lalia's, not YAAPT.

    :param normalize: as pGSLM's, "speaker"; see ``Contour``.
    :param log: the natural logarithm; otherwise Hz.
    :param voicing: a second feature, 1 where voiced.
    :param fmin: lowest frequency in Hz, ``fmax`` the highest.
    :param windows: how long audio is cut; their block and what comes after are the delay of streaming.
    """

    @dataclass(frozen=True)
    class Config(Contour.Config):
        _: KW_ONLY
        normalize: Literal["speaker", "utterance"] | None = "speaker"
        log: bool = True
        voicing: bool = False
        fmin: float = 50.0
        fmax: float = 550.0
        windows: Windows = field(default_factory=lambda: PitchTracker.Config().windows)

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.voicing and self.clusters is not None:
                raise ConfigError(
                    f"Pitch in {self.clusters} bins has no second feature for voicing. Unset interpolate instead: "
                    "the first bin is then that of unvoiced frames."
                )

        @property
        def dim(self) -> int:
            return 2 if self.voicing else 1

        @property
        def tracker(self) -> PitchTracker.Config:
            """What measures F0."""
            return PitchTracker.Config(
                frame_rate=self.frame_rate,
                sample_rate=self.sample_rate,
                fmin=self.fmin,
                fmax=self.fmax,
                windows=self.windows,
            )

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tracker: PitchTracker = config.tracker.build()

    def init_source(self, batch_size: int) -> WindowState:
        return self.tracker.init_state(batch_size)

    def measure(self, audio: Audio, state: State | None, *, final: bool) -> list[Tensor]:
        assert state is None or isinstance(state, WindowState)
        tracked = self.tracker.encode(audio, state, final=final)
        rows = []
        for b in range(len(tracked)):
            f0 = tracked.row(b).values[0, :, 0].cpu()
            voiced = f0 > 0
            rows.append(torch.stack([f0.clamp(min=1).log() if self.config.log else f0, voiced.to(f0)], dim=-1))
        return rows

    def _features(self, value: Tensor, there: Tensor) -> Tensor:
        return torch.stack([value, there], dim=-1) if self.config.voicing else super()._features(value, there)


@dataclass
class EnergyState(State):
    """Samples of each row that make no whole frame yet."""

    samples: Held


class Energy(Contour):
    """The natural logarithm of each frame's root mean square [B, T, 1], or its bins; -100 dBFS at the least.

    Every frame has a value, and a stream waits for no more than its own samples.
    """

    @dataclass(frozen=True)
    class Config(Contour.Config):
        """All that every contour has."""

    def init_source(self, batch_size: int) -> EnergyState:
        return EnergyState(Held.empty(batch_size))

    def measure(self, audio: Audio, state: State | None, *, final: bool) -> list[Tensor]:
        audio, rows = audio.mono(), []
        if state is None:
            audio = audio.to(self.sample_rate)
        elif audio.sample_rate != self.sample_rate:
            raise ConfigError(
                f"A stream came at {audio.sample_rate} Hz. Resample it to {self.sample_rate} Hz as it comes."
            )
        hop = self.config.hop
        for b in range(len(audio)):
            samples = audio.row(b).samples[0, 0].cpu()
            if state is not None:
                assert isinstance(state, EnergyState)
                samples = state.samples.join(b, samples)
                whole = len(samples) if final else len(samples) // hop * hop
                state.samples.rows[b], samples = samples[whole:].clone(), samples[:whole]
            # What is left over at the end is continued by silence.
            frames = F.pad(samples, (0, -len(samples) % hop)).unflatten(0, (-1, hop))
            value = frames.square().mean(-1).sqrt().clamp(min=_QUIETEST).log()
            rows.append(torch.stack([value, torch.ones_like(value)], dim=-1))
        return rows


class Style(SSLUnits):
    """Style tokens like those of SpiRit-LM expressive (arXiv:2402.05755 §3.2): features of one second, k-means of 100.

    There, the encoder is Speechprop, in the release one of the kind of wav2vec 2.0; here it is any ``SpeechEncoder``.
    These are units that are averaged over a second before they are quantised, and nothing else. A second that the end
    of the recording cuts short is filled with silence.
    """

    @dataclass(frozen=True)
    class Config(SSLUnits.Config):
        _: KW_ONLY
        clusters: int = 100
        pool: int = 50
        standardize: bool = True

        def tiny(self) -> "Style.Config":
            # A second gives one frame to learn from.
            return replace(self, clusters=min(self.clusters, 10), **self.tiny_encoder)
