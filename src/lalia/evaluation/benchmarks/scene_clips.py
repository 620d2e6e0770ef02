"""What is said in the scenes of ``lalia eval``, beside the bundled questions.

The sounds are 16 kHz Opus in ``spoken_in_scenes/``, made by ``runs/mini/scenes.py`` with Kokoro-82M (Apache-2.0) and
flite (CMU's licence, like BSD's). Users have the voices that ask the bundled questions; others have further ones.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lalia.data import Manifest, Utterance

__all__ = ["SCENE_CLIPS", "SCENE_TEXTS", "Said", "keys", "pause_of", "said"]

SCENE_CLIPS = Path(__file__).parent / "spoken_in_scenes"
SCENE_TEXTS: Mapping[str, Any] = json.loads((SCENE_CLIPS / "texts.json").read_text("utf-8"))

Said = Literal["backchannel", "stop", "again", "more", "aside", "other"]
"""A short sign of listening; a word that stops; another question; what goes on with a question; to somebody else, by
the user and by others."""


@cache
def _clips() -> Mapping[str, tuple[Utterance, ...]]:
    found: dict[str, list[Utterance]] = {}
    for u in Manifest.load(SCENE_CLIPS / "manifest.jsonl"):
        found.setdefault(u.id.rpartition("-")[0], []).append(u)
    return {kind: tuple(clips) for kind, clips in found.items()}


def said(kind: Said, speaker: str | None = None) -> list[Utterance]:
    """The clips of a kind, in order.

    :param speaker: those of one voice only.
    """
    return [u for u in _clips()[kind] if speaker in (None, u.speaker)]


def keys(text: str) -> tuple[str, ...]:
    """Words any of which a right answer to another question has."""
    return next((tuple(t["key"]) for t in SCENE_TEXTS["again"] if t["text"] == text), ())


@cache
def _pauses() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = json.loads((SCENE_CLIPS / "pauses.json").read_text("utf-8"))
    return found


def pause_of(question: str) -> float:
    """Where a bundled question can be parted between two words, in seconds."""
    return float(_pauses()[question]["at"])
