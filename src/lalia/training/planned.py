"""Batches by a plan: in an order that can be repeated and resumed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from lalia.data import BatchPlan, BatchSampler, Row

__all__ = ["PlannedBatches"]


class PlannedBatches(ABC):
    """Global batches of utterances by length, of which every rank loads its share as one; see ``Batches``."""

    def __init__(self, plan: BatchPlan, *, rank: int, world: int) -> None:
        self._sampler = BatchSampler(plan, rank=rank, world=world)

    @abstractmethod
    def load(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The given utterances as one batch."""

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._sampler:
            yield [self.load(batch.rows)] if batch.rows else []

    def state_dict(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._sampler.load_state_dict(state)
