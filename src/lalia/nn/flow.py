"""The velocity field of per-frame flow matching: a residual MLP modulated by time and condition.

Shapes: n frames, F values of a frame, D width of the condition.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FlowMLP"]

_FREQUENCIES = 128


class FlowMLP(nn.Module):
    """v(x, t, condition), with adaptive layer norm (DiT, arXiv:2212.09748) in each block.

    :param features: F.
    :param condition: D.
    :param width: of the blocks.
    """

    def __init__(self, features: int, condition: int, *, width: int, num_layers: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features, width)
        self.time = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(condition, width)
        self.nothing = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.shift = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, features)
        # At the start every block passes its input on, and the velocity is zero.
        for part in (self.shift, self.leave):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, drop: Tensor | None = None) -> Tensor:
        """
        :param x: [n, F].
        :param t: [n, 1], from 0 (noise) to 1 (frame).
        :param condition: [n, D].
        :param drop: [n], frames that go without their condition.
        :returns: [n, F].
        """
        given = self.condition(condition)
        if drop is not None:
            given = torch.where(drop[:, None], self.nothing.to(given.dtype), given)
        rate = torch.exp(-math.log(1e4) * torch.arange(_FREQUENCIES // 2, device=t.device) / (_FREQUENCIES // 2))
        angle = 1000.0 * t * rate
        by = F.silu(self.time(torch.cat([angle.cos(), angle.sin()], dim=-1).to(given.dtype)) + given)
        h = self.enter(x.to(given.dtype))
        for block in self.blocks:
            h = block(h, by)
        scale, shift = self.shift(by).chunk(2, dim=-1)
        velocity: Tensor = self.leave(self.norm(h) * (1 + scale) + shift)
        return velocity


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, by: Tensor) -> Tensor:
        scale, shift, gate = self.modulation(by).chunk(3, dim=-1)
        return h + gate * self.down(F.gelu(self.up(self.norm(h) * (1 + scale) + shift)))
