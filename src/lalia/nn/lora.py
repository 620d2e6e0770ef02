"""Low-rank adapters of linear maps (LoRA, arXiv:2106.09685): W stays, and alpha / rank x B A is added to it.

They are put into a network that is already there: an adapted map keeps its place and the name of its ``weight``, and
has ``lora_a`` [rank, D_in] and ``lora_b`` [D_out, rank] beside it.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.nn.packed import Linear

__all__ = ["Lora", "LoraLinear", "add_lora", "merge_lora", "merged"]


@dataclass(frozen=True, kw_only=True)
class Lora(Configuration):
    """Which linear maps are adapted, and how.

    :param patterns: fnmatch patterns on the names of modules, such as ``lms.*.attention.*``.
    :param alpha: the adapters count alpha / rank times, so that a learning rate suits any rank.
    :param dropout: of what enters the adapters, in training.
    """

    patterns: tuple[str, ...] = ("*",)
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"Lora has rank {self.rank}. Give at least 1.")

    def tiny(self) -> "Lora":
        return replace(self, rank=min(self.rank, 4), alpha=self.alpha * min(self.rank, 4) / self.rank)


class LoraLinear(Linear):
    """A linear map with an adapter: made by ``add_lora``, never built."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    lora_scale: float
    lora_dropout: float
    lora_base: type[nn.Linear]

    def forward(self, x: Tensor) -> Tensor:
        seen = F.dropout(x, self.lora_dropout) if self.training and self.lora_dropout else x
        return super().forward(x) + self.lora_scale * F.linear(F.linear(seen, self.lora_a), self.lora_b)

    def change(self) -> Tensor:
        """What the adapter adds to the weight [D_out, D_in]."""
        return (self.lora_scale * (self.lora_b.float() @ self.lora_a.float())).to(self.weight.dtype)


def add_lora(
    module: nn.Module, patterns: Sequence[str], rank: int = 8, alpha: float = 16.0, dropout: float = 0.0
) -> list[str]:
    """Adapt the linear maps of a module whose names match, in place; until they are trained they change nothing.

    Which parameters are trained is left to the caller, as for any others.

    :returns: the names of the adapted maps.
    :raises ConfigError: a pattern matches none that is not adapted yet.
    """
    linears = {n: m for n, m in module.named_modules() if type(m) in (nn.Linear, Linear)}
    chosen = {n: m for n, m in linears.items() if any(fnmatchcase(n, p) for p in patterns)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in chosen):
            hint = f"There are {', '.join(sorted(linears)[:3])}, ..." if linears else "There is none."
            raise ConfigError(f"No linear map matches {pattern!r} for an adapter. {hint}")
    for part in chosen.values():
        base = type(part)
        part.lora_a = nn.Parameter(part.weight.new_empty(rank, part.in_features))
        part.lora_b = nn.Parameter(part.weight.new_zeros(part.out_features, rank))
        nn.init.kaiming_uniform_(part.lora_a, a=math.sqrt(5))
        # The same object as before under the same name: who holds it, or ties its weight, still does.
        part.__class__ = LoraLinear
        assert isinstance(part, LoraLinear)
        part.lora_scale, part.lora_dropout, part.lora_base = alpha / rank, dropout, base
    return list(chosen)


def _adapted(module: nn.Module) -> list[LoraLinear]:
    return [m for m in module.modules() if isinstance(m, LoraLinear)]


@torch.no_grad()
def merge_lora(module: nn.Module) -> None:
    """Add every adapter to the weight that it adapts, and take it out, in place."""
    for part in _adapted(module):
        part.weight += part.change()
        del part.lora_a, part.lora_b
        part.__class__ = part.lora_base  # type: ignore[assignment]


@contextmanager
def merged(module: nn.Module) -> Iterator[None]:
    """Inside the block the module is as ``merge_lora`` would leave it; after it, as before, bit for bit."""
    parts = _adapted(module)
    kept = [(part.weight.detach().clone(), part.lora_a, part.lora_b) for part in parts]
    merge_lora(module)
    try:
        yield
    finally:
        with torch.no_grad():
            for part, (weight, a, b) in zip(parts, kept, strict=True):
                part.weight.copy_(weight)
                part.__class__ = LoraLinear
                part.lora_a, part.lora_b = a, b
