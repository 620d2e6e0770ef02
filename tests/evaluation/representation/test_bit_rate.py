import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, DataError
from lalia.evaluation.representation import measured_bit_rate, nominal_bit_rate
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence


def tokens(*codebooks):
    return TokenSequence(torch.tensor([codebooks]), torch.tensor([len(codebooks[0])]))


def entropy(symbols):
    return -sum(n / len(symbols) * math.log2(n / len(symbols)) for n in Counter(symbols).values())


def test_nominal():
    assert nominal_bit_rate(StreamSpec(kind=Discrete(2048, 8), frame_rate=12.5)) == 1100  # Mimi
    assert nominal_bit_rate(StreamSpec(kind=Discrete(1024, 8), frame_rate=75)) == 6000  # EnCodec at 6 kbit/s
    for spec in (StreamSpec(kind=Continuous(4), frame_rate=50), StreamSpec(kind=Discrete(4), frame_rate=None)):
        with pytest.raises(ConfigError, match="A bit rate is that of codes with a clock"):
            nominal_bit_rate(spec)


def test_worked_example():
    """Four symbols, equally often: 2 bits, 8 of them in 4 s."""
    found = measured_bit_rate([tokens([0, 1, 2, 3]), tokens([0, 1, 2, 3])], [1.0, 3.0])
    assert found.codes.value == 4
    assert found.with_durations is None
    assert (found.tokens, found.seconds) == (8, 4.0)
    assert measured_bit_rate([tokens([5, 5, 5])], [1.0]).codes.value == 0


codes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=30)


@given(st.lists(codes, min_size=1, max_size=6), st.floats(0.5, 3))
@settings(max_examples=60, deadline=None)
def test_as_defined(recordings, seconds):
    streams = [tokens([a for a, _ in r], [b for _, b in r]) for r in recordings]
    found = measured_bit_rate(streams, [seconds] * len(streams))
    n, d = sum(map(len, recordings)), seconds * len(recordings)
    expected = n / d * sum(entropy([pair[k] for r in recordings for pair in r]) for k in (0, 1))
    assert found.codes.value == pytest.approx(expected, abs=1e-9)
    # The bits of the machine's tables are no more than the codebooks have.
    assert found.codes.value <= n / d * (2 + math.log2(10)) + 1e-9


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30), min_size=2, max_size=5))
@settings(max_examples=60, deadline=None)
def test_durations(recordings):
    streams = [tokens(r).deduplicate() for r in recordings]
    found = measured_bit_rate(streams, [1.0] * len(streams))
    symbols = [pair for s in streams for pair in zip(s.values[0, 0].tolist(), s.durations[0].tolist(), strict=True)]
    rate = len(symbols) / len(streams)
    assert found.codes.value == pytest.approx(rate * entropy([c for c, _ in symbols]), abs=1e-9)
    assert found.with_durations.value == pytest.approx(rate * entropy(symbols), abs=1e-9)
    assert found.with_durations.value >= found.codes.value - 1e-9
    assert found.codes.low <= found.codes.value <= found.codes.high


def test_refusals():
    one = tokens([0, 1])
    with pytest.raises(DataError, match="There are 0 recordings and 0 lengths"):
        measured_bit_rate([], [])
    with pytest.raises(DataError, match="There are 1 recordings and 2 lengths"):
        measured_bit_rate([one], [1.0, 2.0])
    with pytest.raises(DataError, match=r"A recording lasts 0\.0 s"):
        measured_bit_rate([one], [0.0])
    with pytest.raises(DataError, match="are no codes"):
        measured_bit_rate([one, tokens([0], [1])], [1.0, 1.0])
    with pytest.raises(DataError, match="are no codes"):
        measured_bit_rate([TokenSequence(torch.zeros(1, 3, 4), torch.tensor([3]))], [1.0])
    with pytest.raises(DataError, match="There are no codes"):
        measured_bit_rate([TokenSequence(torch.zeros(1, 1, 0, dtype=torch.long), torch.tensor([0]))], [1.0])
    with pytest.raises(DataError, match="Only some recordings have durations"):
        measured_bit_rate([one, one.deduplicate()], [1.0, 1.0])
