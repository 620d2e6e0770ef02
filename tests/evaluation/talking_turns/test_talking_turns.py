"""Talking Turns: areas, F1 and agreement, against loops and against scikit-learn."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.talking_turns import (
    LABELS,
    Decision,
    Thresholds,
    agreement,
    area_under_curve,
    areas_under_curve,
    hard_label,
    macro_f1,
    read_decisions,
    read_likelihoods,
    timed,
)


def end(n: int) -> float:
    return round(0.24 + 0.04 * n, 2)


def decided(*rows: tuple[str, str]) -> list[Decision]:
    return [Decision(end(n) - 0.04, end(n), label, turn) for n, (label, turn) in enumerate(rows)]


def says(*rows: list[float]) -> dict[float, np.ndarray]:
    return {end(n): np.array(row) for n, row in enumerate(rows)}


tenths = st.integers(0, 10).map(lambda n: n / 10)


@given(st.lists(st.tuples(st.booleans(), tenths), min_size=2, max_size=30))
def test_area_is_the_share_of_pairs_in_order(rows) -> None:
    up, down = [s for there, s in rows if there], [s for there, s in rows if not there]
    assume(up and down)
    naive = sum((a > b) + 0.5 * (a == b) for a in up for b in down) / (len(up) * len(down))
    found = area_under_curve(*zip(*rows, strict=True))
    assert found.value == pytest.approx(naive)
    assert found.low <= found.high


dialogue = st.lists(
    st.tuples(
        st.sampled_from(LABELS), st.sampled_from(["A", "B", "AB", "BA"]), st.lists(tenths, min_size=5, max_size=5)
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40)
@given(dialogue)
def test_areas_and_f1_are_those_of_scikit_learn(rows) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    did = {"d": decided(*[(label, turn) for label, turn, _ in rows])}
    said = {"d": says(*[p for *_, p in rows])}
    hard = np.array([hard_label(p) for p in said["d"].values()])
    labels = np.array([label for label, *_ in rows])
    found = macro_f1(did, said)
    for label in LABELS:
        assert found[label].value == pytest.approx(metrics.f1_score(hard == label, labels == label, average="macro"))
    kept = [(label, p) for label, turn, p in rows if label != "BC" or turn in ("A", "B")]
    if {label for label, _ in kept} != set(LABELS):
        with pytest.raises(DataError, match="The label"):
            areas_under_curve(did, said)
        return
    areas = areas_under_curve(did, said)
    for n, label in enumerate(LABELS):
        expected = metrics.roc_auc_score([x == label for x, _ in kept], [p[n] for _, p in kept])
        assert areas[label].value == pytest.approx(expected)
    assert areas["overall"].value == pytest.approx(np.mean([areas[x].value for x in LABELS]))


def test_all_areas() -> None:
    rows = [("C", "A"), ("NA", "A"), ("I", "AB"), ("BC", "B"), ("T", "A"), ("BC", "AB"), ("BC_1", "A")]
    eye = [[float(i == j) for j in range(5)] for i in range(5)]
    # What is not asked about would be wrong.
    found = areas_under_curve({"d": decided(*rows)}, {"d": says(*eye, eye[0], eye[0])})
    assert {x: found[x].value for x in ("overall", *LABELS)} == dict.fromkeys(("overall", *LABELS), 1.0)
    assert found["overall"].n == 5


def test_hard_labels() -> None:
    assert hard_label(np.array([0.21, 0.5, 0.1, 0.1, 0.1])) == "C"
    assert hard_label(np.array([0.2, 0.46, 0.1, 0.1, 0.1])) == "NA"
    assert hard_label(np.array([0.2, 0.3, 0.1, 0.1, 0.3])) == "NA"
    assert hard_label(np.array([0.2, 0.3, 0.1, 0.1, 0.3]), Thresholds(hard=(0.9, 0.9, 0.9, 0.9, 0.2))) == "T"


@given(st.lists(dialogue, min_size=1, max_size=3))
def test_agreement_is_a_count(dialogues) -> None:
    votes: dict[tuple[str, bool], list[bool]] = {}
    for rows in dialogues:
        for k, (label, turn, (c, _, i, bc, t)) in enumerate(rows):
            before = [x for x, *_ in rows[max(k - 3, 0) : k]]
            if before == ["NA"] * 3 and turn in ("A", "B") and label in ("C", "T"):
                name = "speak_up" if turn == "B" else "yield"
                votes.setdefault((name, label == "T"), []).append((label == "T") == (t - c > 0))
            if before == ["I"] * 3 and turn == "AB" and label in ("C", "T"):
                votes.setdefault(("handle_interruption", label == "T"), []).append((label == "T") == (t - c > -0.1))
            if k and turn == "B" and before[-1] != "BC":
                votes.setdefault(("backchannel", label == "BC"), []).append((label == "BC") == (bc > 0.1))
            if k and turn == "B" and before[-1] == "C" and label in ("C", "I"):
                votes.setdefault(("interrupt", label == "I"), []).append((label == "I") == (i - c > -0.45))
    found = agreement(
        {str(n): decided(*[(label, turn) for label, turn, _ in rows]) for n, rows in enumerate(dialogues)},
        {str(n): says(*[p for *_, p in rows]) for n, rows in enumerate(dialogues)},
    )
    for name, both in found.items():
        for estimate, done in ((both.done, True), (both.left, False)):
            own = votes.get((name, done), [])
            assert estimate.n == len(own)
            assert estimate.value == pytest.approx(sum(own) / len(own)) if own else math.isnan(estimate.value)


def test_a_worked_example() -> None:
    """The user pauses; the system takes the turn, as the judge would, and would not where the threshold is higher."""
    did = {"d": decided(("C", "B"), ("NA", "B"), ("NA", "B"), ("NA", "B"), ("T", "B"))}
    said = {"d": says(*[[0.5, 0.5, 0, 0, 0]] * 4, [0.2, 0.1, 0, 0.1, 0.6])}
    assert agreement(did, said)["speak_up"].done.value == 1.0
    assert agreement(did, said, thresholds=Thresholds(turn_change=0.5))["speak_up"].done.value == 0.0
    assert agreement(did, said)["speak_up"].left.n == 0
    assert agreement(did, said)["backchannel"].left.value == 1.0


def test_files(tmp_path: Path) -> None:
    (tmp_path / "did.csv").write_text("moshi_1,0.20,0.24,C,A\nmoshi_1,0.24,0.28,BC_2,NA\n\n2,0.2,0.24,T,B\n")
    (tmp_path / "said.txt").write_text("moshi_1.wav 0.52,0.25,0.03,0.04,0.16 0.20,0.62,0.02,0.02,0.14\n")
    did, said = read_decisions(tmp_path / "did.csv"), read_likelihoods(tmp_path / "said.txt")
    assert did["moshi_1"] == [Decision(0.2, 0.24, "C", "A"), Decision(0.24, 0.28, "BC_2", "NA")]
    assert list(said["moshi_1"]) == [0.24, 0.28]
    assert said["moshi_1"][0.28].tolist() == [0.2, 0.62, 0.02, 0.02, 0.14]
    assert macro_f1(did, said)["C"].value > 0


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_decisions, "a,0,1,C\n", "line 1 is 'a,0,1,C'"),
        (read_decisions, "a,0,x,C,A\n", "line 1 is"),
        (read_decisions, "a,0,1,IN,A\n", "the label 'IN' and the turn 'A'"),
        (read_decisions, "\n", "is empty"),
        (read_likelihoods, "a 1,2,3\n", "line 1 has no 5 finite"),
        (read_likelihoods, "a 1,2,3,4,nan\n", "line 1 has no 5 finite"),
        (read_likelihoods, "a 1,2,3,4,5 x\n", "line 1 has no 5 finite"),
        (read_likelihoods, "a 1,2,3,4,5\na 1,2,3,4,5\n", "line 2 has 'a' a second time"),
    ],
)
def test_bad_files(tmp_path: Path, read, text: str, message: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "x")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none")


def test_what_cannot_be_scored() -> None:
    said = {"d": timed(np.full((3, 5), 0.2), "The judge of d")}
    assert list(said["d"]) == [0.24, 0.28, 0.32]
    with pytest.raises(DataError, match="The judge of d has no 5 finite"):
        timed(np.zeros((3, 4)), "The judge of d")
    with pytest.raises(DataError, match="No 40 ms of 1 dialogues are judged"):
        agreement({"e": decided(("C", "A"))}, said)
    with pytest.raises(DataError, match="Of 2 scores 2 are"):
        area_under_curve([True, True], [0.0, 1.0])
    with pytest.raises(DataError, match="no NaN"):
        area_under_curve([True, False], [0.0, math.nan])
