"""Next-token prediction: the objective of pre-training and instruction tuning."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lalia.layouts import Grid
from lalia.lm import SpeechLM

__all__ = ["NextToken"]


class NextToken:
    """Negative log-likelihood of every cell of the predicted streams; see ``Objective``.

    A batch is ``{"grid": Grid, ...}``. There is a loss term per stream; its count is its cells.

    :param weights: of single streams; 1 where not given, 0 leaves a stream out (a prompt).
    """

    def __init__(self, lm: SpeechLM, weights: Mapping[str, float] | None = None) -> None:
        self.lm = lm
        self.step = 0
        self.players = ("model",)
        self.weights = {stream: (weights or {}).get(stream, 1.0) for stream in lm.heads}

    def modules(self, player: str) -> list[nn.Module]:
        return [self.lm]

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        grid: Grid = batch["grid"]
        return {stream: float(grid.num_cells(stream)) for stream in self.weights}

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {stream: nll.sum() for stream, nll in self.lm.nll(batch["grid"]).items()}
