"""ConvNeXt over time, the backbone of Vocos (arXiv:2306.00814 §3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.nn.conv import DepthwiseConv

__all__ = ["ConvNeXtBlock"]


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, an inverted bottleneck and a scaled residual: [B, T, D] -> [B, T, D].

    :param ffn_dim: width of the bottleneck.
    :param kernel_size: frames each convolution sees, ``lookahead`` of them in the future.
    :param scale: first value of the residual's per-channel scale.
    """

    def __init__(
        self, dim: int, ffn_dim: int, *, kernel_size: int = 7, lookahead: int | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv(dim, kernel_size, lookahead=lookahead)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.up = nn.Linear(dim, ffn_dim)
        self.down = nn.Linear(ffn_dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(F.gelu(self.up(self.norm(self.depthwise(x)))))
