import json
from pathlib import Path
from typing import Any

import pytest

from lalia.errors import DataError
from lalia.evaluation.suites import read_mmau, read_mmau_replies, score_mmau


def question(n: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"q{n}", "audio_id": f"./test-mini-audios/q{n}.wav", "question": "Who speaks?",
        "choices": ["Man", "Woman", "A child"], "answer": "Woman", "dataset": "AudioSet", "task": "speech",
        "split": "test-mini", "category": "Reasoning", "sub-category": "Source", "difficulty": "easy", **more,
    }  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "mmau-test-mini.json"
    path.write_text(json.dumps(rows))
    return path


def test_both_keys_are_read_and_what_is_missing_is_wrong(tmp_path: Path) -> None:
    rows = [
        question(0, model_prediction="It is a woman."), question(1, model_output="woman"), question(2),
        question(3, model_output="(B)", task="sound", difficulty="hard"),
        question(4, model_output="A woman, not a man"), question(5, model_output="..."),
    ]  # fmt: skip
    path = write(tmp_path, rows)
    items, replies = read_mmau(path), read_mmau_replies(path)
    assert items[0].audio == (tmp_path / "test-mini-audios" / "q0.wav",)
    assert items[0].extra["dataset"] == "AudioSet"
    assert sorted(replies) == ["q0", "q1", "q3", "q4", "q5"]
    found = score_mmau(items, replies, version="v05.15.25")
    # "It is a woman": "a" is a word that only the wrong "A child" has.
    assert [x["right"] for x in found.items] == [False, True, False, False, False, False]
    assert found.value == pytest.approx(1 / 6)
    assert (found.counts.asked, found.counts.answered, found.counts.unparsable, found.counts.failed) == (6, 4, 1, 1)
    assert found.figures["accuracy/task/sound"].value == 0
    assert found.figures["accuracy/difficulty/easy"].value == pytest.approx(1 / 5)
    assert found.figures["accuracy_as_read"].value == pytest.approx(4 / 6)
    assert found.settings["version"] == "v05.15.25"
    json.dumps(found.to_dict(), allow_nan=False)


def test_hidden_answers_and_other_files(tmp_path: Path) -> None:
    hidden = question(0)
    del hidden["answer"]
    with pytest.raises(DataError, match="answer to 'q0' is hidden"):
        score_mmau(read_mmau(write(tmp_path, [hidden])), {"q0": "x"})
    with pytest.raises(DataError, match="'Child', none of its choices"):
        score_mmau(read_mmau(write(tmp_path, [question(0, answer="Child")])), {})
    with pytest.raises(DataError, match="question 0 has audio_id None"):
        read_mmau(write(tmp_path, [{"id": "x"}]))
    with pytest.raises(DataError, match="prediction for 'other'"):
        score_mmau(read_mmau(write(tmp_path, [question(0)])), {"other": "x"})
