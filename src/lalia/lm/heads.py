"""Heads: how each stream is predicted from the LM's hidden states.

Shapes: B batch, K codebooks, S LM steps, D dim, V ids.
"""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configurable
from lalia.layouts import Grid
from lalia.lm.inputs import Table

__all__ = ["Linear"]


class Linear(Configurable, nn.Module):
    """A softmax over the stream's codebook, or over the whole table that it shares with other streams."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param tied: predict with the embeddings themselves (arXiv:1608.05859).
        """

        _: KW_ONLY
        tied: bool = False

    def __init__(self, config: Config, stream: str, rows_of: str, table: Table, joint: bool, dim: int) -> None:
        """
        :param rows_of: the stream whose rows of the table are predicted (itself, unless tied to another).
        :param joint: whether the softmax runs over every row of the table.
        """
        super().__init__()
        self.stream, self.rows_of, self.joint = stream, rows_of, joint
        self.vocabulary = table.vocabulary
        if config.tied:
            self.weight = table.embedding.weight
        else:
            self.weight = nn.Parameter(torch.empty(table.vocabulary.size, dim, device=table.embedding.weight.device))
            nn.init.normal_(self.weight, std=0.02)

    def scope(self, codebook: int) -> range:
        """The rows of the table over which a codebook's softmax runs."""
        return range(self.vocabulary.size) if self.joint else self.vocabulary.rows(self.rows_of, codebook)

    def logits(self, hidden: Tensor, codebook: int) -> Tensor:
        """[n, D] to [n, V] over ``scope(codebook)``."""
        rows = self.scope(codebook)
        weight = self.weight if len(rows) == len(self.weight) else self.weight[rows.start : rows.stop]
        return F.linear(hidden, weight.to(hidden.dtype))

    def nll(self, hidden: Tensor, target: Grid) -> Tensor:
        """Negative log-likelihood of every cell of the stream.

        :param hidden: [B, S, D]; step s predicts step s of ``target``.
        :returns: [B, K, S] in nats; 0 where the stream has no cell.
        """
        present, values = target.present(self.stream), target.values[self.stream]
        out = hidden.new_zeros(present.shape, dtype=torch.float32)
        for k in range(present.shape[1]):
            b, s = present[:, k].nonzero(as_tuple=True)
            shift = self.vocabulary.rows(self.rows_of, k).start - self.scope(k).start
            # Only the cells that exist go through the output matrix: no work is spent on padding.
            logits = self.logits(hidden[b, s], k).float()
            out[b, k, s] = F.cross_entropy(logits, values[b, k, s] + shift, reduction="none")
        return out
