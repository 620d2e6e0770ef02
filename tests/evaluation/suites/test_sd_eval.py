import json
from pathlib import Path
from typing import Any

import pytest

from lalia.errors import ConfigError
from lalia.evaluation.suites import read_sd_eval, score_sd_eval
from lalia.evaluation.suites.judged import read_mark


def rows() -> list[dict[str, Any]]:
    return [
        {
            "wav_path": f"RAVDESS-Speech/{i}.wav", "transcript": "Kids are talking by the door", "utt_id": f"u{i}",
            "target": [{"reply": "Are they?", "reply_emotion": "sadness"}, {"reply": "Oh."}], "info": info,
        }
        for i, info in enumerate(("sadness", "anger", "anger", "anger"))
    ]  # fmt: skip


def test_marks_by_emotion(tmp_path: Path, scripted: Any) -> None:
    (tmp_path / "test-emo.json").write_text(json.dumps(rows()))
    items = read_sd_eval(tmp_path / "test-emo.json", sounds=tmp_path / "audio")
    assert items[0].audio == (tmp_path / "audio" / "RAVDESS-Speech" / "0.wav",)
    assert items[0].references == ("Are they?", "Oh.")
    judge = scripted(lambda shown: "It fits. Rating: [[8]]" if "Sadness" in shown else "It is fine.")
    found = score_sd_eval("test-emo", items, {"u0": "a", "u1": "b", "u2": "c"}, judge)
    assert [x["mark"] for x in found.items] == [8.0, None, None, None]
    assert found.value == pytest.approx((8 + 1 + 1 + 1) / 4)
    assert found.figures["score/sadness"].value == 8
    assert found.figures["score/anger"].value == 1
    assert found.figures["score_of_judged"].value == 8
    assert (found.counts.answered, found.counts.failed, found.settings["judge_failures"]) == (1, 3, 2)
    assert "[The user's emotion]\nSadness" in judge.seen[0][1]["content"]
    assert "emotion" in judge.seen[0][0]["content"]
    other = scripted(lambda _: "9")
    score_sd_eval("test-emo", items, {"u0": "a"}, other, instruction="Mark it.")
    assert other.seen[0][0]["content"] == "Mark it."
    with pytest.raises(ConfigError, match="no set 'test-x'"):
        score_sd_eval("test-x", items, {}, judge)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "mark"),
    [
        ("Rating: [[5]]", 5), ("[[10]]", 10), ("Rating: [7]", 7), ("7", 7), ("Score: 3", 3), ("The rating is 4.", 4),
        ("7/10", 7), ("8 points", 8), ("7.5", 7.5), ("Rating: [[11]]", None), ("0", None), ("It has 3 faults", None),
        ("Ratings are from 1 to 10", None), ("", None), ("score: 1-5", None),
    ],
)  # fmt: skip
def test_reading_marks(said: str, mark: float | None) -> None:
    assert read_mark(said, 1, 10) == mark
