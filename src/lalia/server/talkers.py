"""The models that a server offers, as sessions and requests take them."""

from collections.abc import Iterable, Iterator
from typing import Any

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.lm import ContinuousBatch, SpeechLM
from lalia.model.dialogue import Dialogue
from lalia.model.model import Model
from lalia.realtime import Listening, Patience

__all__ = ["Talker", "Talkers"]


class Talker:
    """A model that is talked to, by its name.

    :raises ConfigError: it keeps no conversation.
    """

    def __init__(self, name: str, model: Model) -> None:
        if model.recipe.talk is None:
            raise ConfigError(f"Model {name!r} keeps no conversation of turns. Serve another, like mini.")
        self.name, self.model = name, model
        self.speaks = model.vocoder is not None
        self.voices = _voices(model)
        # Everything that is done at a first use alone is done before anybody waits.
        model.dialogue()
        lm = model.lms[model.recipe.talk.lm]
        assert isinstance(lm, SpeechLM)
        self._batch = ContinuousBatch(lm)

    def dialogue(self, **settings: Any) -> Dialogue:
        """A new conversation, whose replies are written together with those of the others."""
        return self.model.dialogue(batch=self._batch, **settings)

    def voice(self, name: str | None) -> int | None:
        """The number of a voice; the first where none is named, or one of OpenAI's that every client has by default.

        :raises ConfigError: there is none of that name.
        """
        if not self.speaks or name is None or name in _FOREIGN:
            return self.model.voice(None) if self.speaks else None
        return self.model.voice(name)

    def drafts(self, audio: Audio) -> Iterator[str]:
        """What is said in a recording, as it is understood piece by piece, and at the end the whole of it."""
        mind = self.dialogue(speak=False)
        heard = audio.to(Listening.sample_rate)
        for start in range(int(heard.seconds) + 1):
            piece = heard.cut(float(start), 1.0)
            if piece.samples.shape[-1]:
                yield mind.listen(piece)
        yield self.model.transcribe(audio)

    def patience(self, eagerness: str) -> Patience | None:
        """How long to wait for the user to go on, where that hangs on what he said."""
        return _words(eagerness)


def _voices(model: Model) -> tuple[str, ...]:
    """The names of its voices; numbers where they have none."""
    if model.vocoder is None:
        return ()
    names, count = model.recipe.voice_names, max(model.vocoder.num_speakers, 1)
    return (*names[:count], *(str(i) for i in range(len(names), count)))


_FOREIGN = {
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse", "marin", "cedar"),
}
"""Voices of OpenAI: what was written for these is spoken in the first one here."""


def _words(eagerness: str) -> Patience:
    least, most = {"low": (0.8, 4.0), "medium": (0.5, 2.0), "high": (0.3, 1.0), "auto": (0.5, 2.0)}[eagerness]

    def patience(_: Any, draft: str) -> float:
        return least if draft.rstrip().endswith((".", "?", "!")) else most

    return patience


class Talkers:
    """All of them; the first is the one that is meant where none is named."""

    def __init__(self, talkers: Iterable[Talker]) -> None:
        self._talkers = {t.name: t for t in talkers}

    def __iter__(self) -> Any:
        return iter(self._talkers.values())

    @property
    def first(self) -> Talker:
        """The default."""
        return next(iter(self._talkers.values()))

    def find(self, name: str | None) -> Talker:
        """:raises ConfigError: there is none of that name."""
        if name is None:
            return self.first
        if name not in self._talkers:
            raise ConfigError(f"There is no model {name!r} here. Choose {' or '.join(self._talkers)}.")
        return self._talkers[name]
