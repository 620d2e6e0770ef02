import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.errors import AudioError, DataError
from lalia.evaluation.suites import read_voxeval, read_voxeval_replies, score_voxeval, shots_of, spoken_prompt

RATE = 8_000
SUBJECT = "college_mathematics_4o"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "VoxEval"
    test = root / "test"
    for place, parts, n in (
        (test / "alloy" / SUBJECT, ("question",), 2),
        (root / "all_fewshot_examples" / "alloy" / SUBJECT, ("question", "answer"), 5),
        (root / "math_CoT_fewshot" / "alloy" / "college_mathematics_dev_4o", ("question", "CoT_answer"), 3),
    ):
        place.mkdir(parents=True)
        for i in range(n):
            for part in parts:
                # An MP3 holds whole frames, of which a reader finds the length in the file.
                sound = 0.1 * torch.sin(torch.arange(RATE * (2 + i)) * 0.2)[None, None]
                Audio(sound, RATE).save(place / f"{i:08d}_{part}.mp3")
    with open(test / f"{SUBJECT}.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["What, is 1 + 1?", "one", "two", "three", "four", "B"],
                ["And 2 + 2?", "one", "two", "three", "four", "D"],
            ]
        )
    return root


def test_reading_and_scoring(folder: Path, tmp_path: Path) -> None:
    items = read_voxeval(folder)
    assert [x.id for x in items] == [f"{SUBJECT}/00000000", f"{SUBJECT}/00000001"]
    assert items[0].text == "What, is 1 + 1?"
    assert (items[0].references, items[0].extra["letter"]) == (("two",), "B")
    assert items[1].audio == (folder / "test" / "alloy" / SUBJECT / "00000001_question.mp3",)
    results = tmp_path / "alloy_5shot"
    results.mkdir()
    with open(results / f"{SUBJECT}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["q", *"wxyz", "B", " The answer is B."], ["q", *"wxyz", "D", ""]])
    replies = read_voxeval_replies(results)
    assert replies == {f"{SUBJECT}/00000000": " The answer is B."}
    found = score_voxeval(items, replies, recognizer="whisper-large-v3")
    assert found.value == 0.5
    assert found.figures[f"accuracy/{SUBJECT}"].value == 0.5
    assert (found.counts.answered, found.counts.failed) == (1, 1)
    assert found.settings == {"recognizer": "whisper-large-v3", "setting": ["alloy"]}


def test_the_prompt_is_joined_with_silence_and_cut(folder: Path) -> None:
    item = read_voxeval(folder)[0]
    pieces = [
        Audio.load(folder / "all_fewshot_examples" / "alloy" / SUBJECT / f"{i:08d}_{part}.mp3")
        for i in range(5) for part in ("question", "answer")
    ]  # fmt: skip
    question = Audio.load(item.audio[0])
    two = spoken_prompt(shots_of(folder, item, shots=1), item.audio[0])
    joined = np.concatenate(
        [x for p in (*pieces[:2], question) for x in (p.samples[0, 0].numpy(), np.zeros(RATE, np.float32))][:-1]
    )
    np.testing.assert_array_equal(two.samples[0, 0].numpy(), joined)
    whole = spoken_prompt(shots_of(folder, item), item.audio[0])
    assert whole.seconds == pytest.approx(sum(p.seconds for p in pieces) + 10 + question.seconds)
    thought = spoken_prompt(shots_of(folder, item, thought=True), item.audio[0])
    assert thought.seconds == pytest.approx(2 * (2 + 3 + 4) + 6 + 2, abs=0.8)


def test_the_end_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = read_voxeval(folder)[0]
    whole = spoken_prompt(shots_of(folder, item), item.audio[0])
    monkeypatch.setattr("lalia.evaluation.suites.voxeval._KEPT", 5.0)
    cut = spoken_prompt(shots_of(folder, item), item.audio[0])
    assert cut.seconds == 5
    np.testing.assert_array_equal(cut.samples.numpy(), whole.samples[..., -5 * RATE :].numpy())


def test_bad_input(folder: Path) -> None:
    with pytest.raises(DataError, match="has no subjects"):
        read_voxeval(folder / "test")
    with pytest.raises(DataError, match="cannot be read"):
        read_voxeval(folder, subjects=["absent"])
    (folder / "test" / "bad.csv").write_text("question,a,b,c,d,E\n")
    with pytest.raises(DataError, match="row 0 is no question"):
        read_voxeval(folder, subjects=["bad"])
    with pytest.raises(DataError, match="has no results"):
        read_voxeval_replies(folder)
    item = read_voxeval(folder, setting="echo", subjects=[SUBJECT])[0]
    with pytest.raises(AudioError):
        spoken_prompt(shots_of(folder, item), item.audio[0])
