"""What is asked of a model where nothing else is given: spoken questions, deliveries, and sentences to read out.

The sounds are 16 kHz Opus in ``spoken/``, made by ``runs/mini/spoken.py`` with Kokoro-82M (Apache-2.0) and flite
(CMU's licence, like BSD's), in voices that ``mini`` never trains on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.data import Manifest, Utterance

__all__ = ["HOME", "TEXTS", "Question", "questions", "recordings", "sentences"]

HOME = Path(__file__).parent / "spoken"
TEXTS: Mapping[str, Any] = json.loads((HOME / "texts.json").read_text("utf-8"))


@dataclass(frozen=True)
class Question:
    """A spoken question.

    :param key: words any of which a right answer has, in lower case; none where there is no one right answer.
    """

    utterance: Utterance
    key: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.utterance.id

    @property
    def text(self) -> str:
        assert self.utterance.text is not None
        return self.utterance.text

    def load(self) -> Audio:
        """The sound [1, 1, N]."""
        return self.utterance.load()


def questions(limit: int | None = None) -> list[Question]:
    """The bundled questions, each voice in turn.

    :param limit: the first ones only.
    """
    keys = {text["text"]: tuple(text.get("key", ())) for text in TEXTS["questions"]}
    return [Question(u, keys[str(u.text)]) for u in recordings("question-")[:limit]]


@cache
def _manifest() -> Manifest:
    return Manifest.load(HOME / "manifest.jsonl")


def recordings(prefix: str) -> list[Utterance]:
    """The recordings whose id begins so, in order."""
    return [u for u in _manifest() if u.id.startswith(prefix)]


def sentences(limit: int | None = None) -> list[str]:
    """Sentences as they occur in replies, to be read out: numbers, names and questions among them."""
    return list(TEXTS["sentences"][:limit])
