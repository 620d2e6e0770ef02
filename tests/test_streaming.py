from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lalia.streaming import RowStates, State, reset_rows, select_rows


@dataclass
class Leaf(State):
    x: Tensor
    steps: int = 0


@dataclass
class Odd(State):
    """Keeps its rows in a list."""

    names: list[str]

    def select(self, rows: Tensor) -> "Odd":
        return Odd([self.names[int(i)] for i in rows])

    def reset(self, fresh: "Odd", rows: Tensor) -> "Odd":
        return Odd([n if r else o for o, n, r in zip(self.names, fresh.names, rows.tolist(), strict=True)])


@dataclass
class Tree(State):
    leaf: Leaf
    leaves: list[Leaf]
    pair: tuple[Tensor, Leaf]
    named: dict[str, Any]
    odd: Odd
    scalar: Tensor = field(default_factory=lambda: torch.tensor(3.0))
    flag: bool = True
    nothing: Tensor | None = None


def tree(b: int, offset: int = 0) -> Tree:
    """Everywhere, row i holds offset + i."""
    row = torch.arange(b) + offset

    def leaf(*shape: int) -> Leaf:
        return Leaf(row.view(b, *[1] * len(shape)).expand(b, *shape).clone(), steps=offset)

    return Tree(
        leaf(),
        [leaf(2), leaf(3, 4)],
        (row.clone(), leaf(1)),
        {"a": row.float(), "b": [leaf()]},
        Odd([str(int(i)) for i in row]),
    )


def rows_of(state: Tree) -> list[list[int]]:
    """What each part of a state says its rows are."""
    tensors = (
        state.leaf.x, *(s.x for s in state.leaves), state.pair[0], state.pair[1].x, state.named["a"],
        state.named["b"][0].x,
    )  # fmt: skip
    for t in tensors:
        assert (t.reshape(len(t), -1) == t.reshape(len(t), -1)[:, :1]).all()
    return [t.reshape(len(t), -1)[:, 0].long().tolist() for t in tensors] + [[int(n) for n in state.odd.names]]


@given(b=st.integers(1, 5), data=st.data())
def test_select_takes_the_same_rows_of_every_part(b: int, data: st.DataObject) -> None:
    picked = data.draw(st.lists(st.integers(0, b - 1), min_size=1, max_size=7))
    state = tree(b)
    got = select_rows(state, torch.tensor(picked))
    assert all(rows == picked for rows in rows_of(got))
    assert type(got.pair) is tuple
    assert (got.scalar.item(), got.flag, got.nothing, got.leaf.steps) == (3.0, True, None, 0)
    assert all(rows == list(range(b)) for rows in rows_of(state)), "the old state stays"


@given(mask=st.lists(st.booleans(), min_size=1, max_size=5))
def test_reset_takes_the_masked_rows_of_every_part_from_the_fresh_state(mask: list[bool]) -> None:
    old, fresh = tree(len(mask), offset=10), tree(len(mask), offset=100)
    got = reset_rows(old, fresh, torch.tensor(mask))
    expected = [(100 if m else 10) + i for i, m in enumerate(mask)]
    assert all(rows == expected for rows in rows_of(got))
    assert (got.leaf.steps, got.flag, got.nothing) == (10, True, None)


def test_types_are_kept() -> None:
    got = reset_rows(Leaf(torch.zeros(2, dtype=torch.bfloat16)), Leaf(torch.ones(2)), torch.tensor([True, False]))
    assert got.x.dtype == torch.bfloat16
    assert got.x.tolist() == [1.0, 0.0]


def test_states_of_another_shape_do_not_pass() -> None:
    old, fresh = tree(2), tree(2)
    fresh.leaves.pop()
    with pytest.raises(ValueError, match="zip"):
        reset_rows(old, fresh, torch.tensor([True, False]))


def test_states_side_by_side_are_picked_and_not_copied() -> None:
    states = RowStates([tree(1, i) for i in range(3)])
    picked = select_rows(states, torch.tensor([2, 0]))
    assert [a is b for a, b in zip(picked.rows, (states.rows[2], states.rows[0]), strict=True)] == [True, True]
    fresh = RowStates([tree(1, 10 + i) for i in range(3)])
    got = reset_rows(states, fresh, torch.tensor([False, True, False]))
    assert [rows_of(row)[0] for row in got.rows] == [[0], [11], [2]]
