"""How long a unit lasts, predicted from the units around it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.nn.conv import Conv
from lalia.streams import TokenSequence

__all__ = ["DurationPredictor", "interior_durations"]


class DurationPredictor(nn.Module):
    """Two convolutions and a projection, as in the unit vocoder of speech-to-speech translation.

    (FastSpeech 2, arXiv:2006.04558 §2.3; used on units by arXiv:2107.05604.)

    :param dim: width of the unit embeddings.
    :param hidden: channels of the convolutions.
    """

    def __init__(self, dim: int, hidden: int, *, kernel_size: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.first = Conv(dim, hidden, kernel_size)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = Conv(hidden, hidden, kernel_size)
        self.second_norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, 1)
        self.dropout = dropout
        self.reach = self.first.past + self.second.past
        """Tokens seen on either side."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, T, D] -> log(1 + frames) [B, T]; tokens that are not ``valid`` [B, T] are as if not there."""
        there = 1.0 if valid is None else valid[..., None].to(x.dtype)
        x = F.dropout(self.first_norm(F.relu(self.first(x * there))), self.dropout, self.training) * there
        x = F.dropout(self.second_norm(F.relu(self.second(x))), self.dropout, self.training)
        return self.out(x).squeeze(-1)

    def frames(self, x: Tensor) -> Tensor:
        """[B, T, D] -> whole frames [B, T], at least one each."""
        return torch.round(torch.expm1(self(x).float())).long().clamp(min=1)


def interior_durations(units: TokenSequence) -> tuple[TokenSequence, Tensor]:
    """The runs of each row, and a mask [B, T] of those whose true length is known.

    A segment cut out of speech cuts its first and last run too, so these two teach nothing.
    """
    runs = units.deduplicate()
    place = torch.arange(runs.num_tokens, device=runs.lengths.device)
    return runs, (place > 0) & (place < runs.lengths[:, None] - 1)
