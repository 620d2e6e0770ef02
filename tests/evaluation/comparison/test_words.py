"""What is said follows from the figures: no claim without its interval and its test."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.evaluation.comparison.differences import Difference, Effect, beside, difference, effects
from lalia.evaluation.comparison.measures import Column, Measure, Reading, read
from lalia.evaluation.comparison.parts import AXES
from lalia.evaluation.comparison.plots import Point, Side, frontier, plot
from lalia.evaluation.comparison.words import amount, change, of_effect, of_ranking
from lalia.evaluation.significance import sign_flip
from lalia.evaluation.statistics import Estimate, bootstrap_ratio

WER = Measure("resynthesis.wer", "resynthesis", "WER", "share", "lower")
ACCURACY = Measure("words.mean", "likelihood", "accuracy", "share", "higher")


def reading(errors: list[float], lengths: list[float] | None = None) -> Reading:
    lengths = lengths or [1.0] * len(errors)
    items = {f"{i:03d}": (e, n) for i, (e, n) in enumerate(zip(errors, lengths, strict=True))}
    return Reading(bootstrap_ratio(errors, lengths), items)


def naive(one: Reading, other: Reading) -> tuple[float, float, float, float]:
    """The paired difference and its p-value from the definition."""
    keys = sorted(one.items)
    deltas = np.array([one.items[k][0] - other.items[k][0] for k in keys])
    lengths = np.array([one.items[k][1] for k in keys])
    chosen = np.random.default_rng(0).integers(0, len(keys), (10_000, len(keys)))
    low, high = np.percentile(deltas[chosen].sum(1) / lengths[chosen].sum(1), (2.5, 97.5))
    return deltas.sum() / lengths.sum(), low, high, sign_flip(deltas.tolist())


models = st.lists(
    st.lists(st.integers(0, 9).map(float), min_size=12, max_size=12),
    min_size=2,
    max_size=4,
)


@settings(max_examples=30)
@given(models, st.sampled_from([WER, ACCURACY]))
def test_a_model_is_best_only_where_every_interval_and_every_test_says_so(
    errors: list[list[float]], measure: Measure
) -> None:
    column = Column(measure, {f"m{i}": reading(e, [10.0] * 12) for i, e in enumerate(errors)})
    said = of_ranking(column)
    sign = 1 if measure.better == "lower" else -1
    order = sorted(column.readings, key=lambda n: (sign * column.readings[n].estimate.value, n))
    rows = {n: naive(column.readings[n], column.readings[order[0]]) for n in order[1:]}
    # Those that are the same item by item are best together, and nothing is tested twice.
    rest = [n for n in rows if rows[n][:3] != (0.0, 0.0, 0.0)]
    raised, highest, family = {}, 0.0, sorted({rows[n] for n in rest}, key=lambda row: row[3])
    for rank, row in enumerate(family):
        highest = max(highest, min((len(family) - rank) * row[3], 1.0))
        raised[row] = highest
    carried = bool(rest) and all(sign * rows[n][1 if sign > 0 else 2] > 0 and raised[rows[n]] < 0.05 for n in rest)
    assert (said.verdict == "carried") == carried
    word = "lowest" if sign > 0 else "highest"
    assert bool(re.match(rf"Of {len(errors)} models m.* (has|have) the {word}", said.text)) == carried
    assert said.text.startswith((f"No {word}", "m")) == (not carried)
    # Its figures are those of the estimate.
    assert amount(column.readings[order[0]].estimate, "share") in said.text


@settings(max_examples=30)
@given(models)
def test_every_p_value_in_a_claim_is_below_the_level(errors: list[list[float]]) -> None:
    column = Column(WER, {f"m{i}": reading(e, [10.0] * 12) for i, e in enumerate(errors)})
    said = of_ranking(column)
    found = [float(p) for p in re.findall(r"p [=<] (\d\.\d+)", said.text)]
    if said.verdict == "carried":
        assert found
        assert max(found) < 0.05
    told = beside(column, min(column.readings, key=lambda n: (column.readings[n].estimate.value, n)))
    doubted = [n for n, d in told.items() if d is None or not d.carried]
    alike = [n for n in doubted if {told[n].estimate.low, told[n].estimate.high, told[n].estimate.value} == {0.0}]
    assert (said.verdict == "open") == (len(doubted) > len(alike) or len(alike) == len(told))
    for name in doubted:
        assert re.search(rf"\b{name}\b", said.text)


def test_too_few_items_claim_nothing() -> None:
    column = Column(WER, {"a": reading([0.0] * 5), "b": reading([1.0] * 5)})
    said = of_ranking(column)
    assert said.verdict == "open"
    assert "p = 0.062, 5 items, too few to tell" in said.text
    column = Column(WER, {"a": reading([0.0] * 6), "b": reading([1.0] * 6)})
    assert of_ranking(column).verdict == "carried"


@given(*[st.tuples(st.floats(0, 1), st.floats(0, 0.3), st.integers(1, 9))] * 2)
def test_without_common_items_intervals_must_not_meet(
    one: tuple[float, float, int], other: tuple[float, float, int]
) -> None:
    a, b = (Estimate(v, v - w, v + w, n) for v, w, n in (one, other))
    said = of_ranking(Column(WER, {"a": Reading(a), "b": Reading(b)}))
    best, behind = sorted((a, b), key=lambda e: e.value)
    clear = best.high < behind.low and min(a.n, b.n) > 1
    assert (said.verdict == "carried") == clear
    assert said.best == ((("a",) if a.value < b.value else ("b",)) if clear else ())
    assert ("No lowest" in said.text) == (not clear and a != b)


def test_too_few_for_as_many_tests() -> None:
    others = {f"m{i}": reading([1.0 + i] * 6) for i in range(3)}
    said = of_ranking(Column(WER, {"best": reading([0.0] * 6), **others}))
    assert said.verdict == "open"
    assert said.text.count("p = 0.094, 6 items, too few to tell") == 3


def test_what_is_the_same_item_by_item_is_best_together() -> None:
    column = Column(WER, {"a": reading([0.0] * 8), "b": reading([0.0] * 8), "c": reading([1.0] * 8)})
    said = of_ranking(column)
    assert said.verdict == "carried"
    assert said.text.startswith("Of 3 models a and b have the lowest WER, 0.0 % [0.0, 0.0]. Behind: c, ")
    del column.readings["c"]
    said = of_ranking(column)
    assert (said.verdict, said.text) == ("open", "a and b have the same WER: 0.0 % [0.0, 0.0].")


def test_models_that_share_an_answer_are_tested_once() -> None:
    shared = reading([1.0] * 6)
    column = Column(WER, {"best": reading([0.0] * 6), **{f"m{i}": shared for i in range(9)}})
    said = of_ranking(column)
    assert said.verdict == "carried"
    assert "(+100.0 points [+100.0, +100.0], p = 0.031, 6 items)" in said.text
    assert said.text.endswith("and, told apart too, m1, m2, m3 and 5 others.")


def test_for_whom_another_answered_is_named_beside_it() -> None:
    one = replace(reading([1.0, 0.0, 1.0]), by="a")
    others = {"a": one, "b": replace(reading([2.0, 0.0, 1.0]), by="b"), "c": one, "d": replace(one, by="d")}
    said = of_ranking(Column(WER, {"x": reading([0.0, 1.0, 0.0]), **others}))
    assert said.text.count("3 items") == 3
    assert re.search(r"not told apart from a and c, 66\.7 %.*; d, 66\.7 %.*; b, 100\.0 %", said.text)


def test_of_many_that_are_not_told_apart_the_first_are_named() -> None:
    said = of_ranking(Column(WER, {f"m{i}": reading([float(i), 1.0, 0.0]) for i in range(9)}))
    assert said.verdict == "open"
    assert said.text.count("items") == 3
    assert said.text.endswith("; and m4, m5, m6 and 2 others.")


def test_one_model_and_none_are_not_compared() -> None:
    assert of_ranking(Column(WER, {"a": reading([0.0, 1.0])})).verdict == "none"
    assert of_ranking(Column(WER, {})).text == ""
    neither = Measure("x", "continuation", "VERT", "ratio", None)
    assert of_ranking(Column(neither, {"a": reading([0.0]), "b": reading([1.0])})).text == ""


def test_exact_figures_need_no_test() -> None:
    size = Measure("size", "cost", "number of parameters", "parameters", "lower", "exact")
    one, two = (Reading(Estimate(v, v, v, 1)) for v in (12e6, 148.7e6))
    said = of_ranking(Column(size, {"a": two, "b": one}))
    assert said.text == "Of 2 models b has the lowest number of parameters, 12.0 M. Behind: a, 148.7 M."
    assert of_ranking(Column(size, {"a": one, "b": one})).verdict == "open"


def test_items_of_other_lengths_are_not_common() -> None:
    a, b = reading([1.0] * 3, [5.0, 5.0, 5.0]), reading([2.0] * 3, [5.0, 5.0, 6.0])
    found = difference(WER, a.items, b.items)
    assert found is not None
    assert (found.estimate.n, found.estimate.value) == (2, pytest.approx(-0.2))
    assert difference(WER, a.items, {}) is None


def test_differences_of_logarithms_are_factors() -> None:
    perplexity = Measure("p", "continuation", "perplexity", "nats", "lower", "log")
    items = {str(i): (math.log(20.0 + i), 1.0) for i in range(8)}
    found = difference(perplexity, {k: (v + math.log(2), n) for k, (v, n) in items.items()}, items)
    assert found is not None
    assert found.estimate.value == pytest.approx(2.0)
    assert found.neutral == 1.0
    assert found.carried
    assert change(perplexity, found).startswith("2.00 times [2.00, 2.00], p = 0.008, 8 items")


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(1e-4, 1), st.integers(1, 30))
def test_an_effect_is_claimed_with_both_interval_and_test(
    value: float, below: float, above: float, p: float, n: int
) -> None:
    d = Difference(Estimate(value, value - below, value + above, n), p, 0.0)
    said = of_effect(Effect("vocoder", "A", "B", WER, d, (("x", "y"),)))
    carried = (value - below > 0 or value + above < 0) and p < 0.05
    assert (said.verdict == "carried") == carried
    assert (" is higher: " in said.text) == (carried and value > 0)
    assert (" is lower: " in said.text) == (carried and value < 0)
    equal = value == 0 and below == above == 0
    assert ("no change" in said.text) == (not carried and not equal)
    assert (f"the same in all {n} items" in said.text) == equal


def test_what_differs_too_is_said() -> None:
    d = Difference(Estimate(1.0, 0.5, 1.5, 9), 0.01, 0.0)
    assert "all else alike" in of_effect(Effect("vocoder", "A", "B", WER, d, (("x", "y"),))).text
    assert (
        "all but its layout alike" in of_effect(Effect("tokenizer", "A", "B", WER, d, (("x", "y"),), ("layout",))).text
    )


def bits(name: str, units: str, log_prob: float) -> dict[str, Any]:
    """A model over certain units, that finds three recordings so likely."""
    axes = {axis: {"label": axis, "config": axis} for axis in AXES} | {"tokenizer": {"label": units, "config": units}}
    stream = {"nominal_bit_rate": None, "streams": 1, "codebooks": 1}
    items = [{"id": i, "log_prob": log_prob - i, "tokens": 5, "seconds": 2.0} for i in range(3)]
    value = -sum(i["log_prob"] for i in items) / math.log(2) / 6.0
    figure = {"key": "bits_per_second", "about": "bits", "unit": "bit/s", "value": value, "low": value, "high": value}
    return {
        "name": name,
        "parts": {"axes": axes, "stream": stream, "parameters": {"lm": 1}},
        "identities": {},
        "results": {"likelihood": {"settings": {}, "figures": [figure | {"n": 3}], "items": items}},
    }


def test_likelihoods_are_compared_over_the_same_units_alone() -> None:
    models = [bits("a", "fine", -9.0), bits("b", "fine", -12.0), bits("c", "coarse", -1.0)]
    columns = [c for c in read({"models": models, "settings": {"seed": 0}}) if c.measure.key.startswith("likelihood.")]
    assert [(c.measure.about, set(c.readings)) for c in columns] == [
        ("bits for a second of speech, over fine", {"a", "b"}),
        ("bits for a second of speech, over coarse", {"c"}),
    ]
    found = difference(columns[0].measure, *(columns[0].readings[n].items for n in "ba"))
    assert found is not None
    assert found.estimate.value == pytest.approx(9.0 / math.log(2) / 6.0)
    assert all(e.axis != "tokenizer" for e in effects(models, columns))


def point(n: int, x: float, y: float) -> Point:
    return Point(f"m{n}", n, Estimate(x, x, x, 1), Estimate(y, y, y, 1))


places = st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), min_size=1, max_size=8)


@given(places, st.sampled_from(["lower", "higher"]), st.sampled_from(["lower", "higher"]))
def test_the_frontier_is_what_nothing_beats(found: list[tuple[float, float]], x: str, y: str) -> None:
    points = [point(i, *at) for i, at in enumerate(found)]
    best = frontier(points, Side("x", "ms", x), Side("y", "ms", y))

    def better(a: float, b: float, way: str) -> bool:
        return a <= b if way == "lower" else a >= b

    for p in points:
        beaten = any(
            better(q.x.value, p.x.value, x)
            and better(q.y.value, p.y.value, y)
            and (q.x.value, q.y.value) != (p.x.value, p.y.value)
            for q in points
        )
        assert (p in best) == (not beaten)
    drawn = plot(points, Side("x", "ms", x), Side("y", "share", y))
    assert drawn.count("<circle") == len(points)
    assert "nan" not in drawn


def test_names_in_drawings_are_escaped() -> None:
    odd = Point("<b>&", 1, Estimate(1, 1, 1, 1), Estimate(2, 1, 3, 4))
    drawn = plot([odd, point(2, 500.0, 1.0)], Side("x", "ms", "lower"), Side("y", "MOS", "higher"))
    assert "<b>" not in drawn
    assert "logarithmic" in drawn
