"""The generator of HiFi-GAN (arXiv:2010.05646 §2.2): transposed convolutions and multi-receptive-field fusion."""

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.nn.conv import weight_norm
from lalia.nn.fir import Field

__all__ = ["HifiGanGenerator", "HifiGanShape"]

_SLOPE = 0.1


class _ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual (type 1 of the paper)."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            plain = nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=dilation * (kernel_size // 2))
            nn.init.normal_(plain.weight, 0.0, 0.01)
            return weight_norm(plain)

        self.dilated = nn.ModuleList(conv(d) for d in dilations)
        self.plain = nn.ModuleList(conv(1) for _ in dilations)
        self.reach = sum((d + 1) * (kernel_size // 2) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, _SLOPE)), _SLOPE))
        return x


class HifiGanGenerator(nn.Module):
    """Frames [B, T, D] to samples [B, T * hop], where the hop is the product of ``upsample_rates``.

    :param dim: width of the frames.
    :param channels: after the first convolution; halved by every upsampling.
    :param upsample_kernels: widths of the transposed convolutions, not under their rates and of the same parity.
    :param resblock_kernels: widths of the parallel residual blocks, odd.
    :param dilations: of each of these blocks.
    """

    def __init__(
        self,
        dim: int,
        *,
        channels: int,
        upsample_rates: tuple[int, ...],
        upsample_kernels: tuple[int, ...],
        resblock_kernels: tuple[int, ...],
        dilations: tuple[tuple[int, ...], ...],
    ) -> None:
        super().__init__()
        if len(upsample_rates) != len(upsample_kernels) or len(resblock_kernels) != len(dilations):
            raise ConfigError(
                f"HiFi-GAN has {len(upsample_rates)} upsample_rates for {len(upsample_kernels)} upsample_kernels, and "
                f"{len(resblock_kernels)} resblock_kernels for {len(dilations)} dilations. Give as many of each."
            )
        for rate, kernel in zip(upsample_rates, upsample_kernels, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ConfigError(
                    f"HiFi-GAN cannot upsample by {rate} with a kernel of {kernel}. Give {2 * rate + rate % 2}."
                )
        if channels % 2 ** len(upsample_rates) or any(k % 2 == 0 for k in resblock_kernels):
            raise ConfigError(
                f"HiFi-GAN with {channels} channels and resblock_kernels {resblock_kernels} cannot be built. "
                f"Give a multiple of {2 ** len(upsample_rates)} and odd kernels."
            )
        self.first = weight_norm(nn.Conv1d(dim, channels, 7, padding=3))
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(upsample_rates, upsample_kernels, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            nn.init.normal_(up.weight, 0.0, 0.01)
            self.ups.append(weight_norm(up))
            channels //= 2
            pairs = zip(resblock_kernels, dilations, strict=True)
            self.blocks.append(nn.ModuleList(_ResidualBlock(channels, k, d) for k, d in pairs))
        last = nn.Conv1d(channels, 1, 7, padding=3)
        nn.init.normal_(last.weight, 0.0, 0.01)
        self.last = weight_norm(last)
        self.field = self._field(upsample_rates, upsample_kernels)

    def _field(self, rates: tuple[int, ...], kernels: tuple[int, ...]) -> Field:
        """What the samples of frame 0 depend on, found by walking from the samples back to the frames."""
        hop = math.prod(rates)
        low, high = -3, hop - 1 + 3
        for rate, kernel, blocks in zip(reversed(rates), reversed(kernels), reversed(list(self.blocks)), strict=True):
            assert isinstance(blocks, nn.ModuleList)
            reach = max(int(block.reach) for block in blocks)  # type: ignore[arg-type]
            padding = (kernel - rate) // 2
            # Output o of a transposed convolution is made of the inputs i with 0 <= o + padding - i * rate < kernel.
            low = -((kernel - 1 - (low - reach) - padding) // rate)
            high = (high + reach + padding) // rate
        return Field(3 - low, high + 3, hop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.transpose(1, 2))
        for up, blocks in zip(self.ups, self.blocks, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            x = up(F.leaky_relu(x, _SLOPE))
            x = torch.stack([block(x) for block in blocks]).mean(0)
        # The reference implementation leaves the slope of this one at PyTorch's default.
        return torch.tanh(self.last(F.leaky_relu(x, 0.01)).float())[:, 0]


@dataclass(frozen=True, eq=False)
class HifiGanShape:
    """The sizes of the generator, which the configurations of its vocoders share.

    :param channels: of the first convolution.
    :param upsample_rates: their product is the samples of a frame; the defaults suit 50 Hz at 16 kHz.
    """

    _: KW_ONLY
    channels: int = 512
    upsample_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
    upsample_kernels: tuple[int, ...] = (11, 8, 8, 4, 4)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    def make_generator(self, vocoder: str, dim: int, hop: int, frame: str) -> HifiGanGenerator:
        """
        :param vocoder: whose it is, for the message.
        :param dim: width of the frames.
        :param hop: samples per frame.
        :param frame: what a frame is, for the message.
        :raises ConfigError: the product of the rates is not ``hop``.
        """
        made = math.prod(self.upsample_rates)
        if made != hop:
            raise ConfigError(
                f"{vocoder} upsamples by {' x '.join(map(str, self.upsample_rates))} = {made}, but {frame} "
                f"has {hop} samples. Choose upsample_rates whose product is {hop}."
            )
        return HifiGanGenerator(
            dim,
            channels=self.channels,
            upsample_rates=self.upsample_rates,
            upsample_kernels=self.upsample_kernels,
            resblock_kernels=self.resblock_kernels,
            dilations=self.dilations,
        )
