"""What two sides decide, from where they speak: against the rules step by step, and on worked dialogues."""

from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.evaluation.intervals import Interval, merged
from lalia.evaluation.talking_turns import decided


def naive_states(own: list[Interval], other: list[Interval], seconds: float, longest: float) -> list[str]:
    states = []
    for k in range(int((seconds - 0.2 + 1e-9) / 0.04)):
        end = round(0.2 + 0.04 * (k + 1), 2)
        there = [i for i, x in enumerate(own) if x.start - 0.04 <= end + 1e-9 and end < x.end - 1e-9]
        kinds = set()
        for i in there:
            x = own[i]
            before_own = [o.end for o in own if o.end <= x.start]
            before_other = [o.end for o in other if o.end <= x.start]
            floor = any(o.start <= x.start < o.end for o in other) or (
                bool(before_other) and max(before_other) > max(before_own, default=-1)
            )
            again = own[i + 1].start if i + 1 < len(own) else 1e9
            short = x.seconds <= longest + 1e-9
            kinds.add("BC" if short and floor and any(o.end > x.end and o.start < again for o in other) else "IPU")
        states.append("BC" if "BC" in kinds else "IPU" if kinds else "NA")
    return states


def naive_labels(a: list[str], b: list[str]) -> list[tuple[str, str]]:
    rows, floor = [], "NA"
    for one, two in zip(a, b, strict=True):
        before = floor
        if one == two == "NA":
            label = "NA"
        elif one == two == "BC":
            label = "BC_2"
        elif one == two == "IPU":
            label = "I"
            if floor not in ("AB", "BA"):
                floor = "AB" if floor == "A" else "BA"
        elif "BC" in (one, two):
            held = ("B", "BA") if one == "BC" else ("A", "AB")
            label = "BC" if floor in held else "BC_1"
        else:
            who, meets = ("A", "AB") if one == "IPU" else ("B", "BA")
            label = "C" if floor in (who, meets) else "T"
            floor = who
        rows.append((label, before))
    return rows


# Off the grid of 40 ms, where rounding would decide.
times = st.integers(0, 300).map(lambda n: round(n / 50 + 0.011, 3))
sides = st.lists(st.tuples(times, times), max_size=6).map(
    lambda xs: list(merged((min(x), max(x)) for x in xs if x[0] != x[1]))
)


@settings(max_examples=200)
@given(sides, sides, st.sampled_from([0.5, 1.0]))
def test_decisions_are_those_of_the_rules(system, user, longest) -> None:
    found = decided(system, user, 6.5, longest=longest)
    a, b = naive_states(system, user, 6.5, longest), naive_states(user, system, 6.5, longest)
    assert [(x.label, x.turn) for x in found] == naive_labels(a, b)
    assert [x.end for x in found] == [round(0.2 + 0.04 * (k + 1), 2) for k in range(157)]


def runs(system: list[tuple[float, float]], user: list[tuple[float, float]], seconds: float) -> list[str]:
    rows = decided([Interval(*x) for x in system], [Interval(*x) for x in user], seconds)
    return [f"{label} {turn}" for (label, turn), _ in groupby((x.label, x.turn) for x in rows)]


def test_a_question_and_its_answer() -> None:
    found = runs([(3.01, 5.01)], [(0.51, 2.01)], 6)
    assert found == ["NA NA", "T NA", "C B", "NA B", "T B", "C A", "NA A"]


def test_a_backchannel_takes_no_turn() -> None:
    found = runs([(1.51, 1.91)], [(0.51, 3.01)], 4)
    assert found == ["NA NA", "T NA", "C B", "BC B", "C B", "NA B"]
    # Behind it nobody else is heard: it was a turn.
    assert runs([(2.51, 2.91)], [(0.51, 2.01)], 4)[-3:] == ["T B", "C A", "NA A"]


def test_an_interruption_that_succeeds() -> None:
    found = runs([(0.51, 3.01)], [(2.01, 5.01)], 6)
    assert found == ["NA NA", "T NA", "C A", "I A", "I AB", "T AB", "C B", "NA B"]


def test_nothing_is_decided_before_anything_is_heard() -> None:
    assert decided([], [], 0.2) == []
    assert decided([], [], 0.1) == []
    assert len(decided([], [], 0.24)) == 1
