"""The measures of Full-Duplex-Bench beside others that are written out."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.data import Word
from lalia.errors import DataError
from lalia.evaluation.full_duplex import backchannels, divergence, latency, spoken_in, takes_turn
from lalia.evaluation.intervals import Interval
from lalia.evaluation.overlap_handling import (
    Exchange,
    asks_again,
    behaviour_by_words,
    behaviour_shares,
    parse_behaviour,
    timing,
)

spans = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 40)), max_size=6).map(
    lambda xs: [Interval(a / 10, (a + n) / 10) for a, n in sorted(xs)]
)


def words(text: str, start: float = 0.0, each: float = 0.2) -> list[Word]:
    return [Word(w, start + i * each, start + (i + 1) * each) for i, w in enumerate(text.split())]


# -- v1 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ([], False),
        (words("mm hm"), False),
        (words("oh I see"), False),
        (words("one two three four", each=0.1), True),
        (words("well", each=1.5), True),
        (words("yes it", each=0.5), True),
        ([Word("yes", 2.0, math.nan)], False),
        ([Word("yes", 2.0, 2.5), Word("no", 3.5, math.nan)], True),
    ],
)
def test_what_takes_the_turn(said, taken) -> None:
    assert takes_turn(said) == taken
    assert (latency(said, 1.0) is not None) == taken


def test_latency_is_never_below_zero() -> None:
    said = words("that is what I think", start=3.0)
    assert latency(said, 2.5) == pytest.approx(0.5)
    assert latency(said, 4.0) == 0.0


def naive_words(segment: Interval, said: list[Word]) -> list[str]:
    """The three cases in which a word counts, one after the other."""
    found = []
    for text, a, b in said:
        within = a >= segment.start and b <= segment.end
        reaches_out = a <= segment.end and b > segment.end
        reaches_in = a <= segment.start and b > segment.start
        if within or reaches_out or reaches_in:
            found.append(text)
    return found


@given(spans, st.tuples(st.integers(0, 80), st.integers(1, 40)))
def test_words_that_touch_a_segment(said, place) -> None:
    segment = Interval(place[0] / 10, sum(place) / 10)
    listed = [Word(str(i), *x) for i, x in enumerate(said)]
    assert spoken_in(segment, listed) == naive_words(segment, listed)


def test_listening_with_short_words() -> None:
    said = [*words("mm", 1.0), *words("right", 4.0)]
    found = backchannels([Interval(1, 1.4), Interval(4, 4.5)], said, 10.0)
    assert (found.takes_turn, len(found.times), found.frequency) == (False, 2, 0.2)
    # Over three seconds is a turn, and nothing behind it is looked at.
    found = backchannels([Interval(1, 1.4), Interval(2, 6), Interval(7, 8)], said, 10.0)
    assert (found.takes_turn, len(found.times)) == (True, 1)
    # The last one says whether the turn was taken.
    long, short = Interval(1, 3), Interval(4, 4.5)
    assert backchannels([long], said, 10).takes_turn
    assert not backchannels([long, short], said, 10).takes_turn
    assert backchannels([short], words("now I say more", 4.0, 0.1), 10).takes_turn
    assert math.isnan(backchannels([], [], 0).frequency)


def naive_divergence(times: list[Interval], seconds: float, human: list[float]) -> float:
    bins = [1e-10] * (int(seconds / 0.2) + 1)
    for start, end in times:
        for i in range(int(start / 0.2), int(end / 0.2) + 1):
            if i < len(bins):
                bins[i] += 1
    stretched = []
    for i in range(len(bins)):
        at = i / (len(bins) - 1) * (len(human) - 1) if len(bins) > 1 else 0.0
        low = min(int(at), len(human) - 1)
        high = min(low + 1, len(human) - 1)
        stretched.append(human[low] + (at - low) * (human[high] - human[low]))
    p, q = ([x / sum(side) for x in side] for side in (bins, stretched))
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += (a * math.log(a / middle) if a else 0) + (b * math.log(b / middle) if b else 0)
    return math.sqrt(max(total, 0) / 2)


@given(spans.filter(bool), st.lists(st.floats(0.01, 1), min_size=1, max_size=60))
def test_divergence_agrees_with_one_written_out(times, human) -> None:
    found = divergence(times, 12.1, human)
    assert found == pytest.approx(naive_divergence(times, 12.1, human), abs=1e-6)
    assert 0 <= found <= math.sqrt(math.log(2)) + 1e-9


def test_divergence_of_the_same_and_of_nothing() -> None:
    assert divergence([], 10, [1.0]) == 1.0
    times = [Interval(1.05, 1.1)]
    own = np.zeros(51)
    own[5] = 1
    assert divergence(times, 10.0, list(own)) == pytest.approx(0, abs=1e-3)
    assert divergence(times, 10.0, list(1 - own)) == pytest.approx(math.sqrt(math.log(2)), abs=1e-2)


# -- v1.5 ---------------------------------------------------------------------------------------


def naive_timing(user: list[Interval], model: list[Interval]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Tick by tick of 0.1 s."""

    def filled(side: list[Interval], gap: int) -> list[bool]:
        on = [any(round(a * 10) <= t < round(b * 10) for a, b in side) for t in range(140)]
        spoken = [t for t, x in enumerate(on) if x]
        for a, b in itertools.pairwise(spoken):
            if b - a - 1 <= gap:
                on[a:b] = [True] * (b - a)
        return on

    mine, theirs = filled(user, 6), filled(model, 5)

    def runs(on: list[bool]) -> list[tuple[int, int]]:
        edges = [t for t in range(len(on) + 1) if (t < len(on) and on[t]) != (t > 0 and on[t - 1])]
        return list(zip(edges[::2], edges[1::2], strict=True))

    both = [(a, b) for a, b in runs([x and y for x, y in zip(mine, theirs, strict=True)])]
    response: dict[int, tuple[int, int]] = {}
    for _, end in runs(mine):
        starts = [a for a, _ in runs(theirs) if a > end]
        if starts:
            # A later end of the user's replaces an earlier one with the same reply.
            response[starts[0]] = (end, starts[0])
    return both, sorted(response.values())


