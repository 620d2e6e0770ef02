"""Long inputs through a network with a finite impulse response, in memory that does not grow with them."""

import torch
from torch import Tensor

from lalia.nn.fir import Field, FirState, Network, init_fir, run_fir

__all__ = ["BLOCK_FRAMES", "run_blocks"]

BLOCK_FRAMES = 1500
"""Half a minute at 50 Hz."""


def run_blocks(
    network: Network,
    field: Field,
    frames: Tensor,
    lengths: Tensor,
    state: FirState | None = None,
    *,
    final: bool = False,
    block: int = BLOCK_FRAMES,
) -> tuple[Tensor, Tensor]:
    """``run_fir``, which gives the same whatever pieces it gets, on one block after another."""
    if frames.shape[1] <= block:
        return run_fir(network, field, frames, lengths, state, final=final)
    if state is None:
        state, final = init_fir(field, frames, len(frames)), True
    starts = range(0, frames.shape[1], block)
    made = []
    for start in starts:
        left = (lengths - start).clamp(min=0)
        # A row that ends in this block is closed by it; one that ended before has nothing left to close.
        ends = (left <= block) if final else torch.zeros_like(left, dtype=torch.bool)
        made.append(run_fir(network, field, frames[:, start : start + block], left.clamp(max=block), state, final=ends))
    total = torch.stack([n for _, n in made]).sum(0)
    example = next((out for out, n in made if int(n.max())), made[0][0])
    joined = example.new_zeros(len(frames), int(total.max()), *example.shape[2:])
    for b in range(len(frames)):
        row = torch.cat([out[b, : int(n[b])].to(joined) for out, n in made if int(n[b])] or [joined[b, :0]])
        joined[b, : len(row)] = row
    return joined, total
