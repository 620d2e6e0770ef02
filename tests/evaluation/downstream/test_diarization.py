import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, DataError
from lalia.evaluation.downstream import Turn, diarization, read_rttm

turns = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 8), st.sampled_from("ABC")).map(
        lambda x: Turn(float(x[0]), float(x[0] + x[1]), x[2])
    ),
    min_size=1,
    max_size=6,
)


def naive(said: list[Turn], heard: list[Turn]) -> tuple[float, float]:
    """By whole seconds, which all times are; every mapping tried."""

    def sets(side: list[Turn]) -> list[set[str]]:
        return [{t.speaker for t in side if t.start <= second < t.end} for second in range(30)]

    a, b = sets(said), sets(heard)
    ours, theirs = sorted({t.speaker for t in said}), sorted({t.speaker for t in heard})
    padded = [*theirs, *(None for _ in ours)]
    best = max(
        (dict(zip(ours, chosen, strict=True)) for chosen in set(itertools.permutations(padded, len(ours)))),
        key=lambda m: sum(m[x] in y for xs, y in zip(a, b, strict=True) for x in xs),
    )
    errors = sum(
        max(len(x), len(y)) - sum(best[speaker] in y for speaker in x) for x, y in zip(a, b, strict=True)
    )  # fmt: skip
    return errors / sum(map(len, a)), float(len(ours))


@settings(max_examples=25)
@given(turns, turns)
def test_agrees_with_the_definition(said: list[Turn], heard: list[Turn]) -> None:
    found = diarization({"x": said}, {"x": heard})
    assert found.value == pytest.approx(naive(said, heard)[0])
    parts = (found.figures[kind].value for kind in ("missed", "false_alarm", "confusion"))
    assert math.fsum(parts) == pytest.approx(found.value)


@settings(max_examples=25)
@given(turns, turns, st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_agrees_with_pyannote(said: list[Turn], heard: list[Turn], collar: float, skip_overlap: bool) -> None:
    core = pytest.importorskip("pyannote.core")
    metrics = pytest.importorskip("pyannote.metrics.diarization")

    def annotation(side: list[Turn]) -> object:
        # One track for each stretch of a speaker, as ours are: his own overlaps are merged.
        found = core.Annotation()
        for speaker in {t.speaker for t in side}:
            timeline = core.Timeline([core.Segment(t.start, t.end) for t in side if t.speaker == speaker]).support()
            for segment in timeline:
                found[segment, f"{speaker}{segment}"] = speaker
        return found

    a, b = annotation(said), annotation(heard)
    whole = core.Timeline([core.Segment(-1, 40)])
    public = metrics.DiarizationErrorRate(collar=collar, skip_overlap=skip_overlap)
    details = public(a, b, uem=whole, detailed=True)
    merged = [Turn(s.start, s.end, label) for s, _, label in a.itertracks(yield_label=True)]
    if details["total"] == 0:
        with pytest.raises(DataError, match="no speech that is scored"):
            diarization({"x": merged}, {"x": heard}, collar=collar, skip_overlap=skip_overlap)
        return
    found = diarization({"x": merged}, {"x": heard}, collar=collar, skip_overlap=skip_overlap)
    item = found.items[0]
    assert item["speech"] == pytest.approx(details["total"])
    assert found.value == pytest.approx(details["diarization error rate"], abs=1e-9)
    assert item["missed"] == pytest.approx(details["missed detection"], abs=1e-9)
    assert item["false_alarm"] == pytest.approx(details["false alarm"], abs=1e-9)


def test_jaccard_error_rate_is_that_of_pyannote() -> None:
    core = pytest.importorskip("pyannote.core")
    metrics = pytest.importorskip("pyannote.metrics.diarization")
    said = [Turn(0, 4, "A"), Turn(3, 9, "B"), Turn(10, 11, "C")]
    heard = [Turn(0.5, 5, "x"), Turn(5, 9, "y"), Turn(9, 12, "x")]
    a, b = core.Annotation(), core.Annotation()
    for side, into in ((said, a), (heard, b)):
        for i, t in enumerate(side):
            into[core.Segment(t.start, t.end), i] = t.speaker
    public = metrics.JaccardErrorRate()(a, b, uem=core.Timeline([core.Segment(0, 20)]))
    assert diarization({"x": said}, {"x": heard}).figures["jer"].value == pytest.approx(public)


def test_worked_example() -> None:
    # 10 s of A, heard from 1 s on, with 2 s of somebody else in the end and 1 s behind it.
    found = diarization({"x": [Turn(0, 10, "A")]}, {"x": [Turn(1, 8, "s1"), Turn(8, 11, "s2")]})
    assert found.items[0] == {
        "id": "x", "answered": True, "speech": 10.0, "missed": 1.0, "false_alarm": 1.0, "confusion": 2.0,
        "jaccard": {"A": pytest.approx(0.3)}, "mapping": {"s1": "A"},
    }  # fmt: skip
    assert found.value == pytest.approx(0.4)
    # The collar is the total width: 1 s takes half a second on either side of 0 and of 10.
    narrow = diarization({"x": [Turn(0, 10, "A")]}, {"x": [Turn(1, 8, "s1"), Turn(8, 11, "s2")]}, collar=1.0)
    assert narrow.items[0]["speech"] == pytest.approx(9.0)
    assert narrow.items[0]["missed"] == narrow.items[0]["false_alarm"] == pytest.approx(0.5)
    # What is outside of the regions is not scored.
    inside = diarization({"x": [Turn(0, 10, "A")]}, {"x": [Turn(1, 11, "s")]}, regions={"x": [(2.0, 10.0)]})
    assert inside.value == 0


def test_missing_predictions_and_bad_input(tmp_path: Path) -> None:
    said = {"x": [Turn(0, 10, "A")], "y": [Turn(0, 10, "A")]}
    found = diarization(said, {"x": [Turn(0, 10, "s")]})
    assert found.value == 0.5
    assert found.counts.failed == 1
    with pytest.raises(DataError, match="no speech that is scored"):
        diarization({"x": []}, {})
    with pytest.raises(DataError, match="lasts from 3 to 1 s"):
        diarization({"x": [Turn(3, 1, "A")]}, {})
    with pytest.raises(ConfigError, match="collar is -1"):
        diarization(said, {}, collar=-1)
    rttm = tmp_path / "x.rttm"
    rttm.write_text("SPKR-INFO x 1 <NA> <NA> <NA> unknown A <NA>\nSPEAKER x 1 0.50 1.25 <NA> <NA> A <NA> <NA>\n")
    assert read_rttm(rttm) == {"x": [Turn(0.5, 1.75, "A")]}
    rttm.write_text("SPEAKER x 1 zero 1.25 <NA> <NA> A\n")
    with pytest.raises(DataError, match="line 1 is no SPEAKER line"):
        read_rttm(rttm)
    with pytest.raises(DataError, match="cannot be read"):
        read_rttm(tmp_path / "absent.rttm")
