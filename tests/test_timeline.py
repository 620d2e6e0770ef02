"""The picture of a conversation in time is drawn from a real one."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch

from lalia.audio import Audio
from lalia.model import Model
from lalia.recipes import find
from programs import program_at

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def timeline() -> Any:
    return program_at(ROOT / "tools/timeline.py")


def texts(picture: str) -> list[str]:
    return ["".join(e.itertext()) for e in ET.fromstring(picture).iter() if e.tag.endswith("text")]


def test_what_happens_is_where_it_happens(timeline: Any) -> None:
    asked, reply = Audio(torch.randn(16_000) / 8, 16_000), Audio(torch.randn(12_000) / 8, 24_000)
    picture = timeline.draw(
        asked, [(-0.4, "What"), (0.05, "What is <it>?")], [(0.1, "It"), (0.2, " is")], [(0.3, reply)]
    )
    said = " ".join(texts(picture))
    for part in ("you", "spoken", "What is <it>?", "It", "300 ms later"):
        assert part in said


def test_a_conversation_is_drawn(timeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Model(find("mini").tiny())
    monkeypatch.setattr(timeline.lalia, "load", lambda name: model)
    # What is spoken is not waited for.
    monkeypatch.setattr(timeline.time, "sleep", lambda seconds: None)
    timeline.main(str(ROOT / "examples/question.flac"), str(tmp_path / "it.svg"))
    assert "the question ends" in texts((tmp_path / "it.svg").read_text("utf-8"))
