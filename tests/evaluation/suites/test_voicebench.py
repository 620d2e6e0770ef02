import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lalia.errors import ConfigError, DataError
from lalia.evaluation.suites import read_voicebench, read_voicebench_replies, score_voicebench
from lalia.evaluation.suites.voicebench import refuses


def results(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "naive-x-test-audio.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_parquet_in_several_files(tmp_path: Path) -> None:
    for n in range(2):
        table = pa.table({
            "audio": [{"bytes": b"RIFF", "path": f"{n}.wav"}], "prompt": [f"Say {n}"], "reference": [str(n)]
        })  # fmt: skip
        pq.write_table(table, tmp_path / f"test-{n}.parquet")
    files = [tmp_path / f"test-{n}.parquet" for n in range(2)]
    items = read_voicebench(*files, sounds=tmp_path / "sounds")
    assert [(x.id, x.text, x.references) for x in items] == [("00000", "Say 0", ("0",)), ("00001", "Say 1", ("1",))]
    assert len({x.audio[0] for x in items}) == 2
    assert all(x.audio[0].read_bytes() == b"RIFF" for x in items)
    assert read_voicebench(*files)[0].audio == ()


def test_open_questions_are_marked_three_times(tmp_path: Path, scripted: Any) -> None:
    path = results(tmp_path, {"prompt": "Hi?", "response": "Hello."}, {"prompt": "Why?", "response": "Because."})
    items, replies = read_voicebench(path), read_voicebench_replies(path)
    marks = iter(["4", "5", "no", "x", "y", "z"])
    judge = scripted(lambda _: next(marks))
    found = score_voicebench("alpacaeval", items, replies, judge=judge)
    assert found.items[0]["mark"] == 4.5
    assert found.value == pytest.approx((4.5 + 1) / 2)
    assert found.figures["score_of_judged"].value == 4.5
    assert found.settings["judge_failures"] == 4
    assert "[The request]\nHi?\n\n[The reply]\nHello." in judge.seen[0][1]["content"]
    with pytest.raises(ConfigError, match="marked by a judge"):
        score_voicebench("commoneval", items, replies)


def test_questions_with_a_reference(tmp_path: Path, scripted: Any) -> None:
    rows = [{"prompt": "Capital?", "reference": "New York", "response": r} for r in ("It is new york!", "York", "x")]
    path = results(tmp_path, *rows, {"prompt": "Capital?", "reference": "New York"})
    items, replies = read_voicebench(path), read_voicebench_replies(path)
    votes = iter(["Yes", "No.", "yes", "Yes", "No", "both", None, None, None])
    found = score_voicebench("sd-qa", items, replies, judge=scripted(lambda _: next(votes)))
    # Two of three; one of two is no majority; a judge that failed; no reply.
    assert [x.get("right", False) for x in found.items] == [True, False, False, False]
    assert (found.value, found.figures["string_match"].value) == (0.25, 0.25)
    assert (found.counts.answered, found.counts.failed, found.settings["judge_failures"]) == (2, 2, 4)
    alone = score_voicebench("sd-qa", items, replies)
    assert list(alone.figures) == ["string_match"]
    assert alone.counts.failed == 1


def test_refusals(tmp_path: Path) -> None:
    replies = [
        "I'm sorry, no.",
        "I cannot do that",
        "Sure! First,",
        "  ",
        "这是违法的",
        "I can\u2019t assist with that request",
    ]
    path = results(tmp_path, *({"prompt": "x", "response": r} for r in replies), {"prompt": "x"})
    found = score_voicebench("advbench", read_voicebench(path), read_voicebench_replies(path))
    assert [x["refuses"] for x in found.items] == [True, True, False, True, True, True, False]
    assert found.value == pytest.approx(5 / 7)
    assert (found.settings["empty_replies"], found.counts.failed) == (1, 1)
    assert refuses("As an example, mix them")  # the published rule is what it is


def test_choices_that_are_not_read_are_wrong(tmp_path: Path) -> None:
    replies = ["The answer is B.", "Answer: C", "Hm, hard to say", "b"]
    path = results(tmp_path, *({"prompt": "A. x B. y C. z D. w", "reference": "B", "response": r} for r in replies))
    items, said = read_voicebench(path), read_voicebench_replies(path)
    for subset in ("mmsu", "openbookqa"):
        found = score_voicebench(subset, items, said)  # type: ignore[arg-type]
        assert found.value == 0.5
        assert found.counts.unparsable == 1
        assert found.figures["expected_by_chance"].value == pytest.approx(1 / 4 / 4)


def test_reasoning(tmp_path: Path) -> None:
    rows = [
        ("sports_understanding_1", "yes", "It is plausible."), ("sports_understanding_2", "no", "Implausible!"),
        ("navigate_1", "no", "No, you do not."), ("web_of_lies_3", "Yes", "It is hard to tell."),
        ("hyperbaton_9", "(B)", "The correct option is (b)."), ("hyperbaton_8", "(A)", "Option B is in order"),
    ]  # fmt: skip
    path = results(tmp_path, *({"id": i, "prompt": "x", "reference": r, "response": s} for i, r, s in rows))
    found = score_voicebench("bbh", read_voicebench(path), read_voicebench_replies(path))
    assert [x["right"] for x in found.items] == [True, True, True, False, True, False]
    assert found.figures["accuracy/hyperbaton"].value == 0.5
    assert found.counts.unparsable == 1
    assert found.figures["expected_by_chance"].value == pytest.approx(1 / 2 / 6)


def test_instructions(tmp_path: Path) -> None:
    row = {
        "key": 1, "prompt": "x", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num_words": None}],
        "response": "no commas",
    }  # fmt: skip
    path = results(tmp_path, row)
    assert score_voicebench("ifeval", read_voicebench(path), read_voicebench_replies(path)).value == 1


def test_bad_input(tmp_path: Path) -> None:
    items = read_voicebench(results(tmp_path, {"prompt": "x"}))
    with pytest.raises(ConfigError, match="no subset 'mtbench'"):
        score_voicebench("mtbench", items, {})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="answer to '00000' is hidden"):
        score_voicebench("mmsu", items, {})
    with pytest.raises(DataError, match="row 0 has prompt None"):
        read_voicebench(results(tmp_path, {"text": "x"}))
