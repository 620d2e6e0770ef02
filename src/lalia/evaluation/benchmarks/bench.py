"""The bench: a model with the tools that judge it, and what several benchmarks look at once it was made."""

import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks.base import Conversation, Reply, Talks
from lalia.evaluation.benchmarks.bundled import Question, questions
from lalia.evaluation.benchmarks.judges import Judges
from lalia.evaluation.dnsmos import Quality
from lalia.evaluation.folders import file_name
from lalia.evaluation.generation.speakers import SpeakerEncoder
from lalia.evaluation.judging import Judge
from lalia.evaluation.memory import Listener
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.text import Normalizer
from lalia.evaluation.text_lm import TextLM

__all__ = ["Bench", "Exchange", "converse", "listened"]

_RATE, _PIECE = 16_000, 0.1
"""Of the sound that is listened to, in Hz, and seconds of each piece."""


@dataclass(frozen=True)
class Exchange:
    """A spoken question as it was heard, with its answer; and so by the peer."""

    question: Question
    heard: str
    reply: Reply
    peer: Reply | None
    peer_heard: str | None


def listened(model: Talks, said: Audio, **settings: Any) -> Conversation:
    """A conversation that begins with a recording, all of which was listened to and none of which is answered yet.

    The sound comes in pieces, as a microphone has them, so that a model can hear while the user speaks.
    """
    talk = model.dialogue(**settings)
    said = said.to(_RATE)
    for i in range(math.ceil(said.seconds / _PIECE)):
        talk.listen(said.cut(i * _PIECE, _PIECE))
    return talk


def converse(model: Talks, said: Audio, **settings: Any) -> tuple[str, Reply]:
    """What was heard, and the whole reply, whose clock begins when the last of what is said has come."""
    events = listened(model, said, **settings).turn()
    heard = next(events).text
    *_, last = events
    return heard, last.reply


_LONGEST_REPLY = 30.0
"""Seconds: a speech decoder that never ends is cut off here."""


