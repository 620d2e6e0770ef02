"""Rows of different lengths through a streaming network that takes equal ones, in memory that does not grow.

Shapes: B batch, C channels, T frames.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lalia.streaming import State, put_rows, select_rows

__all__ = ["StreamingNetwork", "run_rows"]


class StreamingNetwork(Protocol):
    """What gives the same in pieces as in one: [n, C, T] -> [n, C', T']."""

    def init_state(self, batch_size: int) -> State: ...
    def __call__(self, x: Tensor, state: State | None = None, *, final: bool = False) -> Tensor: ...


def run_rows(
    network: StreamingNetwork,
    x: Tensor,
    lengths: Sequence[int],
    state: State | None = None,
    *,
    final: bool = False,
    block: int,
    channels: int,
) -> list[Tensor]:
    """Each row by itself, those of one length as one batch.

    :param x: [B, C, T].
    :param lengths: of the rows, in frames.
    :param state: of all rows, updated in place; None when the input is whole.
    :param final: all rows end here.
    :param block: most frames at once; what is longer goes through in blocks, as a stream.
    :param channels: C', of what the network gives.
    :returns: what each row gave, [C', T'].
    """
    groups: dict[int, list[int]] = {}
    for b, length in enumerate(lengths):
        groups.setdefault(length, []).append(b)
    made: dict[int, Tensor] = {}
    for length, members in groups.items():
        if not length and not (final and state is not None):
            continue
        everyone = len(members) == len(x)
        rows = torch.tensor(members, device=x.device)
        part = x if everyone else x[rows]
        kept: State | None = None
        if state is not None:
            kept = state if everyone else select_rows(state, rows)
        out = _run(network, part[:, :, :length], kept, final=final or state is None, block=block)
        if state is not None and kept is not None and not everyone:
            put_rows(state, kept, rows)
        made.update(zip(members, out, strict=True))
    return [made[b] if b in made else x.new_zeros(channels, 0) for b in range(len(x))]


def _run(network: StreamingNetwork, x: Tensor, state: State | None, *, final: bool, block: int) -> Tensor:
    if x.shape[2] <= block:
        return network(x, state, final=final)
    kept = network.init_state(len(x)) if state is None else state
    starts = range(0, x.shape[2], block)
    return torch.cat(
        [network(x[:, :, i : i + block], kept, final=final and i + block >= x.shape[2]) for i in starts], dim=2
    )
