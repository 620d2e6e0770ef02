"""Features in standard scores: less their mean, in units of their standard deviation."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lalia.errors import DataError

__all__ = ["StandardScale"]

_SMALLEST = 1e-3
"""Of a standard deviation: a value that never changes is not to be blown up."""


class StandardScale(nn.Module):
    """The ``mean`` and the ``scale`` [D] of features. Until they are known, features stay as they are.

    Neither is in the state dict: whoever measured them keeps them.
    """

    mean: Tensor | None
    scale: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", None, persistent=False)
        self.register_buffer("scale", None, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features [..., D] to standard scores."""
        return features if self.mean is None or self.scale is None else (features - self.mean) / self.scale

    def inverse(self, scores: Tensor) -> Tensor:
        """Standard scores [..., D] to features."""
        return scores if self.mean is None or self.scale is None else scores * self.scale + self.mean

    def weights(self) -> dict[str, Tensor]:
        """The ``mean`` and the ``scale``; nothing where they are not known."""
        return {} if self.mean is None or self.scale is None else {"mean": self.mean, "scale": self.scale}

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``."""
        self.mean, self.scale = (t if t is None else t.float().clone() for t in map(tensors.get, ("mean", "scale")))

    def fit(self, rows: Iterable[Tensor]) -> None:
        """Measure features [T, D], which are read once.

        :raises DataError: there are fewer than two.
        """
        n, total, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for row in rows:
            x = row.double().cpu()
            n, total, square = n + len(x), total + x.sum(0), square + x.square().sum(0)
        if n < 2:
            raise DataError(f"{n} frames have no standard deviation. Give recordings with speech in them.")
        mean = total / n
        self.adopt({"mean": mean, "scale": (square / n - mean.square()).clamp(min=_SMALLEST**2).sqrt()})
