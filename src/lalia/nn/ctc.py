"""CTC (Graves et al. 2006): the loss of a text along more steps than it has symbols, and the text of labels.

Shapes: B batch, S steps, T symbols, V symbols with the blank.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["collapse", "ctc_loss"]


def ctc_loss(logits: Tensor, steps: Tensor, symbols: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """The loss, summed over rows.

    A row of more symbols than steps cannot be aligned: it counts, but has no gradient.

    :param logits: [B, S, V], of which ``steps`` [B] are valid.
    :param symbols: [B, T], of which ``lengths`` [B] are valid.
    """
    loss = F.ctc_loss(
        logits.float().log_softmax(dim=-1).transpose(0, 1),
        symbols,
        steps,
        lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return loss.sum()


def collapse(labels: Tensor, lengths: Tensor, last: Tensor, blank: int) -> list[Tensor]:
    """The symbols of each row: labels [B, S] without repeats and blanks.

    :param lengths: valid steps of each row.
    :param last: [B], the last label of each row before these, blank where nothing came yet; updated in place, so that
        pieces give what the whole gives.
    """
    rows = []
    for b, n in enumerate(lengths.tolist()):
        row = torch.cat([last[b : b + 1], labels[b, :n]])
        rows.append(row[1:][(row[1:] != row[:-1]) & (row[1:] != blank)])
        last[b] = row[-1]
    return rows
