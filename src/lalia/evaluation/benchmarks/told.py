"""A likelihood as it was kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Told"]


@dataclass(frozen=True)
class Told:
    """Log-probabilities (nats) of tokens that begin at ``starts`` (s), and of ending after them."""

    log_probs: Sequence[float]
    starts: Sequence[float]
    end: float

    @property
    def tokens(self) -> int:
        return len(self.log_probs)

    @property
    def sum(self) -> float:
        return math.fsum(self.log_probs)
