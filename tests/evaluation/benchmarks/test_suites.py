"""Public suites by the command's frame: a model is asked in sound and words, and its replies are scored."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lalia.audio import Audio
from lalia.errors import AudioError, ConfigError, DataError
from lalia.evaluation.benchmarks import BENCHMARKS, Bench, evaluate, table
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.benchmarks.suites import SUITES


class Talks:
    """Says what it is told to say, by the length of what it hears; remembers how it was asked."""

    def __init__(self, says: Any) -> None:
        self.says, self.asked = says, []

    def dialogue(self, *, system: str | None = None, **settings: Any) -> Any:
        def answer(said: Any, *, typed: bool = False) -> Any:
            self.asked.append((system, said if typed else round(said.seconds, 2), settings))
            text = self.says(said, system)
            if text is None:
                raise AudioError("It hears nothing. Give another.")
            return SimpleNamespace(text=text)

        return SimpleNamespace(answer=answer)


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    return [q.load().save(tmp_path / f"{i}.wav") for i, q in enumerate(questions(4))]


def bench(model: Any, path: Path, **settings: Any) -> Bench:
    return Bench(model, "m", "m", path=path, **settings)


def test_questions_in_sound_alone(sounds: list[Path], tmp_path: Path) -> None:
    rows = [
        {"prompt": "Which? A, B, C or D?", "reference": letter, "audio": str(p)}
        for letter, p in zip("ABCD", sounds, strict=True)
    ]
    file = tmp_path / "openbookqa.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    replies = iter(["Warm up.", "The answer is A.", "B", "I do not know.", None, None])
    model = Talks(lambda said, system: next(replies))
    result = evaluate(bench(model, file, folder=tmp_path / "kept", batch_size=1), ["voicebench-openbookqa"])
    found = result["results"]["voicebench-openbookqa"]
    figures = {f["key"]: f["value"] for f in found["figures"]}
    assert figures["accuracy"] == 0.5
    assert "4 asked, 2 answered, 1 without an answer to be found, 1 failed" in str(found)
    assert "It hears nothing" in next(iter(found["counts"]["failures"].values()))
    # Nothing of the question is told in words.
    assert all(system is None for system, *_ in model.asked)
    assert "accuracy" in table(result)
    again = bench(None, file, folder=tmp_path / "kept", score_only=True)
    assert evaluate(again, ["voicebench-openbookqa"])["results"] == result["results"]


def test_questions_about_a_sound(sounds: list[Path], tmp_path: Path) -> None:
    rows = [
        {
            "id": f"q{i}",
            "audio_id": p.name,
            "question": "What is heard?",
            "choices": ["a dog", "a bell"],
            "answer": "a bell",
            "task": "sound",
            "difficulty": "easy",
        }
        for i, p in enumerate(sounds[:2])
    ]
    (tmp_path / "mmau.json").write_text(json.dumps(rows))
    model = Talks(
        lambda said, system: "a bell" if said.seconds == Audio.load(sounds[0]).to(16_000).seconds else "a dog"
    )
    found = SUITES["mmau"].run(bench(model, tmp_path / "mmau.json"))
    assert found.figures[0].estimate.value == 0.5
    assert [system for system, *_ in model.asked] == ["What is heard?\nA. a dog\nB. a bell"] * 2


def test_letters_are_those_of_all_choices(sounds: list[Path], tmp_path: Path) -> None:
    asked = {
        "Which notes are heard?": ["no", "yes"],
        "Is it a man or a woman?": ["man", "woman", "child"],
        "Is it near or far?": ["near", "far"],
    }
    rows = [
        {"id": f"q{i}", "audio_id": sounds[i].name, "question": q, "choices": c, "answer": c[1], "task": "sound"}
        for i, (q, c) in enumerate(asked.items())
    ]
    (tmp_path / "mmau.json").write_text(json.dumps(rows))
    model = Talks(lambda said, system: "(B)")
    found = SUITES["mmau"].run(bench(model, tmp_path / "mmau.json", folder=tmp_path / "kept"))
    assert [system for system, *_ in model.asked] == [
        "Which notes are heard?\nA. no\nB. yes",
        "Is it a man or a woman?\nA. man\nB. woman\nC. child",
        "Is it near or far?",
    ]
    assert {f.key: f.estimate.value for f in found.figures}["accuracy_as_read"] == 1.0
    # Where the files lie is no part of what is asked.
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (tmp_path / "mmau.json", *sounds[:3]):
        file.rename(moved / file.name)
    again = bench(None, moved / "mmau.json", folder=tmp_path / "kept", score_only=True)
    assert SUITES["mmau"].run(again).figures == found.figures


def test_several_recordings_are_one_turn(sounds: list[Path], tmp_path: Path) -> None:
    instance = tmp_path / "Same"
    instance.mkdir()
    for p in sounds[:2]:
        (instance / p.name).write_bytes(p.read_bytes())
    metadata = {
        "0.wav": {"instruction": "Is it the same?", "label": "no", "file2": "1.wav"},
        "1.wav": {"instruction": "Is it the same?", "label": "yes"},
    }
    (instance / "metadata.json").write_text(json.dumps(metadata))
    model = Talks(lambda said, system: "no")
    found = SUITES["dynamic-superb"].run(bench(model, instance / "metadata.json"))
    lengths = [Audio.load(p).seconds for p in sounds[:2]]
    heard = sorted(seconds for _, seconds, _ in model.asked)
    assert heard == pytest.approx(sorted([lengths[1], lengths[0] + 1 + lengths[1]]), abs=0.02)
    assert found.figures[0].estimate.value == 0.5


class Marks:
    name, version = "marks", "1"

    def __call__(self, messages: Any) -> str:
        return "4"


def test_who_marks_has_to_be_named(sounds: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "alpacaeval.jsonl"
    file.write_text(json.dumps({"prompt": "Say something.", "audio": str(sounds[0])}) + "\n")
    model = Talks(lambda said, system: "Something.")
    with pytest.raises(ConfigError, match="marked by a judge"):
        SUITES["voicebench-alpacaeval"].run(bench(model, file))
    found = SUITES["voicebench-alpacaeval"].run(bench(model, file, marker=Marks()))
    assert found.figures[0].estimate.value == 4.0
    row = {"utt_id": "1", "wav_path": "0.wav", "transcript": "Hi", "info": "sad", "target": []}
    (tmp_path / "emo.json").write_text(json.dumps([row]))
    with pytest.raises(ConfigError, match="sd-eval-test-emo is marked by a judge"):
        SUITES["sd-eval-test-emo"].run(bench(model, tmp_path / "emo.json"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No file of mmau was named"):
        SUITES["mmau"].run(Bench(Talks(lambda *_: ""), "m", "m"))


def test_other_processes_can_ask() -> None:
    for benchmark in BENCHMARKS.values():
        if isinstance(benchmark, InSteps):
            assert pickle.loads(pickle.dumps(benchmark.ask)).__self__.name == benchmark.name
