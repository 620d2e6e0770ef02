"""Exact streaming of any network with a finite impulse response.

A network whose output at frame ``t`` depends only on frames ``t - left`` to ``t + right`` can be run on
pieces: each piece is computed together with the ``left`` frames before it, and the last ``right`` frames
are withheld until their future is known. What is near an artificial edge is discarded and a true edge
(the start or the end of the stream) is seen by the network as it would be offline, zero padding
included, so the pieces join to the offline output exactly. No layer has to know about streaming.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.streaming import State

__all__ = ["Field", "FirState", "Network", "init_fir", "run_fir"]

Network = Callable[[Tensor, Tensor], Tensor]
"""``network(frames [R, T, ...], rows [R]) -> [R, T * hop, ...]``; ``rows`` says which batch rows these are."""


@dataclass(frozen=True)
class Field:
    """What a network sees and makes: ``left`` and ``right`` in frames, ``hop`` outputs per frame."""

    left: int
    right: int
    hop: int


@dataclass
class FirState(State):
    """The frames a network still needs.

    ``frames`` [B, left + right, ...], right-aligned; ``kept`` [B] of them are valid, of which the last
    ``pending`` [B] are not yet emitted.
    """

    frames: Tensor
    kept: Tensor
    pending: Tensor


def init_fir(field: Field, like: Tensor, batch_size: int) -> FirState:
    """The state before the first frame.

    :param like: any tensor [?, ?, ...] with the trailing shape, type and device of the frames.
    """
    none = torch.zeros(batch_size, dtype=torch.long, device=like.device)
    frames = torch.zeros(batch_size, field.left + field.right, *like.shape[2:], dtype=like.dtype, device=like.device)
    return FirState(frames, none, none.clone())


def run_fir(
    network: Network,
    field: Field,
    frames: Tensor,
    lengths: Tensor,
    state: FirState | None = None,
    *,
    final: bool | Tensor = False,
) -> tuple[Tensor, Tensor]:
    """Feed new frames, get the outputs that no later frame can change.

    Rows are independent: each has its own history, and may get any number of new frames, also none.
    Rows in the same situation are computed as one batch.

    :param frames: [B, T, ...] new frames.
    :param lengths: [B] how many of them are valid.
    :param state: updated in place; None when the input is whole.
    :param final: the stream ends here (for all rows, or a mask [B]): emit the rest and start anew.
    :returns: the outputs [B, M, ...], padded with zeros, and their lengths [B] (in outputs, not frames).
    """
    batch = frames.shape[0]
    if state is None:
        state, final = init_fir(field, frames, batch), True
    ends = torch.full((batch,), final) if isinstance(final, bool) else final.cpu()
    groups: dict[tuple[int, int, int, bool], list[int]] = {}
    plan = zip(state.kept.tolist(), state.pending.tolist(), lengths.tolist(), ends.tolist(), strict=True)
    for b, situation in enumerate(plan):
        groups.setdefault(situation, []).append(b)

    made: list[tuple[Tensor, Tensor]] = []
    emitted = torch.zeros(batch, dtype=torch.long)
    for (kept, pending, new, end), members in groups.items():
        rows = torch.tensor(members, device=frames.device)
        capacity = state.frames.shape[1]
        window = torch.cat([state.frames[rows, capacity - kept :], frames[rows, :new]], dim=1)
        ready = max(pending + new - (0 if end else field.right), 0)
        if ready:
            out = network(window, rows)
            start = (kept - pending) * field.hop
            made.append((rows, out[:, start : start + ready * field.hop]))
            emitted[members] = ready * field.hop
        if end:
            state.kept[rows] = state.pending[rows] = 0
            continue
        left = pending + new - ready
        keep = min(field.left + left, window.shape[1])
        if keep:
            state.frames[rows, capacity - keep :] = window[:, window.shape[1] - keep :]
        state.kept[rows], state.pending[rows] = keep, left

    if len(made) == 1 and len(made[0][0]) == batch:
        return made[0][1], emitted.to(frames.device)
    if not made:
        # The output's type and trailing shape are the network's own, and it has not run.
        return frames.new_zeros(batch, 0, dtype=torch.float32), emitted.to(frames.device)
    first = made[0][1]
    outputs = first.new_zeros(batch, int(emitted.max()), *first.shape[2:])
    for rows, out in made:
        outputs[rows, : out.shape[1]] = out
    return outputs, emitted.to(frames.device)
