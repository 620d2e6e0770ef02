"""UnitHifiGan: the direct unit vocoder of speech resynthesis and speech-to-speech translation."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from lalia.errors import ConfigError
from lalia.nn.conv import fuse_weight_norm
from lalia.streams import StreamSpec
from lalia.vocoders.hifigan import HifiGanGenerator
from lalia.vocoders.units import UnitVocoder

__all__ = ["UnitHifiGan"]


class UnitHifiGan(UnitVocoder):
    """HiFi-GAN V1 (arXiv:2010.05646) on unit embeddings (arXiv:2104.00355).

    Durations, where they are predicted, as in arXiv:2107.05604.

    The voice, where there are several, is an embedding appended to that of every unit.

    :param dim: width of the embeddings.
    :param channels: of the first convolution.
    :param upsample_rates: their product is the samples of a frame; the defaults suit 50 Hz at 16 kHz.
    """

    @dataclass(frozen=True)
    class Config(UnitVocoder.Config):
        _: KW_ONLY
        dim: int = 128
        channels: int = 512
        upsample_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
        upsample_kernels: tuple[int, ...] = (11, 8, 8, 4, 4)
        resblock_kernels: tuple[int, ...] = (3, 7, 11)
        dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

        def tiny(self) -> "UnitHifiGan.Config":
            return replace(
                self,
                num_speakers=min(self.num_speakers, 4),
                dim=16,
                channels=2 * 2 ** len(self.upsample_rates),
                resblock_kernels=(3,),
                dilations=((1, 3),),
            )

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__(config, specs, dim=config.dim, duration_dim=config.dim)
        self.config = config
        made = math.prod(config.upsample_rates)
        if made != self.hop:
            raise ConfigError(
                f"UnitHifiGan upsamples by {' x '.join(map(str, config.upsample_rates))} = {made}, but a frame of "
                f"{config.stream!r} ({self.spec.frame_rate:g} Hz) has {self.hop} samples at {config.sample_rate} Hz. "
                f"Choose upsample_rates whose product is {self.hop}."
            )
        self.generator = HifiGanGenerator(
            config.dim * (2 if config.num_speakers else 1),
            channels=config.channels,
            upsample_rates=config.upsample_rates,
            upsample_kernels=config.upsample_kernels,
            resblock_kernels=config.resblock_kernels,
            dilations=config.dilations,
        )
        self.field = self.generator.field

    def blend(self, x: Tensor, voice: Tensor) -> Tensor:
        return torch.cat([x, voice[:, None].expand(-1, x.shape[1], -1)], dim=-1)

    def waveform(self, x: Tensor) -> Tensor:
        samples: Tensor = self.generator(x)
        return samples

    def fuse(self) -> "UnitHifiGan":
        """Replace normalised weights by their values, for inference; save before, the parameters' names change."""
        fuse_weight_norm(self)
        return self
