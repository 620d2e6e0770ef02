"""Talking Turns by the command's frame: scenes that are played, and dialogues that are there already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks import Bench
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.talking_turns import TalkingTurns

RATE = 16_000


class Judge:
    """Finds everything as likely, what is loud a little more to go on."""

    name, version = "even", "1"

    def __init__(self, weights: str) -> None:
        self.heard: list[float] = []

    def __call__(self, audio: Audio) -> np.ndarray:
        self.heard.append(audio.seconds)
        rows = np.full((int((audio.seconds - 0.2) / 0.04), 5), 0.2)
        rows[:, 0] += 0.01
        return rows


@pytest.fixture(autouse=True)
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lalia.evaluation.benchmarks.talking_turns.TurnJudge", Judge)


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    """A question and an answer, on two channels and as a sample of Full-Duplex-Bench."""
    folder = tmp_path / "said"
    user, system = (q.load().to(RATE).samples[0, 0] for q in questions(2))
    n = len(user) + len(system)
    sides = [torch.nn.functional.pad(user, (0, n - len(user))), torch.nn.functional.pad(system, (n - len(system), 0))]
    (folder / "7").mkdir(parents=True)
    Audio(torch.stack(sides), RATE).save(folder / "two.wav")
    for name, side in zip(("input", "output"), sides, strict=True):
        Audio(side, RATE).save(folder / "7" / f"{name}.wav")
    return folder


def bench(model: Any, path: Path | None = None, judges: Sequence[str] = ("j",), **settings: Any) -> Bench:
    return Bench(model, "m", "m", path=path, judge_paths=judges, **settings)


def test_dialogues_that_are_there(dialogues: Path, tmp_path: Path) -> None:
    found = TalkingTurns().run(bench(None, dialogues, folder=tmp_path / "kept", score_only=True))
    assert [x["id"] for x in found.items] == ["7", "two"]
    figures = {f.key: f.estimate for f in found.figures}
    # The system speaks up behind the user's turn in both; the judge would have him go on.
    assert (figures["speak_up.done"].value, figures["speak_up.done"].n) == (0.0, 2)
    assert 0 < figures["f1.C"].value < 1
    assert figures["f1.overall"].n == 2
    assert "2 dialogues asked, 2 judged, 0 failed" in found.notes
    assert any("no areas under curves" in n for n in found.notes)
    assert (tmp_path / "kept" / "talking-turns" / "judged-by-even.jsonl").is_file()
    again = TalkingTurns().run(bench(None, dialogues, folder=tmp_path / "kept", score_only=True))
    assert str(again) == str(found)


def test_published_tables(tmp_path: Path) -> None:
    rows = "".join(f"d,{0.2 + 0.04 * k:.2f},{0.24 + 0.04 * k:.2f},{x},B\n" for k, x in enumerate(["NA"] * 3 + ["T"]))
    (tmp_path / "did.csv").write_text(rows)
    (tmp_path / "said.txt").write_text("d.wav" + " 0.1,0.1,0.1,0.1,0.6" * 4 + "\n")
    found = TalkingTurns().run(bench(None, tmp_path / "did.csv", [str(tmp_path / "said.txt")]))
    assert next(f for f in found.figures if f.key == "speak_up.done").estimate.value == 1.0
    assert found.settings["judge"]["name"] == "said.txt"
    with pytest.raises(DataError, match="has no sound for even to hear"):
        TalkingTurns().run(bench(None, tmp_path / "did.csv"))


class Echo:
    """A session that answers nothing."""

    def session(self, **settings: Any) -> Any:
        return self

    def push(self, piece: Audio) -> Sequence[Any]:
        return ()


def test_scenes_are_played(tmp_path: Path) -> None:
    found = TalkingTurns().run(bench(Echo(), folder=tmp_path / "kept", limit=1))
    assert [x["id"] for x in found.items] == sorted(x["id"] for x in found.items)
    assert len(found.items) == 7
    assert all(x["judged"] for x in found.items)
    assert not any(f.key.startswith("foresight") for f in found.figures)
    sound = Audio.load(tmp_path / "kept" / "talking-turns" / "audio" / "turn-01.flac", check=False)
    assert sound.samples.shape[1] == 2
    assert float(sound.samples[0, 1].abs().max()) == 0
    again = TalkingTurns().run(bench(None, folder=tmp_path / "kept", limit=1, score_only=True))
    assert str(again) == str(found)


def test_what_cannot_be_judged(dialogues: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="One judge tells what turns"):
        TalkingTurns().run(bench(Echo(), judges=()))
    with pytest.raises(DataError, match="No dialogue came of 7 scenes: It holds no conversation in real time"):
        TalkingTurns().run(bench(object(), limit=1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no dialogues"):
        TalkingTurns().run(bench(None, tmp_path / "empty"))
    questions(1)[0].load().save(dialogues / "mono.wav")
    with pytest.raises(DataError, match="has 1 channels"):
        TalkingTurns().run(bench(None, dialogues))


def test_the_command(dialogues: Path, tiny: Path, lalia: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = lalia("eval", tiny, "talking-turns", "--data", dialogues, "--judge", "j")
    assert ran.status == 0, ran.err
    assert "the judge agrees that it speaks up" in ran.out
    monkeypatch.undo()
    ran = lalia("eval", tiny, "talking-turns", "--data", dialogues, "--judge", dialogues / "none")
    assert ran.status == 2
    assert "is no folder. Fetch espnet/Turn_taking_prediction_SWBD" in ran.err
