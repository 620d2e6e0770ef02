"""A likelihood as it was kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lalia.errors import DataError
from lalia.evaluation.protocols import Likelihood

__all__ = ["Told"]

_DIGITS = 5
"""Of a log-probability in nats that is kept; what else stands in a batch shows behind the fifth."""


@dataclass(frozen=True)
class Told:
    """Log-probabilities (nats) of tokens that begin at ``starts`` (s), and of ending after them."""

    log_probs: Sequence[float]
    starts: Sequence[float]
    end: float

    @classmethod
    def of(cls, one: Likelihood) -> "Told":
        """What a model says, rounded.

        :raises DataError: it is no number.
        """
        if not all(map(math.isfinite, (one.sum, one.end))):
            raise DataError(f"The model scores {one.tokens} tokens with {one.sum}. Check its weights.")
        return cls(
            [round(p, _DIGITS) for p in one.log_probs],
            [round(t, 4) for t in one.starts],
            round(float(one.end), _DIGITS),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"log_probs": list(self.log_probs), "starts": list(self.starts), "end": float(self.end)}

    @property
    def tokens(self) -> int:
        return len(self.log_probs)

    @property
    def sum(self) -> float:
        return math.fsum(self.log_probs)
