"""What a head is: how one stream is predicted from the LM's hidden states, in training and in generation.

Shapes: B batch, K codebooks, S LM steps, D dim, V ids.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.layouts import Cursor, Grid, Laid
from lalia.lm.weighing import Weight
from lalia.streams import Discrete, Streams, StreamSpec

__all__ = ["Ask", "CellHead", "Head", "Row"]


@dataclass
class Row:
    """One row of the batch while it runs.

    :param index: its place in what ``generate`` yields.
    :param history: codes of codebook 0 of each stream so far.
    :param memory: what a head keeps about this row from step to step, by stream.
    :param awaited: streams that come from outside and are never drawn.
    """

    index: int
    cursor: Cursor
    seed: int
    draws: int = 0
    history: dict[str, list[int]] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    awaited: frozenset[str] = frozenset()

    @property
    def runs(self) -> bool:
        return self.cursor.step is not None


@dataclass(frozen=True)
class Ask:
    """Rows that ask one head for the same cell of the step that is being made.

    :param hidden: [n, D] of these rows.
    :param laid: what stands in the step of each of them already.
    :param pick: one id of each row from logits [n, V], by the sampler's settings for the stream.
    :param noise: standard normal numbers [n, D], by each row's seed.
    :param scratch: the head's own, for as long as the step is being made.
    """

    codebook: int
    hidden: Tensor
    rows: Sequence[Row]
    laid: Sequence[Sequence[Laid]]
    pick: Callable[[Tensor], list[int]]
    noise: Callable[[int], Tensor]
    scratch: dict[Any, Any]


class Head(Configurable, nn.Module, ABC):
    """The base of every head.

    A head gives one or several loss *terms*; the first has the name of the stream, others are named
    ``STREAM.SOMETHING``.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """Every head's config; which other streams it needs is up to it."""

        kind: ClassVar[str] = "codes"
        """``codes`` or ``features``: what the predicted stream holds."""
        aligned: ClassVar[bool] = False
        """Whether the stream is found along the steps (CTC) and has no cells of its own in the layout."""

        @property
        def weighs_cells(self) -> bool:
            """Whether it has a loss for each cell, so that cells can differ in weight."""
            return issubclass(self.owner, CellHead)

        @property
        def needs(self) -> tuple[str, ...]:
            """Other streams that it reads at the same step."""
            return ()

    stream: str
    terms: tuple[str, ...]

    @abstractmethod
    def counts(self, grid: Grid, streams: Streams) -> dict[str, float]:
        """What to divide each term by.

        :param streams: the streams of the batch, among them those that have no cells in the grid.
        """

    @abstractmethod
    def losses(self, hidden: Tensor, grid: Grid, streams: Streams) -> dict[str, Tensor]:
        """The sum of each term.

        :param hidden: [B, S, D]; step s predicts step s of ``grid``.
        """

    def nll(self, hidden: Tensor, grid: Grid) -> Tensor:
        """Negative log-likelihood of every cell [B, K, S] in nats; 0 where absent.

        :raises ConfigError: it has no likelihood.
        """
        raise ConfigError(f"{type(self).__name__} gives stream {self.stream!r} no likelihood. Score another stream.")

    @abstractmethod
    def draw(self, ask: Ask) -> list[int] | list[tuple[Tensor, bool]]:
        """The value of the cell for each row: ids, or features [D] with whether they are the stream's last."""


class CellHead(Head):
    """A head with a loss for each cell of its stream: its first term is their sum, with the weights of the cells."""

    def cells(self, grid: Grid) -> Tensor:
        """Where there is something to predict [B, K, S]."""
        return grid.present(self.stream)

    @abstractmethod
    def nll(self, hidden: Tensor, grid: Grid) -> Tensor: ...

    def counts(self, grid: Grid, streams: Streams, weight: Weight | None = None) -> dict[str, float]:
        cells = self.cells(grid)
        if weight is None:
            return {self.stream: float(cells.sum())}
        return {self.stream: float((weight.of_cells(grid.values[self.stream]).double() * cells).sum())}

    def losses(self, hidden: Tensor, grid: Grid, streams: Streams, weight: Weight | None = None) -> dict[str, Tensor]:
        nll = self.nll(hidden, grid)
        return {self.stream: (nll if weight is None else nll * weight.of_cells(grid.values[self.stream])).sum()}


def discrete(specs: Mapping[str, StreamSpec], stream: str, head: str) -> Discrete:
    """The codes that a head predicts.

    :raises ConfigError: the stream holds features.
    """
    kind = specs[stream].kind
    if not isinstance(kind, Discrete):
        raise ConfigError(f"{head} predicts codes, but stream {stream!r} holds features. Use Regress or Flow.")
    return kind
