"""SNAC's convolutions: waveforms to frames and back, seeing a little of the past and of the future (arXiv:2410.14411).

Those of DAC (arXiv:2306.06546), but for depthwise convolutions and noise in the decoder.

Shapes: B batch, N samples, T frames, C channels, D dim.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.nn.seanet import Snake

__all__ = ["SNACDecoder", "SNACEncoder", "SNACNet", "frame_noise", "reach_of"]

_RESIDUAL = 3 * (1 + 3 + 9)
"""Frames to each side that three residual units see, of 7 frames with dilations 1, 3 and 9."""


_FAR_APART = 0x9E3779B1
"""Between the seeds of two streams of noise: an odd number, so that all are different."""


def reach_of(strides: tuple[int, ...]) -> int:
    """Frames that the encoder and the decoder see to each side, with one to spare; those of DAC too."""
    step, samples = 1, 3.0
    for stride in strides:
        samples += _RESIDUAL * step
        step *= stride
        samples += step
    return math.ceil((samples + 3 * step) / step) + 1


@dataclass(frozen=True)
class SNACNet(Configuration):
    """The shape of an encoder and a decoder.

    :param strides: of the encoder, in order; the decoder's are these in reverse.
    :param channels: after the encoder's first convolution, doubled with each stride; after the last they are D.
    :param decoder_channels: before the decoder's first stride, halved with each.
    :param depthwise: the wide convolutions keep channels apart.
    :param noise: after each stride of the decoder.
    """

    strides: tuple[int, ...] = (2, 4, 8, 8)
    channels: int = 48
    decoder_channels: int = 1024
    _: KW_ONLY
    depthwise: bool = True
    noise: bool = True

    def __post_init__(self) -> None:
        parts = 2 ** len(self.strides)
        if not self.strides or min(self.strides) < 1 or self.channels < 1 or self.decoder_channels % parts:
            raise ConfigError(
                f"SNAC has strides {list(self.strides)} and {self.decoder_channels} channels in its decoder. "
                f"Give strides of at least 1 and a multiple of {parts}."
            )

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.strides)

    @property
    def dim(self) -> int:
        """D, of a frame."""
        return int(self.channels * 2 ** len(self.strides))

    @property
    def noise_rates(self) -> tuple[int, ...]:
        """Random numbers that a frame takes after each stride of the decoder."""
        rates = [math.prod(self.strides[-i - 1 :]) for i in range(len(self.strides))]
        return tuple(rates) if self.noise else ()


class _Residual(nn.Module):
    """x plus a wide and a narrow convolution of it."""

    def __init__(self, channels: int, dilation: int, groups: int) -> None:
        super().__init__()
        wide = nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation, groups=groups)
        self.layers = nn.Sequential(Snake(channels), wide, Snake(channels), nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


def _residuals(channels: int, depthwise: bool) -> list[nn.Module]:
    return [_Residual(channels, dilation, channels if depthwise else 1) for dilation in (1, 3, 9)]


class _Down(nn.Module):
    def __init__(self, channels: int, stride: int, depthwise: bool) -> None:
        super().__init__()
        strided = nn.Conv1d(channels, 2 * channels, 2 * stride, stride, padding=math.ceil(stride / 2))
        self.layers = nn.Sequential(*_residuals(channels, depthwise), Snake(channels), strided)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class _Noise(nn.Module):
    """x plus noise that is as strong as a linear map of x says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + noise * self.linear(x)  # type: ignore[no-any-return]


class _Up(nn.Module):
    def __init__(self, channels: int, stride: int, depthwise: bool, noise: bool) -> None:
        super().__init__()
        half = channels // 2
        up = nn.ConvTranspose1d(
            channels, half, 2 * stride, stride, padding=math.ceil(stride / 2), output_padding=stride % 2
        )
        self.layers = nn.ModuleList(
            [Snake(channels), up, *([_Noise(half)] if noise else []), *_residuals(half, depthwise)]
        )

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, noise) if isinstance(layer, _Noise) else layer(x)
        return x


class SNACEncoder(nn.Module):
    """Samples [B, 1, T * hop] to frames [B, D, T]."""

    def __init__(self, config: SNACNet) -> None:
        super().__init__()
        width = config.channels
        layers: list[nn.Module] = [nn.Conv1d(1, width, 7, padding=3)]
        for stride in config.strides:
            layers.append(_Down(width, stride, config.depthwise))
            width *= 2
        layers.append(nn.Conv1d(width, width, 7, padding=3, groups=width if config.depthwise else 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class SNACDecoder(nn.Module):
    """Frames [B, D, T] to samples [B, 1, T * hop]."""

    def __init__(self, config: SNACNet) -> None:
        super().__init__()
        width = config.decoder_channels
        layers: list[nn.Module] = [nn.Conv1d(config.dim, width, 7, padding=3)]
        if config.depthwise:
            wide = nn.Conv1d(config.dim, config.dim, 7, padding=3, groups=config.dim)
            layers = [wide, nn.Conv1d(config.dim, width, 1)]
        for stride in reversed(config.strides):
            layers.append(_Up(width, stride, config.depthwise, config.noise))
            width //= 2
        layers += [Snake(width), nn.Conv1d(width, 1, 7, padding=3)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """:param noise: after each stride, [B, 1, T * rate]; nothing where the shape has none."""
        rest = list(noise)
        for layer in self.layers:
            if isinstance(layer, _Up):
                x = layer(x, rest.pop(0) if rest else None)
            else:
                x = layer(x)
        return torch.tanh(x)


def frame_noise(positions: Tensor, rates: Sequence[int], seed: int) -> list[Tensor]:
    """Standard normal numbers that belong to the frames of a stream, whatever pieces it comes in.

    :param positions: which frame of its stream each is [B, T].
    :param rates: numbers that a frame takes, of each tensor.
    :returns: [B, 1, T * rate] for each rate, on the device of ``positions``.
    """
    if not rates or not positions.numel():
        return [positions.new_zeros((len(positions), 1, 0), dtype=torch.float32) for _ in rates]
    unique, which = positions.cpu().unique(return_inverse=True)
    # Of a seed the generator reads 32 bits: each stream begins at a place of its own among them.
    first, chance = seed * _FAR_APART, torch.Generator()
    seeds = [(first + p) % (1 << 32) for p in unique.tolist()]
    drawn = [torch.randn(sum(rates), generator=chance.manual_seed(s)) for s in seeds]
    parts = torch.stack(drawn)[which].to(positions.device).split(list(rates), dim=2)
    return [part.flatten(1)[:, None] for part in parts]
