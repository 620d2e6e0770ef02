"""Weights of losses: of streams beside one another, and of cells within a stream."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.errors import RecipeError
from lalia.streams import StreamSpec

__all__ = ["Weight", "apart"]


@dataclass(frozen=True)
class Weight(Configuration):
    """How much a stream counts beside others, and each of its cells within it.

    The loss of a stream is the weighted mean of the losses of its cells: their weighted sum by the sum of their
    weights, over the whole batch. So within a stream it matters how weights compare, not how large they are.

    :param stream: of that mean; 0 measures it without training on it.
    :param codebooks: of the cells of each codebook; 1 where not given (of Moshi's, the first has 100 and the others 1).
    :param ids: pairs of an id and the weight of cells that hold it, by which that of their codebook is multiplied.
    :raises RecipeError: a weight is negative, or not finite.
    """

    stream: float = 1.0
    _: KW_ONLY
    codebooks: tuple[float, ...] | None = None
    ids: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        for weight in (self.stream, *(self.codebooks or ()), *(w for _, w in self.ids)):
            if not 0 <= weight < math.inf:
                raise RecipeError(f"A loss has weight {weight}. Give 0 or more.")

    def tiny(self) -> "Weight":
        # A tiny text has other ids.
        return replace(self, ids=())

    @property
    def even(self) -> bool:
        """Whether all cells count alike."""
        return self.codebooks is None and not self.ids

    def of_cells(self, ids: Tensor) -> Tensor:
        """The weights [B, K, S] of cells that hold these ids [B, K, S]."""
        books = self.codebooks or (1.0,) * ids.shape[1]
        weights = torch.tensor(books, device=ids.device)[:, None].expand(ids.shape)
        for i, weight in self.ids:
            weights = torch.where(ids == i, weight * weights, weights)
        return weights

    def check(self, where: str, stream: str, spec: StreamSpec) -> None:
        """:raises RecipeError: the stream has other codebooks, or no such ids."""
        books, num_ids = getattr(spec.kind, "num_codebooks", 0), getattr(spec.kind, "num_ids", 0)
        if self.codebooks is not None and len(self.codebooks) != books:
            raise RecipeError(
                f"{where} weighs {len(self.codebooks)} codebooks of {stream!r}, which has {books}. "
                "Give one weight for each codebook."
            )
        for i, _ in self.ids:
            if not 0 <= i < num_ids:
                raise RecipeError(
                    f"{where} weighs id {i} of {stream!r}, which has ids 0 to {num_ids - 1}. Give one of these."
                )


def apart(weights: Mapping[str, float | Weight]) -> tuple[dict[str, float], dict[str, Weight]]:
    """The weights of loss terms, and of the cells of those streams whose cells do not all count alike."""
    terms = {term: w.stream if isinstance(w, Weight) else w for term, w in weights.items()}
    return terms, {s: w for s, w in weights.items() if isinstance(w, Weight) and not w.even}
