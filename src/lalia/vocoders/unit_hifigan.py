"""UnitHifiGan: the direct unit vocoder of speech resynthesis and speech-to-speech translation."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from lalia.nn.conv import fuse_weight_norm
from lalia.streams import StreamSpec
from lalia.vocoders.hifigan import HifiGanShape
from lalia.vocoders.units import UnitVocoder

__all__ = ["UnitHifiGan"]


class UnitHifiGan(UnitVocoder):
    """HiFi-GAN V1 (arXiv:2010.05646) on unit embeddings (arXiv:2104.00355).

    Durations, where they are predicted, as in arXiv:2107.05604.

    The voice, where there are several, is an embedding appended to that of every unit. The sizes are those of
    ``HifiGanShape``.

    :param dim: width of the embeddings.
    """

    @dataclass(frozen=True)
    class Config(HifiGanShape, UnitVocoder.Config):
        _: KW_ONLY
        dim: int = 128

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
        frame = f"a frame of {config.stream!r} ({self.spec.frame_rate:g} Hz at {config.sample_rate} Hz)"
        width = config.dim * (2 if config.num_speakers else 1)
        self.generator = config.make_generator(type(self).__name__, width, self.hop, frame)
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
