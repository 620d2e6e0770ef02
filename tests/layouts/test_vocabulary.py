"""Rows of a table: every id of every codebook has one of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.layouts import Vocabulary
from lalia.streams import Discrete

kinds = st.dictionaries(
    st.sampled_from("abcdefg"),
    st.builds(Discrete, st.integers(1, 30), num_codebooks=st.integers(1, 4), end=st.one_of(st.none(), st.just(0))),
    min_size=1,
)


@given(kinds)
def test_every_id_has_a_row_of_its_own(streams: dict[str, Discrete]) -> None:
    vocabulary = Vocabulary(streams)
    rows = [
        row for name, kind in streams.items() for k in range(kind.num_codebooks) for row in vocabulary.rows(name, k)
    ]
    assert sorted(rows) == list(range(vocabulary.size))
    for name, kind in streams.items():
        assert all(len(vocabulary.rows(name, k)) == kind.num_ids for k in range(kind.num_codebooks))
        starts = [vocabulary.rows(name, k).start for k in range(kind.num_codebooks)]
        assert vocabulary.offsets(name).tolist() == starts


@given(kinds)
def test_a_row_tells_what_it_is(streams: dict[str, Discrete]) -> None:
    vocabulary = Vocabulary(streams)
    for row in range(vocabulary.size):
        name, codebook, i = vocabulary.decode(row)
        assert vocabulary.rows(name, codebook)[i] == row
    with pytest.raises(IndexError, match=str(vocabulary.size)):
        vocabulary.decode(vocabulary.size)


@given(kinds, st.randoms(use_true_random=False), st.sampled_from("abcdefg"))
def test_the_order_of_a_mapping_means_nothing(streams: dict[str, Discrete], random: object, first: str) -> None:
    names = list(streams)
    random.shuffle(names)  # type: ignore[attr-defined]
    one, other = Vocabulary(streams, first=first), Vocabulary({n: streams[n] for n in names}, first=first)
    for name, kind in streams.items():
        for k in range(kind.num_codebooks):
            assert one.rows(name, k) == other.rows(name, k)


@given(kinds)
def test_the_first_stream_keeps_its_numbers(streams: dict[str, Discrete]) -> None:
    for name in streams:
        assert Vocabulary(streams, first=name).rows(name, 0).start == 0
