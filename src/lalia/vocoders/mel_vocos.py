"""MelVocos: mel spectra to samples at frame rate, in the frequency domain."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from lalia.streams import StreamSpec
from lalia.vocoders.mel import MelVocoder
from lalia.vocoders.vocos import VocosNetwork, VocosShape

__all__ = ["MelVocos"]


class MelVocos(VocosNetwork, MelVocoder):
    """Vocos (arXiv:2306.00814) on mel spectra, behind a projection to the width of the backbone.

    Its sizes are those of ``VocosShape``.
    """

    @dataclass(frozen=True)
    class Config(VocosShape, MelVocoder.Config):
        def tiny(self) -> "MelVocos.Config":
            return replace(self, dim=48, ffn_dim=96, num_layers=2)

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__(config, specs)
        self.config = config
        self.enter = nn.Linear(self.dim, config.dim)
        self.field = self.make_network(config, config.sample_rate, self.spec.frame_rate)

    def forward(self, features: Tensor) -> Tensor:
        return self.waveform(self.enter(features))