@given(spans, spans)
def test_timing_agrees_with_a_count_of_ticks(user, model) -> None:
    found = timing(user, model)
    stop, response = naive_timing(user, model)
    assert [(round(a * 10), round(b * 10)) for a, b in found.stop] == stop
    assert [(round(a * 10), round(b * 10)) for a, b in found.response] == response


def test_behaviour_by_what_comes_back() -> None:
    overlap = Interval(2.0, 3.0)
    clean = words("the moon is a ball of grey rock that goes around the earth", 0.0)
    asked = words("who painted the mona lisa", 2.0)

    def judged(said: str) -> str:
        output = [*clean[:9], *words(said, 2.5)]
        return behaviour_by_words(Exchange([], asked, clean, output), overlap)

    assert judged("") == "C_UNKNOWN"
    assert judged("that goes around the earth") == "C_RESUME"
    assert judged("the mona lisa was painted by leonardo") == "C_RESPOND"
    assert judged("Pardon? I didn't catch that.") == "C_UNCERTAIN_HANDLING"
    assert judged("bananas") == "C_UNKNOWN"
    assert behaviour_shares(["C_RESUME", "C_RESUME", "C_RESPOND", "C_UNKNOWN"]) == {
        "C_RESPOND": 0.25,
        "C_RESUME": 0.5,
        "C_UNKNOWN": 0.25,
    }
    assert asks_again("Could you say that again, please?")
    assert not asks_again("Paris.")


def test_a_judge_is_read() -> None:
    assert parse_behaviour('Well: {"x": 1} {"behaviour": ["C_RESUME"]} .') == "C_RESUME"
    with pytest.raises(DataError, match="C_NEVER"):
        parse_behaviour('{"behaviour": ["C_NEVER"]}')
    with pytest.raises(DataError, match="A judge said"):
        parse_behaviour("no idea {")
    shown = json.loads(Exchange(words("hi"), [], [], []).to_json())
    assert shown["input_clean"] == {"text": "hi", "chunks": [{"text": "hi", "timestamp": [0.0, 0.2]}]}
    assert set(shown) == {"input_clean", "input_noisy", "output_clean", "output_noisy"}
