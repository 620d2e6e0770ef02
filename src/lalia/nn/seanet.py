"""SEANet: waveforms to frames and back by residual causal convolutions (arXiv:2009.02095, arXiv:2107.03312 §III).

SoundStream, EnCodec, SpeechTokenizer, Mimi and (with Snake) DAC are configurations of it. Between the convolutions and
the quantiser a small Transformer and one more change of rate may stand, as in Mimi (arXiv:2410.00037 §3.3).

Shapes: B batch, N samples, T frames, C channels, D dim.
"""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.nn.stack import Stack, StackState
from lalia.nn.stream_conv import CausalConv, CausalConvTranspose
from lalia.nn.transformer import Transformer
from lalia.nn.windowed import WindowTransformer
from lalia.streaming import State

__all__ = ["SEANet", "SEANetDecoder", "SEANetEncoder", "Snake"]

_EPSILON = 1e-9


@dataclass(frozen=True)
class SEANet(Configuration):
    """The shape of an encoder and of the decoder that mirrors it.

    :param strides: of the encoder, in order; the decoder's are these in reverse.
    :param channels: after the first convolution, doubled with each stride.
    :param dim: D, of a frame.
    :param kernel_size: of the first convolution of each side; ``last_kernel_size`` of the last.
    :param residual_kernel_size: of the residual blocks, ``num_residual`` of them at each rate, the j-th with dilation
        ``dilation_growth`` ** j.
    :param compress: by how much the channels shrink inside a residual block.
    :param shortcut: a convolution around each residual block (EnCodec) in place of nothing.
    :param activation: DAC has Snake (arXiv:2006.08195), the others ELU.
    :param normalize: weight normalisation, in training.
    :param transformer: after the convolutions of the encoder, and another one before those of the decoder; its
        ``window`` is how many frames it sees.
    :param resample: a last change of rate, beyond the Transformer.
    """

    strides: tuple[int, ...] = (4, 5, 6, 8)
    channels: int = 64
    dim: int = 512
    _: KW_ONLY
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    num_residual: int = 1
    dilation_growth: int = 2
    compress: int = 2
    shortcut: bool = False
    activation: Literal["elu", "snake"] = "elu"
    normalize: bool = False
    transformer: Transformer.Config | None = None
    resample: int = 1

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) < 1 or self.resample < 1:
            raise ConfigError(
                f"SEANet has strides {list(self.strides)} and resample {self.resample}. Give numbers of at least 1."
            )
        if self.transformer is not None and self.transformer.dim != self.dim:
            raise ConfigError(
                f"SEANet has frames of {self.dim} values, but a Transformer of {self.transformer.dim}. Give both one."
            )

    def tiny(self) -> "SEANet":
        dim = 16
        transformer = None
        if self.transformer is not None:
            shape = {"num_layers": 1, "num_heads": 2, "num_kv_heads": None, "head_dim": None, "ffn_dim": 2 * dim}
            transformer = replace(self.transformer, dim=dim, window=min(self.transformer.window or 8, 8), **shape)  # type: ignore[arg-type]
        return replace(self, channels=2, dim=dim, num_residual=1, transformer=transformer)

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.strides) * self.resample

    def plain(self) -> "SEANet":
        """The same without weight normalisation."""
        return replace(self, normalize=False)

    def encoder(self, sample_rate: int) -> "SEANetEncoder":
        """Samples to frames, at whatever rate."""
        return SEANetEncoder(self)

    def decoder(self) -> "SEANetDecoder":
        """Frames to samples."""
        return SEANetDecoder(self)


class Snake(nn.Module):
    """x + sin^2(a x) / a with a learned frequency for each channel (arXiv:2006.08195): [B, C, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x).square() / (self.alpha + _EPSILON)


class _Frames(WindowTransformer):
    """A ``WindowTransformer`` on channels first: [B, D, T]."""

    def forward(self, x: Tensor, state: State | None = None, *, final: bool = False) -> Tensor:
        return super().forward(x.transpose(1, 2), state, final=final).transpose(1, 2)  # type: ignore[arg-type]


class _Residual(Stack):
    """x plus two convolutions of it."""

    def __init__(self, config: SEANet, channels: int, dilation: int) -> None:
        super().__init__()
        inner = channels // config.compress
        self.layers = nn.ModuleList(
            [
                _activation(config, channels),
                CausalConv(channels, inner, config.residual_kernel_size, dilation=dilation, normalize=config.normalize),
                _activation(config, inner),
                CausalConv(inner, channels, 1, normalize=config.normalize),
            ]
        )
        # One frame wide: without a state.
        self.shortcut = (
            CausalConv(channels, channels, 1, normalize=config.normalize) if config.shortcut else nn.Identity()
        )

    def forward(self, x: Tensor, state: StackState | None = None, *, final: bool = False) -> Tensor:
        made: Tensor = self.shortcut(x) + super().forward(x, state, final=final)
        return made


def _activation(config: SEANet, channels: int) -> nn.Module:
    return Snake(channels) if config.activation == "snake" else nn.ELU()


def _residuals(config: SEANet, channels: int) -> list[nn.Module]:
    return [_Residual(config, channels, config.dilation_growth**j) for j in range(config.num_residual)]


class SEANetEncoder(Stack):
    """Samples [B, 1, N] to frames [B, D, ceil(N / hop)]."""

    def __init__(self, config: SEANet) -> None:
        super().__init__()
        c, norm = config, config.normalize
        width = c.channels
        layers: list[nn.Module] = [CausalConv(1, width, c.kernel_size, normalize=norm)]
        for stride in c.strides:
            layers += [*_residuals(c, width), _activation(c, width)]
            layers.append(CausalConv(width, 2 * width, 2 * stride, stride=stride, normalize=norm))
            width *= 2
        layers += [_activation(c, width), CausalConv(width, c.dim, c.last_kernel_size, normalize=norm)]
        if c.transformer is not None:
            layers.append(_Frames(c.transformer))
        if c.resample > 1:
            size, padding = 2 * c.resample, "replicate"
            layers.append(CausalConv(c.dim, c.dim, size, stride=c.resample, bias=False, padding=padding))  # type: ignore[arg-type]
        self.layers = nn.ModuleList(layers)


class SEANetDecoder(Stack):
    """Frames [B, D, T] to samples [B, 1, T * hop]."""

    def __init__(self, config: SEANet) -> None:
        super().__init__()
        c, norm = config, config.normalize
        width = c.channels * 2 ** len(c.strides)
        layers: list[nn.Module] = []
        if c.resample > 1:
            layers.append(
                CausalConvTranspose(c.dim, c.dim, 2 * c.resample, stride=c.resample, groups=c.dim, bias=False)
            )
        if c.transformer is not None:
            layers.append(_Frames(c.transformer))
        layers.append(CausalConv(c.dim, width, c.kernel_size, normalize=norm))
        for stride in reversed(c.strides):
            layers.append(_activation(c, width))
            layers.append(CausalConvTranspose(width, width // 2, 2 * stride, stride=stride, normalize=norm))
            width //= 2
            layers += _residuals(c, width)
        layers += [_activation(c, width), CausalConv(width, 1, c.last_kernel_size, normalize=norm)]
        self.layers = nn.ModuleList(layers)
