"""The models that a server offers, as sessions and requests take them."""

import logging
import secrets
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

from lalia.audio import Audio
from lalia.errors import ConfigError, LaliaError
from lalia.lm import ContinuousBatch, SpeechLM
from lalia.model.dialogue import Dialogue
from lalia.model.duplex import duplex, duplex_lm
from lalia.model.model import Model
from lalia.realtime import Listening, Patience, TurnSession
from lalia.realtime.duplex import Duplex
from lalia.realtime.ends import Eagerness, Ends, SmartTurn, Words
from lalia.realtime.framed import Framed
from lalia.server.settings import Settings

__all__ = ["Talker", "Talkers"]

_log = logging.getLogger(__name__)

_AHEAD = 64
"""Tokens, of some 15 s, that a reply may be written ahead of where it is read: a row more in a step costs a fraction of
the step, and whoever is most urgent would else take most steps alone."""


class Talker:
    """A model that is talked to, by its name: one that keeps a conversation of turns, or one that talks at once.

    :raises ConfigError: it is neither.
    """

    def __init__(self, name: str, model: Model) -> None:
        self.name, self.model = name, model
        self.kind: Literal["turns", "duplex"] = "turns"
        self.speaks = model.vocoder is not None
        self.voices = _voices(model)
        self._duplex: Duplex | None = None
        self._batch: ContinuousBatch | None = None
        if duplex_lm(model.recipe) is not None:
            self.kind, self._duplex = "duplex", duplex(model)
            return
        if model.recipe.talk is None:
            raise ConfigError(f"Model {name!r} keeps no conversation of turns. Serve another, like mini.")
        # Everything that is done at a first use alone is done before anybody waits.
        model.dialogue()
        lm = model.lms[model.recipe.talk.lm]
        assert isinstance(lm, SpeechLM)
        self._batch = ContinuousBatch(lm, ahead=_AHEAD)

    def open(self, settings: Settings) -> Framed:
        """A session of frames: of a model that talks at once, beside others; of one that takes turns, by itself.

        :raises ConfigError: it is to answer only what is asked of it, and has not learned to tell.
        """
        if self._duplex is not None:
            return Framed(self._duplex.open(seed=secrets.randbelow(2**31)))
        whom = self.model.addressee(**settings.whom)
        talk = self.dialogue(max_tokens=settings.max_tokens)
        return Framed(TurnSession(talk, patience=self.patience("auto"), addressee=whom))

    def dialogue(self, **settings: Any) -> Dialogue:
        """A new conversation, whose replies are written together with those of the others.

        :raises ConfigError: the model keeps none.
        """
        return self.model.dialogue(batch=self._batch, **settings)

    @property
    def instructions(self) -> str:
        """Where no others are given."""
        talk = self.model.recipe.talk
        return "" if talk is None else talk.system

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

    def patience(self, eagerness: Eagerness) -> Patience:
        """How long to wait for the user to go on, by what he said and, where its weights are here, how it sounds."""
        return Ends(Ends.Config(eagerness=eagerness), sound=self._judge, words=Words())

    @cached_property
    def _judge(self) -> SmartTurn | None:
        try:
            return SmartTurn()
        except LaliaError as error:
            _log.warning("turns end by their words alone", extra={"reason": str(error)})
            return None


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
