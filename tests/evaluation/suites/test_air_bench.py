import json
from pathlib import Path
from typing import Any

import pytest

from lalia.errors import DataError
from lalia.evaluation.suites import read_air_bench, read_air_bench_replies, score_air_chat, score_air_foundation

FOUNDATION = {
    "path": "a.wav", "question": "Which emotion?", "choice_a": "sad", "choice_b": "angry", "choice_c": "happy",
    "choice_d": None, "answer_gt": "happy", "task_name": "Speech_Emotion", "dataset_name": "MELD",
}  # fmt: skip
CHAT = {
    "path": "a.wav", "question": "What is said?", "meta_info": "somebody says hello", "answer_gt": "Hello is said.",
    "task_name": "speech_dialogue_QA", "dataset_name": "fisher",
}  # fmt: skip


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


def test_foundation(tmp_path: Path) -> None:
    rows = [{**FOUNDATION, "uniq_id": i} for i in range(4)]
    rows.append({**FOUNDATION, "uniq_id": 4, "task_name": "Audio_Grounding"})
    items = read_air_bench(write(tmp_path, "Foundation_meta.json", rows))
    assert items[0].choices == ("sad", "angry", "happy")
    assert items[0].text == "Which emotion?\nA. sad\nB. angry\nC. happy"
    assert items[0].audio == (tmp_path / "Speech_Emotion_MELD" / "a.wav",)
    assert items[4].audio == (tmp_path / "Audio_Grounding_MELD" / "a.flac",)
    results = [
        {**rows[0], "response": "Answer: C"}, {**rows[1], "response": "I cannot tell"}, {**rows[2], "response": "A"},
        {**rows[3], "response": None}, {**rows[4], "response": "They are happy."},
    ]  # fmt: skip
    replies = read_air_bench_replies(write(tmp_path, "Foundation_result_modelx.jsonl", results))
    found = score_air_foundation(items, replies)
    assert [x["right"] for x in found.items] == [True, False, False, False, True]
    assert (found.counts.answered, found.counts.unparsable, found.counts.failed) == (3, 1, 1)
    assert found.figures["accuracy"].value == pytest.approx(2 / 5)
    assert found.figures["accuracy/Speech_Emotion_MELD"].value == pytest.approx(1 / 4)
    assert found.figures["accuracy_of_answered"].value == pytest.approx(2 / 3)
    assert found.figures["expected_by_chance"].value == pytest.approx(2 / 3 / 5)


def test_chat_is_judged_in_both_orders(tmp_path: Path, scripted: Any) -> None:
    rows = [{**CHAT, "uniq_id": i} for i in range(3)]
    items = read_air_bench(write(tmp_path, "Chat_meta.json", rows))
    # It gives the first answer one more than the second, and the reply "good" two more.
    judge = scripted(
        lambda shown: None if "broken" in shown
        else f"{5 + 2 * (shown.index('good') < shown.index('Hello is'))} {4 + 2 * (shown.index('good') > shown.index('Hello is'))}"  # noqa: E501
    )  # fmt: skip
    found = score_air_chat(items, {"0": "good", "1": "broken"}, judge)
    by = {x["id"]: x for x in found.items}
    assert (by["0"]["mark"], by["0"]["reference"]) == (6.5, 4.5)
    assert by["0"]["group"] == "speech"
    assert "somebody says hello" in judge.seen[0][1]["content"]
    assert (found.counts.answered, found.counts.failed) == (1, 2)
    assert found.settings["judge_failures"] == 2
    # What failed has the lowest mark; it is not dropped.
    assert found.value == pytest.approx((6.5 + 1 + 1) / 3)
    assert found.figures["score_of_judged"].value == 6.5
    assert found.figures["wins"].value == 1
    assert found.settings["judge"] == {"name": "scripted", "version": "1"}


@pytest.mark.parametrize("said", ["7", "7 8 9", "eleven 4", "0 5", "11 3", ""])
def test_other_verdicts_are_failures(tmp_path: Path, scripted: Any, said: str) -> None:
    items = read_air_bench(write(tmp_path, "Chat_meta.json", [{**CHAT, "uniq_id": 0}]))
    found = score_air_chat(items, {"0": "x"}, scripted(lambda _: said))
    assert (found.counts.failed, found.settings["judge_failures"], found.value) == (1, 2, 1.0)


def test_bad_input(tmp_path: Path) -> None:
    items = read_air_bench(write(tmp_path, "x.json", [{**FOUNDATION, "uniq_id": 0, "answer_gt": "bored"}]))
    with pytest.raises(DataError, match="'bored', none of its choices"):
        score_air_foundation(items, {})
    with pytest.raises(DataError, match="question 0 has task_name None"):
        read_air_bench(write(tmp_path, "x.json", [{"path": "a"}]))
