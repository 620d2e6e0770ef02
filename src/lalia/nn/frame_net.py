"""A codec's encoder and decoder that compute at the rate of frames, not of samples.

The encoder reads a log-mel spectrum of the past; the decoder makes the samples of each step at once, by an inverse
Fourier transform. Between are the blocks of Vocos (arXiv:2306.00814 §3). All is causal, unlike there. A second of sound
costs some hundredth of what SEANet needs.

Shapes: B batch, N samples, T frames, C channels, D dim.
"""

import math
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.nn.spectral import hann, mel_filters
from lalia.nn.stack import Stack, StackState
from lalia.nn.stream_conv import Causal, CausalConv, CausalConvTranspose, OverlapState
from lalia.streaming import State

__all__ = ["FrameDecoder", "FrameEncoder", "FrameNet"]

_FLOOR = 1e-5
_LOUDEST = math.log(1e2)


@dataclass(frozen=True)
class FrameNet(Configuration):
    """The shape of an encoder and of a decoder.

    :param hop: samples of a frame, made in ``steps`` steps of equal length.
    :param dim: D, of a frame.
    :param width: of the blocks, ``num_layers`` of them on each side, and ``ffn_dim`` inside them.
    :param kernel_size: steps of the past that a block sees.
    :param overlap: steps that the sound of one step lasts, fading in and out.
    :param n_fft: samples that a spectrum is taken of, up to the end of its step; ``bins`` mel bands.
    """

    hop: int = 320
    dim: int = 64
    _: KW_ONLY
    steps: int = 2
    width: int = 256
    ffn_dim: int = 768
    num_layers: int = 6
    kernel_size: int = 7
    n_fft: int = 640
    bins: int = 80
    overlap: int = 4

    def __post_init__(self) -> None:
        if self.steps < 1 or self.hop < 1 or self.hop % self.steps or self.n_fft < self.hop // self.steps:
            raise ConfigError(
                f"FrameNet makes frames of {self.hop} samples in {self.steps} steps, of spectra of {self.n_fft}. "
                "Let the steps divide the frame, and a spectrum be no shorter than a step."
            )

    def tiny(self) -> "FrameNet":
        return replace(self, dim=16, width=16, ffn_dim=32, num_layers=1, bins=20)

    def plain(self) -> "FrameNet":
        """The same: there is no weight normalisation."""
        return self

    def encoder(self, sample_rate: int) -> "FrameEncoder":
        """Samples to frames."""
        return FrameEncoder(self, sample_rate)

    def decoder(self) -> "FrameDecoder":
        """Frames to samples."""
        return FrameDecoder(self)


class _LogMel(Causal):
    """The log-mel spectrum of the last ``n_fft`` samples at the end of every step: [B, 1, N] -> [B, bins, S]."""

    window: Tensor
    filters: Tensor

    def __init__(self, config: FrameNet, sample_rate: int) -> None:
        super().__init__(1, config.bins, config.n_fft, stride=config.hop // config.steps)
        self.register_buffer("window", hann(config.n_fft), persistent=False)
        filters = mel_filters(sample_rate, config.n_fft, config.bins)
        self.register_buffer("filters", filters, persistent=False)

    @property
    def like(self) -> Tensor:
        return self.window

    def look(self, x: Tensor) -> Tensor:
        pieces = x[:, 0].float().unfold(1, self.span, self.stride) * self.window
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft(pieces)
            size = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
            return torch.log((size @ self.filters.T).clamp(min=_FLOOR)).transpose(1, 2)


class _Norm(nn.LayerNorm):
    """Over channels: [B, C, T]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class _Block(Stack):
    """A ConvNeXt block over the past: [B, C, S] -> [B, C, S]."""

    def __init__(self, config: FrameNet) -> None:
        super().__init__()
        self.layers = nn.ModuleList([CausalConv(config.width, config.width, config.kernel_size, groups=config.width)])
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.up = nn.Linear(config.width, config.ffn_dim)
        self.down = nn.Linear(config.ffn_dim, config.width)
        self.scale = nn.Parameter(torch.full((config.width,), 1 / config.num_layers))

    def forward(self, x: Tensor, state: StackState | None = None, *, final: bool = False) -> Tensor:
        seen = super().forward(x, state, final=final).transpose(1, 2)
        return x + (self.scale * self.down(F.gelu(self.up(self.norm(seen))))).transpose(1, 2)


class _Waves(nn.Module):
    """Steps [B, C, S] to samples [B, 1, S * step]: an inverse Fourier transform of each, fading into the next.

    The sound of a step begins with it, so that none waits for a later one; at its beginning those before are loudest.
    """

    window: Tensor

    def __init__(self, width: int, step: int, overlap: int) -> None:
        super().__init__()
        self.step, self.overlap = step, overlap
        self.head = nn.Linear(width, step * overlap + 2)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        # Windows of Hann that follow one another by a share of their length add up to half of their number.
        self.register_buffer("window", hann(step * overlap) * 2 / overlap, persistent=False)

    def init_state(self, batch_size: int) -> OverlapState:
        return OverlapState(self.window.new_zeros(batch_size, 1, self.step * (self.overlap - 1)))

    def forward(self, x: Tensor, state: OverlapState | None = None, *, final: bool = False) -> Tensor:
        if not x.shape[2]:
            if state is not None and final:
                state.tail = torch.zeros_like(state.tail)
            return x.new_zeros(len(x), 1, 0)
        size, phase = self.head(x.transpose(1, 2)).float().chunk(2, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            made = torch.fft.irfft(torch.polar(torch.exp(size.clamp(max=_LOUDEST)), phase)) * self.window
        parts = made.unflatten(2, (self.overlap, self.step))
        steps = x.shape[2]
        summed = sum(F.pad(parts[:, :, i], (0, 0, i, self.overlap - 1 - i)) for i in range(self.overlap))
        assert isinstance(summed, Tensor)
        samples = summed.flatten(1)[:, None]
        if state is not None:
            samples = samples + F.pad(state.tail, (0, steps * self.step))
            state.tail = torch.zeros_like(state.tail) if final else samples[:, :, steps * self.step :]
        return samples[:, :, : steps * self.step]


class FrameEncoder(Stack):
    """Samples [B, 1, N] to frames [B, D, ceil(N / hop)]."""

    def __init__(self, config: FrameNet, sample_rate: int) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(
            [
                _LogMel(c, sample_rate),
                CausalConv(c.bins, c.width, c.kernel_size),
                _Norm(c.width, eps=1e-6),
                *(_Block(c) for _ in range(c.num_layers)),
                _Norm(c.width, eps=1e-6),
                CausalConv(c.width, c.dim, 2 * c.steps, stride=c.steps),
            ]
        )

    def forward(self, x: Tensor, state: State | None = None, *, final: bool = False) -> Tensor:
        assert state is None or isinstance(state, StackState)
        return super().forward(x, state, final=final)


class FrameDecoder(Stack):
    """Frames [B, D, T] to samples [B, 1, T * hop]."""

    def __init__(self, config: FrameNet) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(
            [
                CausalConv(c.dim, c.width, c.kernel_size),
                CausalConvTranspose(c.width, c.width, 2 * c.steps, stride=c.steps),
                _Norm(c.width, eps=1e-6),
                *(_Block(c) for _ in range(c.num_layers)),
                _Norm(c.width, eps=1e-6),
                _Waves(c.width, c.hop // c.steps, c.overlap),
            ]
        )
