"""The source of a voice: pulses at its pitch, and noise; what a filter makes speech of.

(Fant 1960; in neural vocoders: NSF, Wang et al., arXiv:1904.12088; DDSP, Engel et al., arXiv:2001.04643.)
Shapes: B batch, T frames, N = T * hop samples.
"""

import math

import torch
from torch import Tensor

__all__ = ["LOWEST_HZ", "advance", "noise_table", "pulses"]

LOWEST_HZ, HIGHEST_HZ = 40.0, 1000.0
"""What a pitch is kept between: below, pulses are no tone."""


def advance(before: Tensor, pitch: Tensor, hop: int, sample_rate: int) -> Tensor:
    """The periods [...] that pass in a frame in which the pitch goes straight from ``before`` to ``pitch`` (Hz)."""
    return (before.double() + pitch.double()) * (hop / (2 * sample_rate))


def pulses(before: Tensor, pitch: Tensor, phase: Tensor, hop: int, sample_rate: int) -> Tensor:
    """A train of pulses [B, N]: all harmonics under half the sample rate, equally strong, of power 1 together.

    :param before: the pitch [B, T] in Hz at the beginning of each frame, and ``pitch`` at its end.
    :param phase: [B, T], periods at the beginning of each frame; only the part behind the point counts.
    """
    u = (torch.arange(hop, device=pitch.device, dtype=torch.float32) + 0.5) / hop
    low, high = before.float()[..., None], pitch.float()[..., None]
    hz = low + (high - low) * u
    periods = phase.float()[..., None] + (low * u + (high - low) * u**2 / 2) * (hop / sample_rate)
    periods = periods - periods.round()
    count = torch.floor(sample_rate / 2 / hz).clamp(min=1)
    # The closed form of 1 + 2 (cos x + cos 2x + ... + cos nx), and its limit at x = 0.
    half = math.pi * periods
    below = torch.sin(half)
    ratio = torch.sin((2 * count + 1) * half) / torch.where(below.abs() < 1e-4, 1e-4, below)
    total = torch.where(below.abs() < 1e-4, 2 * count + 1, ratio)
    return ((total - 1) * torch.rsqrt(2 * count)).flatten(1)


def noise_table(frames: int, hop: int) -> Tensor:
    """White noise [frames, hop] of power 1, the same each time and on every device: what a frame is given is decided by
    its number, so that pieces get what the whole gets.
    """
    with torch.device("cpu"):
        return torch.randn(frames, hop, generator=torch.Generator().manual_seed(0))
