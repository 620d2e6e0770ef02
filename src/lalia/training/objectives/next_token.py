"""Next-token prediction: the objective of pre-training and instruction tuning."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lalia.layouts import Grid
from lalia.lm import Graph, SpeechLM, Weight
from lalia.lm.weighing import apart

__all__ = ["NextToken"]


class NextToken:
    """The losses of all heads of one language model; see ``Objective``.

    A batch is ``{"grid": Grid, "feeds": {NAME: Grid}, "streams": Streams}``: the grid of the model, those of the
    models whose hidden states it reads, and the streams that have no place in a grid; the last two may be left out.
    There is a loss term per stream, and more where a head has more.

    :param lm: which is trained, or a graph and the name of one of its models.
    :param weights: of single terms, or of the cells of a stream too; 1 where not given, 0 leaves a stream out (a
        prompt).
    """

    def __init__(
        self, lm: SpeechLM | Graph, weights: Mapping[str, float | Weight] | None = None, *, name: str | None = None
    ) -> None:
        self.graph = lm if isinstance(lm, Graph) else Graph({name or "lm": lm})
        self.name = name or next(reversed(self.graph.lms))
        self.lm = self.graph.lms[self.name]
        self.step = 0
        self.players = ("model",)
        terms, self.cells = apart(weights or {})
        self.weights = {term: terms.get(term, 1.0) for term in self.lm.terms}

    def modules(self, player: str) -> list[nn.Module]:
        feeders = (self.graph.lms[n] for n in self.graph.feeders(self.name))
        return [self.lm, *(m for m in feeders if any(p.requires_grad for p in m.parameters()))]

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        return self.lm.counts(batch["grid"], batch.get("streams"), self.cells)

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        grid: Grid = batch["grid"]
        feeds = batch.get("feeds")
        if feeds:
            grid = self.graph.fill(self.name, {**feeds, self.name: grid})
        return self.lm.losses(grid, batch.get("streams"), self.cells)
