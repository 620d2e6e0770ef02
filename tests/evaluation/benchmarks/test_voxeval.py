"""VoxEval by the command's frame: what is heard, what is said, and who writes that down."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.errors import AudioError, DataError
from lalia.evaluation.benchmarks import Bench
from lalia.evaluation.benchmarks.voxeval import VoxEval

RATE = 8_000
SUBJECTS = ("anatomy_test", "algebra_4o")


def sound(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Audio(0.1 * torch.sin(torch.arange(round(RATE * seconds)) * 0.2)[None, None], RATE).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "VoxEval"
    for subject in SUBJECTS:
        (root / "test").mkdir(parents=True, exist_ok=True)
        with open(root / "test" / f"{subject}.csv", "w", newline="") as file:
            csv.writer(file).writerows([[f"{n} + 1?", "one", "two", "three", "four", "ABCD"[n]] for n in range(2)])
        for voice in ("alloy", "echo"):
            for n in range(2):
                sound(root / "test" / voice / subject / f"{n:08d}_question.mp3", 1 + n)
            for n in range(5):
                shots = root / "all_fewshot_examples" / voice / subject.replace("_test", "_val")
                for part in ("question", "answer"):
                    sound(shots / f"{n:08d}_{part}.mp3", 0.5)
    for n in range(3):
        for part in ("question", "CoT_answer"):
            sound(root / "math_CoT_fewshot" / "alloy" / "algebra_dev_4o" / f"{n:08d}_{part}.mp3", 0.5)
    return root


class Talks:
    """Answers at a length that is its place in the order of asking, spoken or in words."""

    def __init__(self, speaks: bool = True) -> None:
        self.heard: list[float] = []
        self.speaks = speaks

    def dialogue(self, **settings: Any) -> Any:
        def answer(said: Audio) -> Any:
            self.heard.append(said.seconds)
            if len(self.heard) == 4 and self.speaks:
                raise AudioError("It hears nothing. Give another.")
            audio = Audio(0.1 * torch.ones(1, 1, RATE * len(self.heard)), RATE)
            return SimpleNamespace(text="the answer is A", audio=audio if self.speaks else None)

        return SimpleNamespace(answer=answer)


class Writes:
    """Says B of what lasts two seconds, and nothing of what is longer."""

    name, version = "writes", "1"

    def __call__(self, recordings: Any) -> list[str]:
        return [["", "A.", "The answer is B.", "I do not know."][round(a.seconds)] for a in recordings]


def bench(model: Any, path: Path | None, **settings: Any) -> Bench:
    made = Bench(model, "m", "m", path=path, **settings)
    made.__dict__ |= {"judge": Writes()}
    return made


def test_replies_are_heard(folder: Path, tmp_path: Path) -> None:
    model = Talks()
    found = VoxEval().run(bench(model, folder, folder=tmp_path / "kept"))
    figures = {f.key: f.estimate.value for f in found.figures}
    # algebra: A and B, of which both are right; anatomy: nothing said, and nothing heard.
    assert figures["accuracy"] == 0.5
    assert figures["accuracy/algebra_4o"] == 1.0
    assert "4 asked, 2 answered, 1 without an answer to be found, 1 failed" in found.notes[-1]
    # Five examples with answers, a question, and a second between any two.
    assert model.heard[0] == pytest.approx(10 * 0.5 + 10 + 1, abs=1.0)
    assert model.heard[1] - model.heard[0] == pytest.approx(1, abs=0.1)
    again = VoxEval().run(bench(None, folder, folder=tmp_path / "kept", score_only=True))
    assert again == found


def test_words_where_nothing_is_said(folder: Path) -> None:
    found = VoxEval().run(bench(Talks(speaks=False), folder / "test" / "echo", limit=2))
    assert found.settings["setting"] == ["echo"]
    assert "2 of 2 replies are not spoken" in found.notes[-2]
    assert found.figures[0].estimate.value == 0.5


def test_thoughts_are_of_mathematics(folder: Path) -> None:
    found = VoxEval(thought=True).run(bench(Talks(), folder))
    assert {x["group"] for x in found.items} == {"algebra_4o"}
    with pytest.raises(DataError, match="no examples with a chain of thought for echo"):
        VoxEval(thought=True).run(bench(Talks(), folder / "test" / "echo"))
    with pytest.raises(DataError, match="No folder of voxeval was named"):
        VoxEval().run(bench(Talks(), None))