def _silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass
class Bench:
    """A model under test.

    :param model: whatever can do something of what the benchmarks ask.
    :param name: of the model, for the record, and for its goals.
    :param source: by which a new process can load it: a bundled name, a path or a hub id.
    :param peer: another model that is asked the same in turn with it.
    :param data: recordings to work with; the bundled questions when not given.
    :param path: the file or folder in which a benchmark that is not bundled has its items.
    :param limit: the first items only, for a first look.
    :param max_tokens: the longest reply, as text.
    :param options: further words of the command line that loads the model.
    :param load: loads the model again, in another process.
    :param identity: of the model's weights.
    :param folder: where answers are kept; nowhere when not given.
    :param workers: processes that ask, where a benchmark asks item by item.
    :param batch_size: items that are asked at once, where the model takes several.
    :param score_only: score answers that are kept, and ask for none.
    :param marker: marks replies where a suite has them marked.
    :param judge_paths: weights that judge by themselves (paths, hub ids): classifiers of sentiment, judges of turns.
    :param judges: the tools, which benches of several models share.
    :param progress: called with a stage, how much of it is done, and how much there is.
    """

    model: Any
    name: str
    source: str
    peer: Any = None
    peer_name: str | None = None
    data: Manifest | None = None
    path: Path | None = None
    seed: int = 0
    limit: int | None = None
    max_tokens: int = 80
    options: Sequence[str] = ()
    load: Callable[[], Any] | None = None
    identity: str | None = None
    folder: Path | None = None
    workers: int = 1
    batch_size: int = 8
    score_only: bool = False
    marker: Judge | None = None
    judge_paths: Sequence[str] = ()
    judges: Judges = field(default_factory=Judges)
    progress: Callable[[str, int, int], None] = _silent
    notes: list[str] = field(default_factory=list)
    _typed: dict[tuple[int, str], str] = field(default_factory=dict, repr=False)

    @property
    def answers_as(self) -> Mapping[str, str | None]:
        """Whose answers are kept."""
        return {"name": self.name, "identity": self.identity}

    def place(self, benchmark: str, name: str) -> Path | None:
        """The file in which answers to a benchmark are kept."""
        return None if self.folder is None else self.folder / benchmark / f"{name}.jsonl"

    def sounds(self, benchmark: str) -> Path:
        """The folder for the sound that answers a benchmark; nobody looks for it where nothing is to be kept."""
        if self.folder is not None:
            return self.folder / benchmark / "audio"
        return Path(tempfile.gettempdir()) / f"lalia-{benchmark}-{file_name(self.name)}"

    @property
    def recordings(self) -> list[Utterance]:
        """What there is to work with, ordered by id; the bundled questions, each voice in turn."""
        if self.data is None:
            return [question.utterance for question in questions(self.limit)]
        return sorted(self.data, key=lambda u: u.id)[: self.limit]

    @property
    def talking(self) -> Mapping[str, Any]:
        """How it is talked to: greedily, so that what differs is what was heard."""
        return {"temperature": 0.0, "max_tokens": self.max_tokens, "seconds": _LONGEST_REPLY, "seed": self.seed}

    def unclear_of(self, model: Any) -> str | None:
        """What a model replies to what it did not understand, where it has such a sentence."""
        talk = getattr(getattr(model, "recipe", None), "talk", None)
        return getattr(talk, "unclear", None)

    def understood(self, exchange: "Exchange") -> bool:
        """Whether nobody had to ask again: that is said without any thought, and so is no measure of latency."""
        sides = ((self.model, exchange.reply), (self.peer, exchange.peer))
        return all(reply is None or reply.text != self.unclear_of(model) for model, reply in sides)

    # The judges, which a bench may have of its own.

    @cached_property
    def judge(self) -> Listener:
        return self.judges.judge

    @cached_property
    def recognizer(self) -> Recognizer:
        return self.judges.recognizer

    @cached_property
    def text_lm(self) -> TextLM:
        return self.judges.text_lm

    @cached_property
    def hearing(self) -> Recognizer:
        return self.judges.hearing

    @cached_property
    def voices(self) -> SpeakerEncoder:
        return self.judges.voices

    def instead(self, other: Any) -> "Bench":
        """The same bench under which another system is asked, in this process."""
        return replace(self, model=other, workers=1)

    @cached_property
    def normalizer(self) -> Normalizer:
        return self.judges.normalizer

    @cached_property
    def rater(self) -> Callable[[Audio], Quality] | None:
        """Rates sound; None where it cannot be had, which is then noted."""
        try:
            return self.judges.rater
        except LaliaError as error:
            warnings.warn(f"Sound is not rated: {error}", stacklevel=2)
            self.notes.append(f"Sound is not rated: {error}")
            return None

    def typed(self, model: Any, text: str) -> str:
        """The reply to a text, typed, that begins a conversation; each is asked for once."""
        key = (id(model), text)
        if key not in self._typed:
            self._typed[key] = model.dialogue(**self.talking, speak=False).answer(text, typed=True).text
        return self._typed[key]

    @cached_property
    def exchanges(self) -> list[Exchange]:
        """The bundled questions with their answers; where there is a peer, both are asked in turn."""
        asked = questions(self.limit)
        models = [self.model] if self.peer is None else [self.model, self.peer]
        for model in models:
            # What is loaded or compiled at first use is nobody's latency.
            converse(model, asked[0].load(), **self.talking)
        found = []
        for i, question in enumerate(asked):
            sound = question.load()
            said: dict[int, tuple[str, Reply]] = {}
            # Who is first changes, so that neither gains by a warm cache.
            for k in range(len(models)) if i % 2 == 0 else reversed(range(len(models))):
                said[k] = converse(models[k], sound, **self.talking)
            heard, reply = said[0]
            peer_heard, peer = said.get(1, (None, None))
            found.append(Exchange(question, heard, reply, peer, peer_heard))
            self.progress("asking", i + 1, len(asked))
        return found
