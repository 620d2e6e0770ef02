"""What each step sees, against masks written out by hand and against a loop over pairs of steps."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.errors import ConfigError
from lalia.nn.masks import Mask, Sight


def drawn(sight: Sight, steps: int, *, lengths: int | None = None, prefix: int | None = None) -> list[str]:
    at = torch.arange(steps)[None]
    seen = sight.visible(
        at,
        at,
        lengths=None if lengths is None else torch.tensor([lengths]),
        prefix=None if prefix is None else torch.tensor([prefix]),
    )
    return ["".join("x" if v else "." for v in row) for row in seen[0].tolist()]


def test_causal() -> None:
    assert drawn(Sight(), 4) == ["x...", "xx..", "xxx.", "xxxx"]
    assert drawn(Sight(window=2), 4) == ["x...", "xx..", ".xx.", "..xx"]


def test_prefix() -> None:
    assert drawn(Sight("prefix"), 5, prefix=3) == ["xxx..", "xxx..", "xxx..", "xxxx.", "xxxxx"]
    assert drawn(Sight("prefix"), 3) == drawn(Sight(), 3)


def test_blocks() -> None:
    assert drawn(Sight("block", 2), 5) == ["xx...", "xx...", "xxxx.", "xxxx.", "xxxxx"]
    # Padding is hidden from the others, and sees itself.
    assert drawn(Sight("block", 2), 4, lengths=3) == ["xx..", "xx..", "xxx.", "xxxx"]


def test_pairs() -> None:
    assert drawn(Sight("pair"), 6) == ["x.....", ".x....", "xxx...", "xx.x..", "xxxxx.", "xxxx.x"]


def test_full() -> None:
    assert drawn(Sight("full"), 3) == ["xxx", "xxx", "xxx"]
    assert drawn(Sight("full"), 3, lengths=2) == ["xx.", "xx.", "xxx"]


@given(
    mask=st.sampled_from(get_args(Mask)),
    block=st.integers(1, 4),
    window=st.none() | st.integers(1, 6),
    steps=st.integers(1, 9),
    rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3),
)
def test_a_loop_over_pairs_of_steps_says_the_same(
    mask: Mask, block: int, window: int | None, steps: int, rows: list[tuple[int, int]]
) -> None:
    def sees(q: int, k: int, length: int, prefix: int) -> bool:
        if q == k:
            return True
        if window is not None and q - k >= window:
            return False
        match mask:
            case "causal":
                return k < q
            case "prefix":
                return k < q or k < prefix
            case "block":
                return k // block <= q // block and k < length
            case "pair":
                return k // 2 < q // 2
            case "full":
                return k < length

    at = torch.arange(steps)[None]
    lengths, prefix = (torch.tensor(values) for values in zip(*rows, strict=True))
    seen = Sight(mask, block, window).visible(at, at, lengths=lengths, prefix=prefix)
    for b, row in enumerate(seen.expand(len(rows), -1, -1).tolist()):
        assert row == [[sees(q, k, *rows[b]) for k in range(steps)] for q in range(steps)]


@pytest.mark.parametrize(
    ("sight", "start", "stop", "prefix", "message"),
    [
        (Sight("full"), [0], [4], None, "Call it without a state"),
        (Sight("block", 3), [6, 4], [9, 7], None, "after 4 steps. Give whole blocks of 3"),
        (Sight("prefix"), [0, 0], [4, 4], [4, 5], "a prefix of 5 steps"),
        (Sight("prefix"), [2], [6], [5], "a prefix of 5 steps"),
    ],
)
def test_a_pass_does_not_part_what_sees_each_other(
    sight: Sight, start: list[int], stop: list[int], prefix: list[int] | None, message: str
) -> None:
    given_prefix = None if prefix is None else torch.tensor(prefix)
    with pytest.raises(ConfigError, match=message):
        sight.check_pass(torch.tensor(start), torch.tensor(stop), given_prefix)


def test_a_pass_may_go_on() -> None:
    Sight().check_pass(torch.tensor([3, 0]), torch.tensor([4, 1]), None)
    Sight("pair").check_pass(torch.tensor([3]), torch.tensor([4]), None)
    Sight("block", 3).check_pass(torch.tensor([6, 0]), torch.tensor([7, 2]), None)
    Sight("prefix").check_pass(torch.tensor([5, 0]), torch.tensor([6, 4]), torch.tensor([5, 3]))
