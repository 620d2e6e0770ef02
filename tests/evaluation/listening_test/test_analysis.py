"""What a test says, beside what is written out from the definition, and of listeners who are made up."""

import itertools
import math
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.listening_test import (
    Item,
    Material,
    Record,
    Screen,
    analyse,
    plan,
    screen_listeners,
    table,
)
from lalia.evaluation.listening_test.screening import failed_checks
from lalia.evaluation.significance import min_f_prime, sign_flip

TRUE = {"good": 4.2, "fair": 3.0, "poor": 1.8}


def record(who: str, position: int, screen: Screen, rating: int) -> Record:
    s = screen
    return Record(
        "2027-01-15T08:00:10+00:00", who, 0, position, s.role, s.item, s.system, s.other, s.expected, rating, 5.0, 1
    )


def simulate(kind: str, listeners: int, items: int, *, careless: int = 0, seed: int = 0) -> list[Record]:
    """Listeners and items that differ, and some who choose anything."""
    rng = np.random.default_rng(seed)
    material = Material(tuple(TRUE), tuple(Item(f"i{i}", {s: Path(s) / str(i) for s in TRUE}) for i in range(items)))
    ease = dict(zip((i.name for i in material.items), rng.normal(0, 0.3, items), strict=True))
    records = []
    for n in range(listeners):
        strict = rng.normal(0, 0.3)
        for position, s in enumerate(plan(material, kind, slot=n, seed=0)):  # type: ignore[arg-type]
            low, high = (-3, 3) if kind == "cmos" else (1, 5)
            felt = TRUE[s.system] - TRUE.get(s.other, 0) + rng.normal(0, 0.4)
            if kind != "cmos":
                felt += strict + ease[s.item]
            if s.role == "anchor":
                felt = 1.0 if kind != "cmos" else 2.0 * (s.expected or 0)
            if s.role == "instruction":
                felt = float(s.expected or 0)
            if n < careless:
                felt = float(rng.integers(low, high + 1))
            records.append(record(f"l{n:02}", position, s, int(np.clip(round(felt), low, high))))
    return records


def test_systems_are_told_apart() -> None:
    records = simulate("mos", 18, 12, careless=2)
    found = analyse(records, "mos", list(TRUE))
    assert set(found["excluded"]) == {"l00", "l01"}
    assert found["listeners"] == 16
    kept = [r for r in records if r.role == "rating" and r.listener not in found["excluded"]]
    for name, true in TRUE.items():
        mos = found["systems"][name]["mos"]
        assert mos["value"] == pytest.approx(fmean(r.rating for r in kept if r.system == name))
        assert mos["low"] < mos["value"] < mos["high"]
        assert abs(mos["value"] - true) < 0.35
    for pair in found["pairs"]:
        a, b = pair["first"], pair["second"]
        diff = pair["difference"]
        assert diff["value"] == pytest.approx(found["systems"][a]["mos"]["value"] - found["systems"][b]["mos"]["value"])
        assert diff["low"] > 0
        # Written out: by item and by listener, the mean of one less that of the other.
        p, means = {}, []
        for unit in ("item", "listener"):
            of: dict[str, tuple[list[int], list[int]]] = {}
            for r in kept:
                if r.system in (a, b):
                    of.setdefault(getattr(r, unit), ([], []))[r.system == b].append(r.rating)
            both = [fmean(x) - fmean(y) for _, (x, y) in sorted(of.items()) if x and y]
            p[unit] = sign_flip(both)
            means.append(both)
        assert (pair["p_items"], pair["p_listeners"]) == (p["item"], p["listener"])
        assert pair["p_both"] == min_f_prime(*means)
        assert pair["p"] == max(*p.values(), pair["p_both"]) <= pair["p_holm"] < 0.01
    text = table(found)
    assert "l00 failed" in text or "l00 correlates" in text
    assert "GSLM asked at least 15 raters about 100 samples; here are 16 and 12." in text
    assert analyse(list(reversed(records)), "mos", list(TRUE)) == found, "whatever the order"


def test_pairs() -> None:
    records = simulate("cmos", 12, 9)
    found = analyse(records, "cmos", list(TRUE))
    assert "systems" not in found
    assert not found["excluded"]
    for pair in found["pairs"]:
        a, b = pair["first"], pair["second"]
        ratings = [
            r.rating if (r.system, r.other) == (a, b) else -r.rating
            for r in records
            if r.role == "rating" and {r.system, r.other} == {a, b}
        ]
        assert pair["difference"]["value"] == pytest.approx(fmean(ratings))
        assert pair["difference"]["low"] > 0
        assert pair["p_holm"] < 0.05
        assert pair["prefer_first"] == pytest.approx(fmean(x > 0 for x in ratings))
        assert pair["prefer_first"] + pair["prefer_neither"] + pair["prefer_second"] == pytest.approx(1)
    assert "first / equal / second" in table(found)


