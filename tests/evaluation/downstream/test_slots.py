import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.downstream import read_slots, slot_filling

jiwer = pytest.importorskip("jiwer")

slots = st.dictionaries(
    st.sampled_from(["city", "date", "artist"]), st.lists(st.sampled_from(["new york", "york", "may"]), min_size=1)
)


def naive(said: list[dict[str, list[str]]], heard: list[dict[str, list[str]]]) -> tuple[float, float]:
    scores, pairs = [], []
    for a, b in zip(said, heard, strict=True):
        if not a and not b:
            scores.append(1.0)
        else:
            precision = sum(k in a for k in b) / len(b) if b else 0.0
            recall = sum(k in b for k in a) / len(a) if a else 0.0
            scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        for kind, values in a.items():
            pairs += [(v, min(b.get(kind, [""]), key=lambda w, v=v: jiwer.cer(v, w))) for v in values]
    return sum(scores) / len(scores), jiwer.cer([v for v, _ in pairs], [w for _, w in pairs]) if pairs else 0.0


@settings(max_examples=25)
@given(st.lists(st.tuples(slots, slots), min_size=1, max_size=5))
def test_agrees_with_the_definition(pairs: list[tuple[dict[str, list[str]], dict[str, list[str]]]]) -> None:
    said, heard = ({str(i): p[side] for i, p in enumerate(pairs)} for side in (0, 1))
    f1, cer = naive([a for a, _ in pairs], [b for _, b in pairs])
    if not any(said.values()):
        with pytest.raises(DataError, match="no slot with a value"):
            slot_filling(said, heard)
        return
    found = slot_filling(said, heard)
    assert found.value == pytest.approx(f1)
    assert found.figures["slot_value_cer"].value == pytest.approx(cer)


def test_reading() -> None:
    text = "book  B-party_size five E-party_size in B-city new  york E-city and B-city rome E-city B-open x"
    assert read_slots(text) == {"party_size": ["five"], "city": ["new york", "rome"]}
    assert read_slots("B-a x B-b y E-b E-a") == {"a": ["x y"]}
    assert read_slots("nothing") == {}


def test_missing_predictions_have_no_slots() -> None:
    found = slot_filling({"a": {"city": ["rome"]}, "b": {}}, {"b": {}})
    assert (found.value, found.figures["slot_value_cer"].value, found.counts.failed) == (0.5, 1.0, 1)
