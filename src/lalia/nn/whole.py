"""Collecting a stream until it ends, for what can only work on the whole of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.streaming import State
from lalia.streams import TokenSequence

__all__ = ["WholeState", "collect", "init_whole"]


@dataclass
class WholeState(State):
    """What came so far: ``frames`` [B, C, ...], of which ``lengths`` [B] are valid."""

    frames: Tensor
    lengths: Tensor


def init_whole(like: Tensor, batch_size: int) -> WholeState:
    """Nothing yet.

    :param like: any tensor [?, ?, ...] with the trailing shape, type and device of the frames.
    """
    # Room for one frame, so that a fresh row broadcasts into a state that has grown.
    frames = torch.zeros(batch_size, 1, *like.shape[2:], dtype=like.dtype, device=like.device)
    return WholeState(frames, torch.zeros(batch_size, dtype=torch.long, device=like.device))


def collect(tokens: TokenSequence, state: WholeState, *, final: bool) -> TokenSequence | None:
    """Add tokens to the state; at the end take all of them out, before that nothing (None)."""
    new = tokens.values.transpose(1, 2) if tokens.discrete else tokens.values
    total = state.lengths + tokens.lengths
    place = torch.arange(new.shape[1], device=new.device)
    rows, columns = torch.nonzero(place < tokens.lengths[:, None], as_tuple=True)
    room = int(total.max()) - state.frames.shape[1]
    if room > 0:
        # Twice the need, so that copying stays in proportion to what is collected.
        extra = state.frames.new_zeros(len(new), room + int(total.max()), *state.frames.shape[2:])
        state.frames = torch.cat([state.frames, extra], dim=1)
    state.frames[rows, state.lengths[rows] + columns] = new[rows, columns].to(state.frames.dtype)
    state.lengths = total
    if not final:
        return None
    whole = state.frames[:, : int(total.max())]
    fresh = init_whole(state.frames, len(new))
    state.frames, state.lengths = fresh.frames, fresh.lengths
    return TokenSequence(whole.transpose(1, 2) if tokens.discrete else whole, total)