def test_what_cannot_be_analysed() -> None:
    with pytest.raises(DataError, match="Nothing has been rated"):
        analyse([], "mos", ["a"])
    bad = [record("ann", 0, Screen("instruction", "i", "a", expected=2), 3)] * 1
    with pytest.raises(DataError, match="No listener is left"):
        analyse(bad, "mos", ["a"], most_failed=0)
    with pytest.raises(DataError, match="are not of this test"):
        analyse([record("ann", 0, Screen("rating", "i", "x"), 3)], "mos", ["a"])
    one = analyse([record("ann", 0, Screen("rating", "i", "a"), 3)], "mos", ["a", "b"])
    assert one["systems"]["a"]["mos"]["value"] == 3
    assert one["systems"]["b"]["mos"]["value"] is None
    assert math.isnan(one["pairs"][0]["p"])
    assert "There is one listener" in table(one)
    assert "came to no check: ann." in table(one)


@pytest.mark.parametrize(
    ("kind", "screen", "rating", "failed"),
    [
        ("mos", Screen("instruction", "j", "a", expected=2), 2, False),
        ("mos", Screen("instruction", "j", "a", expected=2), 3, True),
        ("mos", Screen("repeat", "i", "a"), 4, False),
        ("mos", Screen("repeat", "i", "a"), 5, True),
        ("mos", Screen("anchor", "i", "a"), 2, False),
        ("mos", Screen("anchor", "i", "a"), 3, True),
        ("mos", Screen("anchor", "p", "a"), 2, False),
        ("mos", Screen("anchor", "q", "a"), 2, True),
        ("cmos", Screen("repeat", "i", "b", "a"), -1, False),
        ("cmos", Screen("repeat", "i", "b", "a"), 0, True),
        ("cmos", Screen("anchor", "i", "a", "a", expected=1), 1, False),
        ("cmos", Screen("anchor", "i", "a", "a", expected=1), 0, True),
        ("cmos", Screen("anchor", "i", "a", "a", expected=-1), -2, False),
    ],
)
def test_checks(kind: str, screen: Screen, rating: int, failed: bool) -> None:
    other = "b" if kind == "cmos" else ""
    before = [(("i"), 3), ("p", 2), ("q", 1)]
    rows = [record("ann", k, Screen("rating", i, "a", other), r) for k, (i, r) in enumerate(before)]
    found = failed_checks([*rows, record("ann", 9, screen, rating)], kind)  # type: ignore[arg-type]
    assert found == ((screen.role,) if failed else ())


@given(st.lists(st.lists(st.integers(1, 5), min_size=9, max_size=9), min_size=3, max_size=5))
@settings(max_examples=40, deadline=None)
def test_agreement_written_out(ratings: list[list[int]]) -> None:
    records = [
        record(f"l{n}", k, Screen("rating", f"i{k}", "a"), x)
        for n, row in enumerate(ratings)
        for k, x in enumerate(row)
    ]
    for n, verdict in enumerate(screen_listeners(records, "mos")):
        others = [fmean(row[k] for m, row in enumerate(ratings) if m != n) for k in range(9)]
        if len(set(others)) == 1:
            assert math.isnan(verdict.correlation)
            assert verdict.excluded is None
        elif len(set(ratings[n])) == 1:
            assert verdict.correlation == 0
            assert verdict.excluded is not None
        else:
            mine, theirs = fmean(ratings[n]), fmean(others)
            products = sum((x - mine) * (y - theirs) for x, y in zip(ratings[n], others, strict=True))
            spread = math.sqrt(sum((x - mine) ** 2 for x in ratings[n]) * sum((y - theirs) ** 2 for y in others))
            assert verdict.correlation == pytest.approx(products / spread, abs=1e-9)
    assert all(v.excluded is None for v in screen_listeners(records, "mos", least_correlation=None))
    assert all(math.isnan(v.correlation) for v in screen_listeners(records, "cmos"))


def test_too_little_in_common_is_no_verdict() -> None:
    records = [
        record(f"l{n}", k, Screen("rating", f"i{k}", "a"), 1 + (k * (n + 1)) % 5) for n in range(3) for k in range(7)
    ]
    assert all(math.isnan(v.correlation) for v in screen_listeners(records, "mos"))
    assert all(math.isnan(v.correlation) for v in screen_listeners(records * 2, "mos"))
    pairs = itertools.combinations(screen_listeners(records, "mos"), 2)
    assert all(a.listener < b.listener for a, b in pairs)
