"""Finite scalar quantisation: codes without a table (arXiv:2309.15505)."""

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.quantize import Quantized, Quantizer

__all__ = ["FSQ"]

_MARGIN = 1e-3
"""How far beyond the outer levels a value may reach before rounding, as a share (§A.1 of the paper)."""


class FSQ(Quantizer):
    """A few bounded values, each rounded to one of a few levels; their product is the codebook.

    Nothing can die and nothing has to be counted.

    :param levels: of each value.
    :param num_codebooks: several of them side by side, whose outputs add up.
    """

    @dataclass(frozen=True)
    class Config(Quantizer.Config):
        levels: tuple[int, ...] = (8, 5, 5, 5)
        _: KW_ONLY
        num_codebooks: int = 1

        def __post_init__(self) -> None:
            if not self.levels or min(self.levels) < 2 or self.num_codebooks < 1:
                raise ConfigError(
                    f"FSQ has {self.num_codebooks} codebooks of levels {list(self.levels)}. "
                    "Give at least one, with levels of at least 2."
                )

        @property
        def num_codes(self) -> int:
            return math.prod(self.levels)

        @property
        def num_books(self) -> int:
            return self.num_codebooks

    levels: Tensor
    bases: Tensor

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config = config
        width = len(config.levels)
        self.before = nn.Linear(dim, width * config.num_codebooks)
        self.after = nn.ModuleList(nn.Linear(width, dim, bias=k == 0) for k in range(config.num_codebooks))
        levels = torch.tensor(config.levels, device="cpu")
        self.register_buffer("levels", levels, persistent=False)
        bases = torch.cumprod(torch.tensor([1, *config.levels[:-1]], device="cpu"), 0)
        self.register_buffer("bases", bases, persistent=False)

    def _values(self, x: Tensor) -> Tensor:
        """Features [B, T, D] to bounded values [B, T, K, L], in steps between levels (§3 and A.1)."""
        levels = self.levels.to(x.dtype)
        half = (levels - 1) * (1 + _MARGIN) / 2
        offset = (self.levels % 2 == 0).to(x.dtype) / 2
        z = self.before(x).unflatten(-1, (self.config.num_codebooks, -1))
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def _spoken(self, steps: Tensor) -> Tensor:
        """Steps [B, T, k, L] around zero to features [B, T, D]."""
        scaled = steps / (self.levels // 2).to(steps.dtype)
        parts = [self.after[k](scaled[:, :, k]) for k in range(steps.shape[2])]
        return torch.stack(parts).sum(0)

    def _codes(self, steps: Tensor) -> Tensor:
        return ((steps.long() + self.levels // 2) * self.bases).sum(-1).transpose(1, 2)

    def encode(self, x: Tensor, num_codebooks: int | None = None) -> Tensor:
        return self._codes(self._values(x).round())[:, :num_codebooks]

    def decode(self, codes: Tensor) -> Tensor:
        steps = codes.transpose(1, 2)[..., None] // self.bases % self.levels - self.levels // 2
        return self._spoken(steps.to(self.before.weight.dtype))

    def forward(self, x: Tensor) -> Quantized:
        values = self._values(x)
        rounded = values.round()
        passed = values + (rounded - values).detach()
        return Quantized(
            self._spoken(passed),
            self._codes(rounded),
            self._spoken(passed[:, :, :1]),
            torch.zeros(len(x), device=x.device),
            [],
        )
