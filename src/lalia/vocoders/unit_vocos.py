"""UnitVocos: units to samples at frame rate, in the frequency domain; the vocoder for a CPU."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.conv import Conv
from lalia.nn.convnext import ConvNeXtBlock
from lalia.nn.fir import Field
from lalia.nn.spectral import hann, istft
from lalia.streams import StreamSpec
from lalia.vocoders.base import hop_of
from lalia.vocoders.units import UnitVocoder

__all__ = ["UnitVocos"]

_LOUDEST = math.log(1e2)
"""Log-magnitudes are clipped here, as in the reference implementation of Vocos."""


class UnitVocos(UnitVocoder):
    """Vocos (arXiv:2306.00814) on units: embeddings, ConvNeXt blocks at one rate, and an inverse STFT.

    Nothing is computed at the rate of the samples but the inverse Fourier transform, which makes it
    an order of magnitude cheaper than a GAN vocoder with transposed convolutions.

    :param upsample: steps made of each frame before the backbone, so that 50 Hz units are spoken by
        100 steps per second.
    :param dim: width of the backbone.
    :param ffn_dim: width inside its blocks.
    :param num_layers: blocks.
    :param kernel_size: steps that a block sees, ``lookahead`` of them in the future (half when None;
        0 makes the backbone causal).
    :param overlap: window length of the inverse STFT in hops.
    """

    @dataclass(frozen=True)
    class Config(UnitVocoder.Config):
        _: KW_ONLY
        upsample: int = 1
        dim: int = 512
        ffn_dim: int = 1536
        num_layers: int = 8
        kernel_size: int = 7
        lookahead: int | None = None
        overlap: int = 4

        def tiny(self) -> "UnitVocos.Config":
            return replace(self, num_speakers=min(self.num_speakers, 4), dim=48, ffn_dim=96, num_layers=2)

    window: Tensor

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__(config, specs, dim=config.dim, duration_dim=config.dim)
        future = (config.kernel_size - 1) // 2 if config.lookahead is None else config.lookahead
        if not 0 <= future < config.kernel_size:
            raise ConfigError(
                f"UnitVocos has lookahead {future} in a kernel of {config.kernel_size}. "
                f"Give 0 to {config.kernel_size - 1}."
            )
        self.config = config
        self.step = hop_of(config.sample_rate, self.spec.frame_rate, "UnitVocos", config.upsample)
        n_fft = config.overlap * self.step
        self.register_buffer("window", hann(n_fft), persistent=False)
        self.position = nn.Parameter(torch.zeros(config.upsample, config.dim))
        kernel = {"kernel_size": config.kernel_size, "lookahead": future}
        self.first = Conv(config.dim, config.dim, **kernel)
        self.first_norm = nn.LayerNorm(config.dim, eps=1e-6)
        scale = 1 / config.num_layers
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.dim, config.ffn_dim, scale=scale, **kernel) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.head = nn.Linear(config.dim, n_fft + 2)
        self._initialise()

        convolutions, reach = config.num_layers + 1, config.overlap // 2
        past = convolutions * (config.kernel_size - 1 - future) + reach
        ahead = convolutions * future + reach
        self.field = Field(math.ceil(past / config.upsample), math.ceil(ahead / config.upsample), self.hop)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.position, std=0.02)

    def waveform(self, x: Tensor) -> Tensor:
        batch, frames, dim = x.shape
        x = (x[:, :, None] + self.position).reshape(batch, frames * self.config.upsample, dim)
        x = self.first_norm(self.first(x))
        for block in self.blocks:
            x = block(x)
        size, phase = self.head(self.norm(x)).float().transpose(1, 2).chunk(2, dim=1)
        return istft(torch.polar(torch.exp(size.clamp(max=_LOUDEST)), phase), self.step, self.window)
