"""UnitVocos: units to samples at frame rate, in the frequency domain; the vocoder for a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lalia.streams import StreamSpec
from lalia.vocoders.units import UnitVocoder
from lalia.vocoders.vocos import VocosNetwork, VocosShape

__all__ = ["UnitVocos"]


class UnitVocos(VocosNetwork, UnitVocoder):
    """Vocos (arXiv:2306.00814) on units: embeddings, ConvNeXt blocks at one rate, and an inverse STFT.

    Its sizes are those of ``VocosShape``.
    """

    @dataclass(frozen=True)
    class Config(VocosShape, UnitVocoder.Config):
        def tiny(self) -> "UnitVocos.Config":
            return replace(self, num_speakers=min(self.num_speakers, 4), dim=48, ffn_dim=96, num_layers=2)

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__(config, specs, dim=config.dim, duration_dim=config.dim)
        self.config = config
        self.field = self.make_network(config, config.sample_rate, self.spec.frame_rate)
