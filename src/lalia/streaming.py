"""Streaming state is a value.

A module that can work on a sound as it arrives takes ``state`` as an argument and updates it in place;
``None`` means the whole input is there (offline). The state is a tree of tensors whose first axis is
the batch row, so one model serves many sessions at once, rows join and leave, and a voice prompt is a
state that was exported.
"""

from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

__all__ = ["RowStates", "State", "Streaming", "put_rows", "reset_rows", "select_rows"]

S = TypeVar("S", bound="State")


@dataclass
class State:
    """The base of every state: a dataclass of tensors [B, ...], other states, and lists of either.

    Fields of any other type (numbers, flags) belong to all rows and are kept as they are. A state that
    keeps its rows in another way says so in ``select`` and ``reset``.
    """

    def select(self, rows: Tensor) -> Self:
        """The given rows [n] of this state."""
        return type(self)(**{f.name: _select(getattr(self, f.name), rows) for f in fields(self)})

    def reset(self, fresh: Self, rows: Tensor) -> Self:
        """This state with the rows where the mask [B] is true taken from ``fresh``."""
        return type(self)(**{f.name: _merge(getattr(self, f.name), getattr(fresh, f.name), rows) for f in fields(self)})


@dataclass
class RowStates(State):
    """States of one row each, side by side as one batch, each of them where it is: nothing is copied when rows come
    and go, and each has its own size.

    What takes it updates the states in place.
    """

    rows: list[Any]

    def select(self, rows: Tensor) -> Self:
        return type(self)([self.rows[i] for i in rows.tolist()])

    def reset(self, fresh: Self, rows: Tensor) -> Self:
        pairs = zip(self.rows, fresh.rows, rows.tolist(), strict=True)
        return type(self)([new if picked else old for old, new, picked in pairs])


class Streaming(Protocol):
    """What can work on a stream as it comes."""

    def init_state(self, batch_size: int) -> State:
        """The state before the first frame, for ``batch_size`` rows."""
        ...


def select_rows(state: S, rows: Tensor) -> S:
    """The given batch rows of a state, in that order; a row may be taken twice."""
    return _select(state, rows)


def _select(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, rows.to(value.device)) if value.ndim else value
    if isinstance(value, State):
        return value.select(rows)
    if isinstance(value, list | tuple):
        return type(value)(_select(v, rows) for v in value)
    if isinstance(value, dict):
        return {k: _select(v, rows) for k, v in value.items()}
    return value


def reset_rows(state: S, fresh: S, rows: Tensor) -> S:
    """``state`` with the rows where the boolean mask ``rows`` [B] is true taken from ``fresh``."""
    return state.reset(fresh, rows)


def _merge(old: Any, new: Any, rows: Tensor) -> Any:
    if isinstance(old, Tensor) and old.ndim:
        mask = rows.to(old.device).view(-1, *[1] * (old.ndim - 1))
        return torch.where(mask, new.to(old.dtype), old)
    if isinstance(old, State):
        return old.reset(new, rows)
    if isinstance(old, list | tuple):
        return type(old)(_merge(a, b, rows) for a, b in zip(old, new, strict=True))
    if isinstance(old, dict):
        return {k: _merge(v, new[k], rows) for k, v in old.items()}
    return old


def put_rows(state: S, part: S, rows: Tensor) -> None:
    """The inverse of ``select_rows``: give ``state``, in place, the rows [n] that ``part`` holds of it.

    Both have tensors of one shape but for the number of rows.
    """
    for f in fields(state):
        setattr(state, f.name, _put(getattr(state, f.name), getattr(part, f.name), rows))


def _put(old: Any, new: Any, rows: Tensor) -> Any:
    if isinstance(old, Tensor) and old.ndim:
        return old.index_copy(0, rows.to(old.device), new.to(old))
    if isinstance(old, State):
        put_rows(old, new, rows)
    elif isinstance(old, list | tuple):
        return type(old)(_put(a, b, rows) for a, b in zip(old, new, strict=True))
    return old
