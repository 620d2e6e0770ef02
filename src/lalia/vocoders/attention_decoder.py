"""Tacotron 2's decoder: location-sensitive attention and two LSTMs, one mel frame per step."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AttentionDecoder"]

_LOCATION_FILTERS, _LOCATION_KERNEL = 32, 31
"""arXiv:1712.05884 §2.2."""


@dataclass
class _Step:
    """What one step hands to the next."""

    attention: tuple[Tensor, Tensor]
    decoder: tuple[Tensor, Tensor]
    weights: Tensor
    total: Tensor
    context: Tensor


class _LocationAttention(nn.Module):
    """Additive attention that sees where it looked before (arXiv:1506.07503)."""

    def __init__(self, query_dim: int, memory_dim: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_dim, dim, bias=False)
        self.memory = nn.Linear(memory_dim, dim, bias=False)
        self.location = nn.Conv1d(2, _LOCATION_FILTERS, _LOCATION_KERNEL, padding=_LOCATION_KERNEL // 2, bias=False)
        self.location_out = nn.Linear(_LOCATION_FILTERS, dim, bias=False)
        self.energy = nn.Linear(dim, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor, weights: Tensor, total: Tensor) -> Tensor:
        location = self.location_out(self.location(torch.stack([weights, total], dim=1)).transpose(1, 2))
        energy = self.energy(torch.tanh(self.query(query)[:, None] + keys + location)).squeeze(-1)
        return torch.softmax(energy.float().masked_fill(~mask, -torch.inf), dim=-1)


class AttentionDecoder(nn.Module):
    """Encoded units [B, T, memory_dim] to mel frames and stop logits (arXiv:1712.05884 §2.2).

    :param bins: mel bands.
    :param dim: of the LSTMs.
    :param dropout: on the LSTMs' outputs while training, in place of the paper's zoneout.
    :param prenet_dropout: on the layers before the LSTMs, always: without it the decoder does not attend.
    """

    def __init__(
        self,
        bins: int,
        memory_dim: int,
        *,
        prenet_dim: int,
        dim: int,
        attention_dim: int,
        dropout: float = 0.1,
        prenet_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.prenet = nn.ModuleList(
            [nn.Linear(bins, prenet_dim, bias=False), nn.Linear(prenet_dim, prenet_dim, bias=False)]
        )
        self.attention_lstm = nn.LSTMCell(prenet_dim + memory_dim, dim)
        self.attention = _LocationAttention(dim, memory_dim, attention_dim)
        self.lstm = nn.LSTMCell(dim + memory_dim, dim)
        self.frame = nn.Linear(dim + memory_dim, bins)
        self.stop = nn.Linear(dim + memory_dim, 1)
        self.bins, self.dim, self.dropout, self.prenet_dropout = bins, dim, dropout, prenet_dropout

    def _start(self, memory: Tensor) -> _Step:
        batch, tokens, _ = memory.shape
        zero = memory.new_zeros(batch, self.dim)
        weights = memory.new_zeros(batch, tokens)
        return _Step((zero, zero), (zero, zero), weights, weights, memory.new_zeros(batch, memory.shape[-1]))

    def _next(self, x: Tensor, step: _Step, memory: Tensor, keys: Tensor, mask: Tensor) -> tuple[_Step, Tensor]:
        attention = self.attention_lstm(torch.cat([x, step.context], dim=-1), step.attention)
        query = F.dropout(attention[0], self.dropout, self.training)
        weights = self.attention(query, keys, mask, step.weights, step.total)
        context = (weights[:, None].to(memory.dtype) @ memory)[:, 0]
        decoder = self.lstm(torch.cat([query, context], dim=-1), step.decoder)
        hidden = torch.cat([F.dropout(decoder[0], self.dropout, self.training), context], dim=-1)
        # The recurrence goes on from what dropout left, as in the reference implementation.
        after = _Step(
            (query, attention[1]), (hidden[:, : self.dim], decoder[1]), weights, step.total + weights, context
        )
        return after, hidden

    def forward(self, memory: Tensor, mask: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing.

        :param memory: [B, T, D]; ``mask`` [B, T] is true where it is valid.
        :param frames: the true mel frames [B, M, bins].
        :returns: frames [B, M, bins] and stop logits [B, M].
        """
        x = F.pad(frames, (0, 0, 1, 0))[:, :-1]
        for layer in self.prenet:
            x = F.dropout(F.relu(layer(x)), self.prenet_dropout, training=True)
        keys, step, hidden = self.attention.memory(memory), self._start(memory), []
        for t in range(x.shape[1]):
            step, out = self._next(x[:, t], step, memory, keys, mask)
            hidden.append(out)
        stacked = torch.stack(hidden, dim=1)
        return self.frame(stacked), self.stop(stacked).squeeze(-1)

    def generate(self, memory: Tensor, mask: Tensor, *, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Frames [B, bins] and stop probabilities [B], one step at a time, without end.

        The dropout of a step is the same for every row, so that a row does not depend on the others.
        """
        chance = torch.Generator().manual_seed(seed)
        keys, step = self.attention.memory(memory), self._start(memory)
        frame = memory.new_zeros(len(memory), self.bins)
        while True:
            x = frame
            for layer in self.prenet:
                x = F.relu(layer(x))
                keep = torch.rand(x.shape[-1], generator=chance) >= self.prenet_dropout
                x = x * keep.to(x) / (1 - self.prenet_dropout)
            step, hidden = self._next(x, step, memory, keys, mask)
            frame = self.frame(hidden)
            yield frame, torch.sigmoid(self.stop(hidden).squeeze(-1).float())
