"""Convolutions over time whose view of the past and the future is stated."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

__all__ = ["Conv", "DepthwiseConv", "as_picture", "fuse_weight_norm", "weight_norm"]


class Conv(nn.Module):
    """A convolution that keeps the number of frames: [B, T, D] -> [B, T, out].

    :param lookahead: future frames seen; the other ``kernel_size - 1 - lookahead`` are past.
        Half of them when None.
    """

    def __init__(self, dim: int, out: int, kernel_size: int, *, lookahead: int | None = None) -> None:
        super().__init__()
        self.future = (kernel_size - 1) // 2 if lookahead is None else lookahead
        self.past = kernel_size - 1 - self.future
        self.conv = nn.Conv1d(dim, out, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x.transpose(1, 2), (self.past, self.future))).transpose(1, 2)


class DepthwiseConv(nn.Module):
    """A convolution of every channel with itself: [B, T, D] -> [B, T, D]. Parameters as for ``Conv``."""

    def __init__(self, dim: int, kernel_size: int, *, lookahead: int | None = None) -> None:
        super().__init__()
        self.future = (kernel_size - 1) // 2 if lookahead is None else lookahead
        self.past = kernel_size - 1 - self.future
        self.conv = nn.Conv1d(dim, dim, kernel_size, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return as_picture(self.conv, F.pad(x.transpose(1, 2), (self.past, self.future))).transpose(1, 2)


def as_picture(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution in groups of [B, C, T] as one of pictures of height 1, for which CPUs have faster kernels."""
    stride, dilation = (1, *conv.stride), (1, *conv.dilation)
    made = F.conv2d(x.unsqueeze(2), conv.weight.unsqueeze(2), conv.bias, stride, 0, dilation, conv.groups)
    return made.squeeze(2)


def weight_norm(module: nn.Module) -> nn.Module:
    """The module with its weight split into direction and length (arXiv:1602.07868)."""
    return parametrizations.weight_norm(module)


@torch.no_grad()
def fuse_weight_norm(module: nn.Module) -> nn.Module:
    """Replace every normalised weight below ``module`` by its value, in place, for faster inference."""
    for child in module.modules():
        if parametrize.is_parametrized(child, "weight"):
            parametrize.remove_parametrizations(child, "weight", leave_parametrized=True)
    return module
