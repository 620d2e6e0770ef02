"""What the vocoders of continuous frames share: mel spectra in, samples out, exact streaming."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.nn.blocks import run_blocks
from lalia.nn.fir import Field, FirState, init_fir
from lalia.nn.standard import StandardScale
from lalia.streaming import State
from lalia.streams import Continuous, Streams, StreamSpec
from lalia.vocoders.base import Vocoder, check_features, check_speaker, find_spec, find_stream, hop_of

__all__ = ["MelVocoder"]


class MelVocoder(Vocoder):
    """Features of a clocked stream to samples through a network with a finite impulse response.

    A subclass has ``field`` (what its network sees) and ``forward``. There is one voice: that of the spectrum.

    Where the stream is in standard scores (``Mel`` with ``normalize``), the network still sees spectra as they are, so
    that one that was trained on these fits.

    :param stream: the stream of features, usually of ``Mel``.
    :param sample_rate: of the audio made, in Hz.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stream: str
        _: KW_ONLY
        sample_rate: int = 16000

    field: Field
    durations = None
    """It predicts none; see ``UnitVocoder``."""

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        name = type(self).__name__
        self.spec = spec = find_spec(specs, config.stream, name)
        if not isinstance(spec.kind, Continuous):
            raise ConfigError(f"{name} reads features, and {config.stream!r} holds codes. Put a stage before it.")
        self.stream = config.stream
        self.reads = config.reads
        self.sample_rate = config.sample_rate
        self.hop = hop_of(config.sample_rate, spec.frame_rate, name)
        self.dim = spec.kind.dim
        self.standard = StandardScale()

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Features [B, T, D], in their own scale, to samples [B, T * hop]."""

    def adopt(self, learned: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.standard.adopt(learned.get(self.stream, {}))

    def synthesize(self, streams: Streams, speaker: Tensor | None = None) -> Tensor:
        """The samples [B, T * hop] of segments of one length, with gradients."""
        samples: Tensor = self(self.standard.inverse(find_stream(streams, self.stream).values))
        return samples

    @property
    def lookahead_seconds(self) -> float:
        """How far into the future a sample depends on features; the latency of streaming."""
        return self.field.right * self.hop / self.sample_rate

    def init_state(self, batch_size: int) -> FirState:
        like = torch.zeros(1, 1, self.dim, device=next(self.parameters()).device)
        return init_fir(self.field, like, batch_size)

    @torch.no_grad()
    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        assert state is None or isinstance(state, FirState)
        features = find_stream(streams, self.stream)
        check_features(features, self.stream, self.dim)
        check_speaker(speaker, len(features), self.num_speakers)
        samples, lengths = run_blocks(
            lambda frames, _: self(self.standard.inverse(frames)),
            self.field,
            features.values,
            features.lengths,
            state,
            final=final,
        )
        return Audio(samples[:, None], self.sample_rate, lengths)
