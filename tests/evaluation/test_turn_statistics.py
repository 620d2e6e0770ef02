"""Turn statistics beside a count of ticks."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.intervals import Speech
from lalia.evaluation.turn_statistics import TurnStatistics, dialogue_statistics, turn_events, turn_statistics
from loud import Loud

TICK = 1 / 16  # no rounding
sides = st.lists(st.booleans(), min_size=40, max_size=80)


def intervals(ticks: list[bool]) -> list[tuple[float, float]]:
    return [(i * TICK, (i + 1) * TICK) for i, on in enumerate(ticks) if on]


def naive(first: list[bool], second: list[bool]) -> dict[str, list[int]]:
    """Tick by tick: silences of up to three are filled, then runs of the same state are read off."""
    filled = []
    for side in (first, second):
        on = list(side)
        spoken = [i for i, x in enumerate(side) if x]
        for a, b in itertools.pairwise(spoken):
            if b - a - 1 <= 3:
                on[a:b] = [True] * (b - a)
        filled.append(on)
    states = list(zip(*filled, strict=True))
    found: dict[str, list[int]] = {"ipu": [], "pause": [], "gap": [], "overlap": []}
    for on in filled:
        found["ipu"] += [len(list(run)) for x, run in itertools.groupby(on) if x]
    at = 0
    for state, run in itertools.groupby(states):
        n = len(list(run))
        if state == (True, True):
            found["overlap"].append(n)
        if state == (False, False) and at > 0 and at + n < len(states):
            before, after = states[at - 1], states[at + n]
            same = any(b and a for b, a in zip(before, after, strict=True))
            found["pause" if same else "gap"].append(n)
        at += n
    return found


@given(sides, sides)
def test_events_are_those_of_a_count_of_ticks(first, second) -> None:
    n = min(len(first), len(second))
    first, second = first[:n], second[:n]
    found = turn_events(intervals(first), intervals(second))
    expected = naive(first, second)
    assert {k: sorted(round(x.seconds / TICK) for x in v) for k, v in found.items()} == {
        k: sorted(v) for k, v in expected.items()
    }


@given(sides, sides)
def test_who_is_first_does_not_matter(first, second) -> None:
    a, b = intervals(first), intervals(second)
    assert turn_events(a, b) == turn_events(b, a)


def test_rates_are_per_minute() -> None:
    # A speaks twice with a pause, B answers over its end; after a gap A speaks again.
    found = turn_statistics([(1, 2), (2.5, 4), (7, 8)], [(3.5, 6)], 30.0)
    assert {k: found.count(k) for k in ("ipu", "pause", "gap", "overlap")} == {
        "ipu": 4,
        "pause": 1,
        "gap": 1,
        "overlap": 1,
    }
    assert found.per_minute("ipu") == 8
    assert found.seconds_per_minute("ipu") == pytest.approx(12)
    assert found.seconds_per_minute("pause") == pytest.approx(1)
    assert found.to_dict()["gap_seconds_per_minute"] == pytest.approx(2)


def test_dialogues_together_and_apart() -> None:
    one, two = turn_statistics([(0, 1)], [(2, 3)], 10), turn_statistics([(0, 5)], [], 20)
    both = TurnStatistics.together([one, two])
    assert both.seconds == 30
    assert both.count("ipu") == 3
    assert both.per_minute("gap") == 2
    assert both.away_from(both) == dict.fromkeys(both.away_from(one), 0.0)
    assert one.away_from(two)["gap_per_minute"] == 6
    assert math.isnan(turn_statistics([], [], 0).per_minute("ipu"))


def test_a_recording_of_two_channels() -> None:
    samples = torch.zeros(2, 16_000 * 6)
    samples[0, 16_000:32_000] = samples[1, 40_000:64_000] = 0.9
    found = dialogue_statistics(Audio(samples, 16_000), Speech(Loud(), padding=0.0))
    assert found.count("ipu") == 2
    assert found.events["gap"] == [pytest.approx(0.5)]
    with pytest.raises(DataError, match="1 channels"):
        dialogue_statistics(Audio(samples[:1], 16_000))
