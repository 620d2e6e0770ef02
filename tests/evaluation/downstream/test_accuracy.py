import statistics

import pytest

from lalia.errors import DataError
from lalia.evaluation.downstream import accuracy, read_choice
from lalia.evaluation.statistics import wilson


def test_what_cannot_be_read_is_wrong_and_said_to_be() -> None:
    choices = ["yes", "no"]
    found = accuracy(
        {"a": 0, "b": 1, "c": 0, "d": 0},
        {"a": "Yes.", "b": "Yes!", "c": "perhaps"},
        read=lambda _, reply: read_choice(reply, choices),
    )
    assert found.value == 0.25
    assert (found.figures["accuracy"].low, found.figures["accuracy"].high) == wilson(1, 4)
    counts = found.counts
    assert (counts.asked, counts.answered, counts.unparsable, counts.failed) == (4, 2, 1, 1)
    assert [x["right"] for x in found.items] == [True, False, False, False]


def test_folds() -> None:
    references = {f"{i:02}": "x" for i in range(20)}
    predictions = {key: "x" if int(key) % 5 < 2 or int(key) < 5 else "y" for key in references}
    folds = {key: f"fold{int(key) // 4}" for key in references}
    found = accuracy(references, predictions, folds=folds)
    values = [statistics.mean(predictions[k] == "x" for k in references if folds[k] == f"fold{f}") for f in range(5)]
    assert found.value == pytest.approx(statistics.mean(values))
    assert found.settings["deviation"] == pytest.approx(statistics.stdev(values))
    assert list(found.settings["folds"].values()) == pytest.approx(values)
    half = 2.776 * statistics.stdev(values) / 5**0.5
    assert found.figures["accuracy_over_folds"].high == pytest.approx(min(statistics.mean(values) + half, 1))
    with pytest.raises(DataError, match="'00' has no fold"):
        accuracy(references, predictions, folds={})
    with pytest.raises(DataError, match="1 folds"):
        accuracy(references, predictions, folds=dict.fromkeys(references, 1))
