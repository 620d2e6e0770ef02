from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lalia.errors import ConfigError, LayoutError
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence, pad_batch

ROWS = st.lists(st.lists(st.integers(0, 3), max_size=20), min_size=1, max_size=4)


def units(rows: list[list[int]]) -> TokenSequence:
    """One codebook; the padding holds a code that none of the rows has."""
    longest = max(map(len, rows))
    values = torch.tensor([r + [9] * (longest - len(r)) for r in rows], dtype=torch.long)
    return TokenSequence(values.reshape(len(rows), 1, longest), torch.tensor([len(r) for r in rows]))


def lists(tokens: TokenSequence) -> list[list[int]]:
    return [tokens.row(b).values[0, 0].tolist() for b in range(len(tokens))]


# -- runs -----------------------------------------------------------------------------------------


@given(rows=ROWS)
def test_expand_is_the_inverse_of_deduplicate(rows: list[list[int]]) -> None:
    short = units(rows).deduplicate()
    assert short.durations is not None
    assert lists(short.expand()) == rows
    for b, row in enumerate(rows):
        codes = lists(short)[b]
        assert all(a != c for a, c in pairwise(codes)), "a run is left"
        durations = short.row(b).durations
        assert durations is not None
        assert durations.sum() == len(row)
        assert (durations > 0).all()
    assert short.expand().durations is None


@given(rows=ROWS)
def test_a_row_alone_is_deduplicated_as_in_a_batch(rows: list[list[int]]) -> None:
    together = units(rows).deduplicate()
    for b, row in enumerate(rows):
        alone = units([row]).deduplicate()
        assert torch.equal(together.row(b).values, alone.values)
        assert torch.equal(together.row(b).durations, alone.durations)  # type: ignore[arg-type]


def test_runs_by_hand() -> None:
    short = units([[5, 5, 5, 2, 5], [1]]).deduplicate()
    assert short.values.tolist() == [[[5, 2, 5]], [[1, 0, 0]]]
    assert short.lengths.tolist() == [3, 1]
    assert short.durations is not None
    assert short.durations.tolist() == [[3, 1, 1], [1, 0, 0]]


def test_what_has_durations_is_deduplicated_and_what_has_none_is_expanded() -> None:
    short = units([[1, 1]]).deduplicate()
    assert short.deduplicate() is short
    long = units([[1, 1]])
    assert long.expand() is long


def test_features_and_several_codebooks_are_repeated_too() -> None:
    durations = torch.tensor([[2, 0, 1]])
    codes = TokenSequence(torch.tensor([[[1, 2, 3], [4, 5, 6]]]), torch.tensor([3]), durations)
    assert codes.expand().values.tolist() == [[[1, 1, 3], [4, 4, 6]]]
    features = TokenSequence(torch.tensor([[[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]]), torch.tensor([3]), durations)
    assert features.expand().values.tolist() == [[[1.0, 4.0], [1.0, 4.0], [3.0, 6.0]]]
    assert features.expand().lengths.tolist() == [3]


def test_repeats_are_removed_from_one_codebook_only() -> None:
    with pytest.raises(LayoutError, match="not from 2 codebooks"):
        TokenSequence(torch.zeros(1, 2, 3, dtype=torch.long), torch.tensor([3])).deduplicate()
    with pytest.raises(LayoutError, match="not from features"):
        TokenSequence(torch.zeros(1, 3, 1), torch.tensor([3])).deduplicate()


# -- batches --------------------------------------------------------------------------------------


def sequence(t: int, discrete: bool, extras: bool) -> TokenSequence:
    values = torch.randint(1, 9, (1, 2, t)) if discrete else torch.randn(1, t, 3)
    more = (torch.randint(1, 5, (1, t)), torch.rand(1, t)) if extras else (None, None)
    return TokenSequence(values, torch.tensor([t]), *more)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5), discrete=st.booleans(), extras=st.booleans())
