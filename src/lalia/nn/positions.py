"""Where a step is: the angles of rotary positions, and sinusoidal embeddings.

Shapes: S steps, D dim.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.config import Configuration

__all__ = ["RopeScaling", "angles", "sinusoids"]


@dataclass(frozen=True, kw_only=True)
class RopeScaling(Configuration):
    """RoPE stretched to longer sequences than a model began with, as Llama 3.1 has it (arXiv:2407.21783 §3.4.2).

    What turns slowly is slowed down further, so that it stays in the range that the model knows; what turns fast
    stays as it was.

    :param factor: how much slower the slow angles turn.
    :param low_freq_factor: an angle that turns less often than this over ``original_context`` is slow.
    :param high_freq_factor: one that turns more often than this is fast; between them it is in between.
    :param original_context: steps of the sequences that the model began with.
    """

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def tiny(self) -> "RopeScaling":
        return self

    def apply(self, rate: Tensor) -> Tensor:
        """The rates of the angles in radians a step, scaled."""
        turns = self.original_context * rate / (2 * math.pi)
        fast = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return rate * (fast + (1 - fast) / self.factor)


def angles(positions: Tensor, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, Tensor]:
    """cos and sin of RoPE (arXiv:2104.09864) for positions [...]: [..., D_head / 2]."""
    # After an hour an angle has few digits left behind the point in single precision.
    dtype = torch.float32 if positions.device.type == "mps" else torch.float64
    rate = theta ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=dtype) / head_dim)
    angle = positions.to(dtype)[..., None] * (rate if scaling is None else scaling.apply(rate))
    return angle.cos().float(), angle.sin().float()


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Sinusoidal position embeddings [..., D] (arXiv:1706.03762 §3.5), sines then cosines."""
    half = dim // 2
    rate = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half, device=positions.device))
    angle = positions.float()[..., None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
