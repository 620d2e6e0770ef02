"""The network of Vocos (arXiv:2306.00814), which the vocoders of units and of mel spectra share."""

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.conv import Conv
from lalia.nn.convnext import ConvNeXtBlock
from lalia.nn.fir import Field
from lalia.nn.spectral import hann, istft
from lalia.vocoders.base import hop_of

__all__ = ["LOUDEST", "VocosNetwork", "VocosShape"]

LOUDEST = math.log(1e2)
"""Log-magnitudes are clipped here, as in the reference implementation of Vocos."""


@dataclass(frozen=True, eq=False)
class VocosShape:
    """The sizes of the network, which the configurations of its vocoders share.

    :param upsample: steps made of each frame before the backbone, so that 50 Hz units are spoken by
        100 steps per second.
    :param dim: width of the backbone.
    :param ffn_dim: width inside its blocks.
    :param num_layers: blocks.
    :param kernel_size: steps that a block sees, ``lookahead`` of them in the future (half when None;
        0 makes the backbone causal).
    :param overlap: window length of the inverse STFT in hops.
    """

    _: KW_ONLY
    upsample: int = 1
    dim: int = 512
    ffn_dim: int = 1536
    num_layers: int = 8
    kernel_size: int = 7
    lookahead: int | None = None
    overlap: int = 4


class VocosNetwork(nn.Module):
    """ConvNeXt blocks at one rate and an inverse STFT: frames [B, T, D] to samples [B, T * hop].

    Nothing is computed at the rate of the samples but the inverse Fourier transform, which makes it an order of
    magnitude cheaper than a GAN vocoder with transposed convolutions. A vocoder inherits it, so that its weights are
    the vocoder's own, and calls ``make_network``.
    """

    window: Tensor

    def make_network(self, shape: VocosShape, sample_rate: int, frame_rate: float | None) -> Field:
        """Add the layers to the vocoder; what they see of the frames."""
        name = type(self).__name__
        future = (shape.kernel_size - 1) // 2 if shape.lookahead is None else shape.lookahead
        if not 0 <= future < shape.kernel_size:
            raise ConfigError(
                f"{name} has lookahead {future} in a kernel of {shape.kernel_size}. Give 0 to {shape.kernel_size - 1}."
            )
        self.step = hop_of(sample_rate, frame_rate, name, shape.upsample)
        n_fft = shape.overlap * self.step
        self.register_buffer("window", hann(n_fft), persistent=False)
        self.position = nn.Parameter(torch.zeros(shape.upsample, shape.dim))
        kernel = {"kernel_size": shape.kernel_size, "lookahead": future}
        self.first = Conv(shape.dim, shape.dim, **kernel)
        self.first_norm = nn.LayerNorm(shape.dim, eps=1e-6)
        scale = 1 / shape.num_layers
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(shape.dim, shape.ffn_dim, scale=scale, **kernel) for _ in range(shape.num_layers)
        )
        self.norm = nn.LayerNorm(shape.dim, eps=1e-6)
        self.head = nn.Linear(shape.dim, n_fft + 2)
        self._initialise()
        convolutions, reach = shape.num_layers + 1, shape.overlap // 2
        past = convolutions * (shape.kernel_size - 1 - future) + reach
        ahead = convolutions * future + reach
        return Field(math.ceil(past / shape.upsample), math.ceil(ahead / shape.upsample), self.step * shape.upsample)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.position, std=0.02)

    def hidden(self, x: Tensor) -> Tensor:
        """Frames [B, T, D] to what the head sees, [B, T * upsample, D]."""
        batch, frames, dim = x.shape
        steps = self.position.shape[0]
        x = (x[:, :, None] + self.position).reshape(batch, frames * steps, dim)
        x = self.first_norm(self.first(x))
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def waveform(self, x: Tensor) -> Tensor:
        """Frames [B, T, D] to samples [B, T * hop]."""
        size, phase = self.head(self.hidden(x)).float().transpose(1, 2).chunk(2, dim=1)
        return istft(torch.polar(torch.exp(size.clamp(max=LOUDEST)), phase), self.step, self.window)
