"""The linear head: a softmax over the codes of a stream.

Shapes: B batch, K codebooks, S LM steps, D dim, V ids.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lalia.layouts import Grid, Vocabulary
from lalia.lm.head import Ask, CellHead, Head
from lalia.nn.compact import Rows, RowsOf
from lalia.nn.packed import PackedWeight

__all__ = ["Linear"]

_MOST_LOGITS = 1 << 26
"""Most logits that are kept for the backward pass; of more, they are computed again."""


class Linear(CellHead):
    """A softmax over the stream's codebook, or over the whole table that it shares with other streams."""

    @dataclass(frozen=True)
    class Config(Head.Config):
        """How a stream is predicted.

        :param tied: predict with the embeddings themselves (arXiv:1608.05859).
        """

        _: KW_ONLY
        tied: bool = False

    def __init__(
        self,
        config: Config,
        *,
        stream: str,
        rows_of: str,
        vocabulary: Vocabulary,
        joint: bool,
        dim: int,
        num_ids: Sequence[int],
        weight: nn.Parameter | None = None,
    ) -> None:
        """Make the output matrix, or share one.

        :param rows_of: the stream whose rows of the vocabulary are predicted (itself, unless tied to another).
        :param joint: whether the softmax runs over every row of the vocabulary.
        :param num_ids: of each codebook, how many of its ids can come.
        :param weight: the output matrix [V, D], where it is the embedding or that of another head.
        """
        super().__init__()
        self.config, self.stream, self.joint, self.vocabulary = config, stream, joint, vocabulary
        self._rows_of, self.num_ids = rows_of, num_ids
        self.terms = (stream,)
        self._packed: dict[tuple[int, int], PackedWeight] = {}
        if weight is None:
            weight = nn.Parameter(torch.empty(vocabulary.size, dim))
            nn.init.normal_(weight, std=0.02)
        self.weight = weight
        self._compact: Rows | None = None

    @property
    def table(self) -> nn.Parameter | Rows:
        """What it predicts with, the same for all who share it."""
        return self.weight if self._compact is None else self._compact

    def compact(self, rows_of: RowsOf) -> None:
        self._compact = rows_of(self.weight)
        if self._compact is None:
            return
        del self.weight
        # What is laid out for products at the first one takes a copy in float32 for a moment: now, and not when all
        # the rest of a model is in memory too.
        nobody = torch.zeros(1, self._compact.shape[1], device=self._compact.device)
        for codebook in range(len(self.num_ids)):
            self.logits(nobody, self._drawn(codebook))

    def rows(self, codebook: int) -> range:
        """The rows of the vocabulary that a codebook's ids have."""
        return self.vocabulary.rows(self._rows_of, codebook)

    def scope(self, codebook: int) -> range:
        """The rows over which the softmax of a codebook runs: what cannot come has no part in it, as in ``draw``."""
        return range(self.vocabulary.size) if self.joint else self._drawn(codebook)

    def _drawn(self, codebook: int) -> range:
        """The rows of what can come: an end that a codebook cannot have is not drawn."""
        return self.rows(codebook)[: self.num_ids[codebook]]

    def logits(self, hidden: Tensor, rows: range) -> Tensor:
        """[n, D] to [n, V] over some rows of the vocabulary."""
        if self._compact is not None:
            return self._compact.linear(hidden, rows=rows)
        weight = self.weight if len(rows) == len(self.weight) else self.weight[rows.start : rows.stop]
        packed = self._packed.setdefault((rows.start, rows.stop), PackedWeight())
        return packed.linear(hidden, weight.to(hidden.dtype))

    def draw(self, ask: Ask) -> list[int]:
        return ask.pick(self.logits(ask.hidden, self._drawn(ask.codebook)))

    def nll(self, hidden: Tensor, grid: Grid) -> Tensor:
        present, values = grid.present(self.stream), grid.values[self.stream]
        flat = hidden.reshape(-1, hidden.shape[-1])
        out = []
        for k in range(present.shape[1]):
            scope = self.scope(k)
            # Only the cells that exist go through the output matrix: no work is spent on padding.
            at = present[:, k].reshape(-1).nonzero()[:, 0]
            ids = values[:, k].reshape(-1)[at] + (self.rows(k).start - scope.start)
            nll = self._nll(flat if len(at) == len(flat) else flat.index_select(0, at), ids, scope)
            out.append(nll.new_zeros(len(flat)).index_copy(0, at, nll).view_as(present[:, k]))
        return torch.stack(out, dim=1)

    def _nll(self, hidden: Tensor, ids: Tensor, scope: range) -> Tensor:
        """[n, D] and [n] to [n]."""
        rows = max(_MOST_LOGITS // len(scope), 1)
        again = len(ids) > rows and torch.is_grad_enabled()
        return torch.cat(
            [
                checkpoint(self._cross_entropy, h, i, scope, use_reentrant=False, preserve_rng_state=False)
                if again
                else self._cross_entropy(h, i, scope)
                for h, i in zip(hidden.split(rows), ids.split(rows), strict=True)
            ]
        )

    def _cross_entropy(self, hidden: Tensor, ids: Tensor, scope: range) -> Tensor:
        return F.cross_entropy(self.logits(hidden, scope).float(), ids, reduction="none")