def test_rows_come_back_out_of_a_batch(lengths: list[int], discrete: bool, extras: bool) -> None:
    rows = [sequence(t, discrete, extras) for t in lengths]
    batch = pad_batch(rows)
    assert batch.discrete == discrete
    assert batch.num_tokens == max(lengths)
    assert batch.lengths.tolist() == lengths
    for b, row in enumerate(rows):
        got = batch.row(b)
        assert got.values.shape == row.values.shape
        for name in ("values", "lengths", "durations", "times"):
            assert same(getattr(got, name), getattr(row, name)), name
        padding = batch.values[b, :, lengths[b] :] if discrete else batch.values[b, lengths[b] :]
        assert not padding.any()


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    discrete=st.booleans(),
    start=st.integers(0, 12),
    size=st.none() | st.integers(-3, 12),
)
def test_cut_is_python_slicing_of_each_row(lengths: list[int], discrete: bool, start: int, size: int | None) -> None:
    rows = [sequence(t, discrete, extras=True) for t in lengths]
    stop = None if size is None else max(start + size, 0)
    part = pad_batch(rows).cut(start, stop)
    for b, row in enumerate(rows):
        got, place = part.row(b), slice(start, stop)
        assert torch.equal(got.values, row.values[:, :, place] if discrete else row.values[:, place])
        assert torch.equal(got.durations, row.durations[:, place])  # type: ignore[arg-type, index]
        assert torch.equal(got.times, row.times[:, place])  # type: ignore[arg-type, index]


def test_batches_that_cannot_be() -> None:
    with pytest.raises(LayoutError, match="no sequences"):
        pad_batch([])
    with pytest.raises(LayoutError, match="Of 2 sequences 1 have durations"):
        pad_batch([units([[1, 2]]), units([[1, 2]]).deduplicate()])
    with pytest.raises(LayoutError, match="mixes codes and features"):
        pad_batch([sequence(2, True, False), sequence(2, False, False)])


def test_shapes_are_checked() -> None:
    with pytest.raises(LayoutError, match=r"values of shape \(3, 4\)"):
        TokenSequence(torch.zeros(3, 4), torch.tensor([4]))
    with pytest.raises(LayoutError, match=r"of 2 rows has lengths of shape \(3,\)"):
        TokenSequence(torch.zeros(2, 1, 4), torch.tensor([4, 4, 4]))


def test_to_a_device_takes_everything_along() -> None:
    there = sequence(3, True, extras=True).to("meta")
    assert {t.device.type for t in (there.values, there.lengths, there.durations, there.times) if t is not None} == {
        "meta"
    }
    assert sequence(3, True, extras=False).to("cpu").durations is None


# -- what a stream holds --------------------------------------------------------------------------


def test_end_of_a_stream() -> None:
    assert (Discrete(100).end_id, Discrete(100).num_ids) == (100, 101), "one that lalia appends"
    assert (Discrete(100, end=7).end_id, Discrete(100, end=7).num_ids) == (7, 100), "one of the codebook's own"


@pytest.mark.parametrize(
    ("frame_rate", "deduplicated", "clocked"), [(50.0, False, True), (50.0, True, False), (None, False, False)]
)
def test_clock(frame_rate: float | None, deduplicated: bool, clocked: bool) -> None:
    assert StreamSpec(kind=Discrete(2), frame_rate=frame_rate, deduplicated=deduplicated).clocked is clocked


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Discrete(0), "1 codebooks of 0"),
        (lambda: Discrete(5, num_codebooks=0), "0 codebooks of 5"),
        (lambda: Discrete(5, end=5), "ends with id 5, but has ids 0 to 4"),
        (lambda: Discrete(5, end=-1), "ends with id -1"),
        (lambda: Continuous(0), "features of 0 values"),
        (lambda: StreamSpec(kind=Discrete(2), frame_rate=0.0), "frame rate of 0.0 Hz"),
        (lambda: StreamSpec(kind=Discrete(2), frame_rate=-1.0), "frame rate of -1.0 Hz"),
    ],
)
def test_streams_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
