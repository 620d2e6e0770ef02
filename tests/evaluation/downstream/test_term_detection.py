import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, DataError
from lalia.evaluation.downstream import term_weighted_value

places = ["p1", "p2", "p3", "p4"]
query = st.tuples(
    st.sets(st.sampled_from(places), max_size=3), st.dictionaries(st.sampled_from(places), st.integers(-3, 3))
)


def naive(queries: list[tuple[set[str], dict[str, int]]], seconds: float, beta: float) -> float:
    """Every threshold, as the plan has it."""
    kept = [(targets, scores) for targets, scores in queries if targets]
    thetas = {s for _, scores in kept for s in scores.values()} | {99}

    def value(theta: float) -> float:
        losses = []
        for targets, scores in kept:
            said = {p for p, s in scores.items() if s >= theta}
            miss = 1 - len(said & targets) / len(targets)
            losses.append(miss + beta * len(said - targets) / (seconds - len(targets)))
        return 1 - statistics.mean(losses)

    return max(map(value, thetas))


@settings(max_examples=25)
@given(st.lists(query, min_size=1, max_size=4).filter(lambda x: any(t for t, _ in x)), st.sampled_from([1.0, 999.9]))
def test_agrees_with_the_definition(queries: list[tuple[set[str], dict[str, int]]], beta: float) -> None:
    targets = {f"q{i}": t for i, (t, _) in enumerate(queries)}
    scores = {f"q{i}": {p: float(s) for p, s in found.items()} for i, (_, found) in enumerate(queries)}
    found = term_weighted_value(targets, scores, seconds=100, beta=beta)
    assert found.value == pytest.approx(naive(queries, 100, beta))
    assert found.settings["queries_left_out"] == sum(not t for t, _ in queries)


def test_worked_example() -> None:
    targets = {"a": ["u1", "u2"], "b": ["u3"], "nowhere": []}
    scores = {"a": {"u1": 3.0, "u9": 2.5, "u2": 2.0}, "b": {"u3": 1.0, "u8": 0.0}}
    found = term_weighted_value(targets, scores, seconds=1002, beta=100, threshold=2.2)
    # At 1: all targets, and one false alarm of query a: (1 - 100 / 1000 + 1) / 2.
    assert found.value == pytest.approx(0.95)
    assert found.settings["theta"] == 1.0
    assert found.figures["atwv"].value == pytest.approx((0.5 - 0.1 + 0) / 2)
    # At the price of NIST one false alarm in 1000 s costs all that a query can gain.
    assert term_weighted_value(targets, scores, seconds=1002).value == pytest.approx((1 - 0.9999 + 1) / 2)


def test_normalised_scores_are_comparable_between_queries() -> None:
    targets = {"a": ["u1"], "b": ["u1"]}
    scores = {"a": {"u1": 100.0, "u2": 90.0, "u3": 91.0}, "b": {"u1": 1.0, "u2": 0.0, "u3": 0.1}}
    assert term_weighted_value(targets, scores, seconds=100).value == pytest.approx(0.5)
    found = term_weighted_value(targets, scores, seconds=100, normalize="z", threshold=1)
    assert found.value == found.figures["atwv"].value == pytest.approx(1)
    constant = term_weighted_value({"a": ["u1"]}, {"a": {"u1": 5.0, "u2": 5.0}}, seconds=100, normalize="z")
    assert constant.value == 0


def test_bad_input() -> None:
    with pytest.raises(DataError, match="No query is in the speech"):
        term_weighted_value({"a": []}, {}, seconds=10)
    with pytest.raises(DataError, match="no targets"):
        term_weighted_value({"a": ["x"]}, {"b": {}}, seconds=10)
    with pytest.raises(DataError, match="not finite"):
        term_weighted_value({"a": ["x"]}, {"a": {"x": float("nan")}}, seconds=10)
    with pytest.raises(ConfigError, match="seconds searched"):
        term_weighted_value({"a": ["x"]}, {}, seconds=1)
    found = term_weighted_value({"a": ["x"]}, {}, seconds=10)
    assert (found.value, found.counts.failed, found.settings["theta"]) == (0.0, 1, None)
