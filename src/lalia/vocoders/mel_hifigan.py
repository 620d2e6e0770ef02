"""HifiGan: the vocoder of mel spectra that most two-stage systems end with."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from torch import Tensor

from lalia.nn.conv import fuse_weight_norm
from lalia.streams import StreamSpec
from lalia.vocoders.hifigan import HifiGanShape
from lalia.vocoders.mel import MelVocoder

__all__ = ["HifiGan"]


class HifiGan(MelVocoder):
    """HiFi-GAN V1 on mel spectra (arXiv:2010.05646 §2.2, Table 1 and Appendix A.1).

    :param upsample_rates: their product is the samples of a frame; the defaults suit a hop of 256 samples.
    """

    @dataclass(frozen=True)
    class Config(HifiGanShape, MelVocoder.Config):
        _: KW_ONLY
        upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
        upsample_kernels: tuple[int, ...] = (16, 16, 4, 4)

        def tiny(self) -> "HifiGan.Config":
            channels = 2 * 2 ** len(self.upsample_rates)
            return replace(self, channels=channels, resblock_kernels=(3,), dilations=((1, 3),))

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__(config, specs)
        self.config = config
        frame = f"a frame of {config.stream!r} ({self.spec.frame_rate:g} Hz at {config.sample_rate} Hz)"
        self.generator = config.make_generator(type(self).__name__, self.dim, self.hop, frame)
        self.field = self.generator.field

    def forward(self, features: Tensor) -> Tensor:
        samples: Tensor = self.generator(features)
        return samples

    def fuse(self) -> "HifiGan":
        """Replace normalised weights by their values, for inference; save before, the parameters' names change."""
        fuse_weight_norm(self)
        return self
