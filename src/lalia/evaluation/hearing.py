"""A model of lalia as a recogniser: what it hears, without padding to half a minute, and without its voice."""

from collections.abc import Sequence
from typing import Protocol

from lalia.audio import Audio

__all__ = ["Hearing", "Transcribes"]


class Transcribes(Protocol):
    """A model that writes down what is said."""

    def transcribe(self, audio: Audio, /, *, beams: int = 5) -> str: ...


class Hearing:
    """What a model hears, greedily.

    :param name: of the model.
    :param version: of its weights.
    """

    def __init__(self, model: Transcribes, *, name: str, version: str) -> None:
        self._model, self.name, self.version = model, name, version

    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        """The text of each recording."""
        return [self._model.transcribe(audio, beams=0) for audio in recordings]
