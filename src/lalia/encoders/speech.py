"""Any Hugging Face speech encoder, at any layer: HuBERT, wav2vec 2.0, WavLM, XLS-R, w2v-BERT, Whisper, ...

Only the layers up to the one that is read are loaded and run.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.encoders.loading import load
from lalia.encoders.windows import Windows, WindowState, encode_windows
from lalia.errors import ConfigError
from lalia.nn.whisper import WhisperMel
from lalia.streams import Continuous, StreamSpec, TokenSequence, pad_batch

__all__ = ["SpeechEncoder"]

_SAMPLE_RATE = 16000
_HOP = 320
"""Samples of a frame, but where the convolutions of an encoder say otherwise (the 25 Hz HuBERT of TWIST)."""


def _identity(frames: Tensor) -> Tensor:
    return frames


class SpeechEncoder(Configurable, nn.Module):
    """Audio to the hidden states of one layer [B, T, D], mostly at 50 Hz, optionally averaged to a lower rate.

    Nothing of it is trained.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: known weights, a directory, or a hub id.
        :param layer: hidden states after this layer, counted from 1; the last when not given. Those of the last come
            after the model's final norm, where it has one: they are the ``last_hidden_state`` of ``transformers``.
        :param pool: average this many frames (2: 25 Hz).
        :param windows: how long audio is cut.
        :param pretrained: load the weights; otherwise the architecture with random ones, the same each time.
        :param architecture: the model's ``config.json`` as a mapping, for building it without weights, and where it
            has another frame rate than 50 Hz.
        """

        name: str
        _: KW_ONLY
        layer: int | None = None
        pool: int = 1
        windows: Windows = field(default_factory=Windows)
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            if self.pool < 1:
                raise ConfigError(f"SpeechEncoder averages {self.pool} frames. Give pool at least 1.")
            if not self.pretrained and self.architecture is None:
                raise ConfigError(f"{self.name!r} without weights needs its architecture. Give it.")

        @property
        def sample_rate(self) -> int:
            """Of the sound that it reads, in Hz."""
            return _SAMPLE_RATE

        @property
        def hop(self) -> int:
            """Samples of one of the encoder's own frames, known without building anything."""
            return math.prod((self.architecture or {}).get("conv_stride", (_HOP,)))

        @property
        def frame_rate(self) -> float:
            """Of what it gives, in Hz."""
            return _SAMPLE_RATE / self.hop / self.pool

    def __init__(self, config: Config) -> None:
        """
        :raises WeightsError: the weights cannot be had, are incomplete, or are of no speech encoder.
        :raises ConfigError: there is no such layer, or the windows are longer than the encoder can hear.
        """
        super().__init__()
        self.config = config
        self.sample_rate = _SAMPLE_RATE
        loaded = load(config.name, config.layer, None if config.pretrained else config.architecture, hop=config.hop)
        self.model, self.family, self.layer = loaded.model, loaded.family, loaded.layer
        self._last, self._normalize, self._facts = loaded.last, loaded.normalize, loaded.facts
        self.dim = loaded.dim
        self._reach = loaded.reach
        self._hop = config.hop * config.pool
        self._sizes = config.windows.sizes(_SAMPLE_RATE, self._hop)
        self.spec = StreamSpec(kind=Continuous(self.dim), frame_rate=config.frame_rate)
        if self.family == "whisper":
            limit = self.model.config.max_source_positions
            if sum(self._sizes) > limit * _HOP:
                raise ConfigError(
                    f"{config.name!r} hears at most {limit / 50:g} s at once, but the windows are "
                    f"{sum(self._sizes) / _SAMPLE_RATE:g} s. Shorten windows.block."
                )
            bins = self.model.config.num_mel_bins
            self.mel = WhisperMel(bins)
        elif self.family == "filterbank":
            from transformers import SeamlessM4TFeatureExtractor

            self._filterbank = SeamlessM4TFeatureExtractor()
        self.requires_grad_(False).eval()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights that are used, and of what decides the output beside them."""
        digest = hashlib.sha256(f"{self.family}:{self.layer}{self._facts}".encode())
        for name, t in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(t.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def with_windows(self, windows: Windows) -> "SpeechEncoder":
        """The same encoder, without copying it, that cuts audio in another way."""
        other = copy.copy(self)
        other.config = replace(self.config, windows=windows)
        other._sizes = windows.sizes(_SAMPLE_RATE, self._hop)
        return other

    def init_state(self, batch_size: int) -> WindowState:
        """An empty stream for each row."""
        return WindowState.empty(batch_size)

    def encode(self, audio: Audio, state: WindowState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N], channels are averaged; at any rate when whole, at 16 kHz when streaming.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows.
        :returns: features [B, T, D]; offline T = ceil(N / 320 / pool). What a row gives does not depend on the others.
        """
        rows = []
        for pieces in self.pieces(audio, state, final=final):
            frames = torch.cat(pieces) if pieces else torch.zeros((0, self.dim), device=self._device)
            rows.append(TokenSequence(frames[None], torch.tensor([len(frames)])))
        return pad_batch(rows)

    @torch.no_grad()
    def pieces(
        self,
        audio: Audio,
        state: WindowState | None = None,
        *,
        final: bool = False,
        each: Callable[[Tensor], Tensor] = _identity,
    ) -> list[list[Tensor]]:
        """What ``encode`` gives, for each row, window by window.

        :param each: is applied to the frames [t, D] of each window at once, so that those of an hour never lie in
            memory together.
        """
        audio = audio.mono()
        if state is None:
            audio = audio.to(_SAMPLE_RATE)
        elif audio.sample_rate != _SAMPLE_RATE:
            raise ConfigError(f"A stream came at {audio.sample_rate} Hz. Resample it to {_SAMPLE_RATE} Hz as it comes.")
        elif len(state.samples) != len(audio):
            raise ConfigError(f"A stream of {len(state.samples)} rows got audio of {len(audio)}. Give one row each.")
        # A row at a time: padding would change what encoders with a norm over time give for it, and costs time.
        return [
            encode_windows(
                self,
                self._sizes,
                self._hop,
                audio.samples[b, 0, : int(audio.lengths[b])].to(self._device),
                state,
                b,
                final=state is None or final,
                each=each,
            )
            for b in range(len(audio))
        ]

    def forward(self, samples: Tensor) -> Tensor:
        """One window of samples [N] at 16 kHz to features [T, D], T = ceil(N / hop / pool)."""
        if self._normalize:
            samples = (samples - samples.mean()) / torch.sqrt(samples.var(unbiased=False) + 1e-7)
        # A whole number of frames; what is added is silence.
        samples = F.pad(samples, (0, -len(samples) % self._hop))
        match self.family:
            case "whisper":
                hidden = self._whisper(samples)
            case "filterbank":
                hidden = self.model(input_features=self._fbank_pairs(samples)[None]).last_hidden_state[0]
            case "wave":
                # The convolutions reach past a frame: without what lies there the last frame would be missing.
                hidden = self.model(F.pad(samples, (0, self._reach))[None]).last_hidden_state[0]
        return hidden if self.config.pool == 1 else hidden.unflatten(0, (-1, self.config.pool)).mean(dim=1)

    def _whisper(self, samples: Tensor) -> Tensor:
        """Whisper's encoder on the real length, not on a window of 30 s padded with silence."""
        encoder = self.model
        x = F.gelu(encoder.conv1(self.mel(samples)[None]))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        for layer in encoder.layers:
            x = layer(x, None)
            x = x[0] if isinstance(x, tuple) else x
        return (encoder.layer_norm(x) if self._last else x)[0]

    def _fbank_pairs(self, samples: Tensor) -> Tensor:
        """w2v-BERT's input [T, 160]: 80 Kaldi filter banks at 100 Hz, normalised per bin, two frames stacked."""
        # The last filter bank reaches 240 samples past its frame.
        padded = F.pad(samples, (0, 240)).cpu().numpy()
        out = self._filterbank(padded, sampling_rate=_SAMPLE_RATE, return_tensors="pt", padding=False)
        return out["input_features"][0].to(samples)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device
