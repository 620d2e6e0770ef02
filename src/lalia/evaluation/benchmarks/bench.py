"""The bench: a model with the tools that judge it, and what several benchmarks look at once it was made."""

import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.conversing import Exchanges, exchanged, typed, typed_place
from lalia.evaluation.benchmarks.judges import Judges
from lalia.evaluation.benchmarks.kept import Kept
from lalia.evaluation.dnsmos import Quality
from lalia.evaluation.folders import file_name
from lalia.evaluation.generation.speakers import SpeakerEncoder
from lalia.evaluation.judging import Judge
from lalia.evaluation.memory import Listener
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.text import Normalizer
from lalia.evaluation.text_lm import TextLM

__all__ = ["Bench"]

_LONGEST_REPLY = 30.0
"""Seconds: a speech decoder that never ends is cut off here."""


def _silent(stage: str, done: int, total: int) -> None:
    pass


class _Scratch:
    """A folder that is there for as long as the benches that have it."""

    @cached_property
    def _folder(self) -> "tempfile.TemporaryDirectory[str]":
        return tempfile.TemporaryDirectory(prefix="lalia-")

    @property
    def path(self) -> Path:
        return Path(self._folder.name)


@dataclass
class Bench:
    """A model under test.

    :param model: whatever can do something of what the benchmarks ask.
    :param name: of the model, for the record, and for its goals.
    :param source: by which a new process can load it: a bundled name, a path or a hub id.
    :param peer: another model that is asked the same in turn with it; not needed where its answers are kept.
    :param peer_name: of the other model; None where there is none.
    :param peer_identity: of its weights.
    :param data: recordings to work with; the bundled questions when not given.
    :param path: the file or folder in which a benchmark that is not bundled has its items.
    :param limit: the first items only, for a first look.
    :param max_tokens: the longest reply, as text.
    :param whom: it answers in sessions, as ``Model.addressee`` takes it; everybody by default.
    :param options: further words of the command line that loads the model.
    :param load: loads the model again, in another process.
    :param identity: of the model: its weights, and what it is made of.
    :param dtype: of the weights as they are loaded.
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
    peer_identity: str | None = None
    data: Manifest | None = None
    path: Path | None = None
    seed: int = 0
    limit: int | None = None
    max_tokens: int = 80
    whom: Mapping[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    load: Callable[[], Any] | None = None
    identity: str | None = None
    dtype: str = "float32"
    folder: Path | None = None
    workers: int = 1
    batch_size: int = 8
    score_only: bool = False
    marker: Judge | None = None
    judge_paths: Sequence[str] = ()
    judges: Judges = field(default_factory=Judges)
    progress: Callable[[str, int, int], None] = _silent
    notes: list[str] = field(default_factory=list)
    _scratch: _Scratch = field(default_factory=_Scratch, repr=False)

    @property
    def answers_as(self) -> Mapping[str, str | None]:
        """Whose answers are kept."""
        loaded = {} if self.dtype == "float32" else {"dtype": self.dtype}
        return {"name": self.name, "identity": self.identity, **loaded}

    def place(self, benchmark: str, name: str) -> Path | None:
        """The file in which answers to a benchmark are kept."""
        return None if self.folder is None else self.folder / benchmark / f"{name}.jsonl"

    def sounds(self, benchmark: str) -> Path:
        """The folder for the sound that answers a benchmark; where nothing is to be kept it goes with the bench."""
        return (self._scratch.path if self.folder is None else self.folder) / benchmark / "audio"

    def seed_of(self, name: str) -> int:
        """The seed of one item: its own, and so none that hangs on what else is asked."""
        return (self.seed + zlib.crc32(name.encode())) % 2**31

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

    @property
    def in_session(self) -> Mapping[str, Any]:
        """How it is talked to in real time."""
        return {**self.talking, **self.answering}

    @property
    def answering(self) -> Mapping[str, Any]:
        """Whom it answers, where that is not everybody."""
        return {"whom": dict(self.whom)} if self.whom else {}

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

    # What several benchmarks ask, and is asked once.

    @cached_property
    def against(self) -> "Bench | None":
        """The bench of the peer, whose answers are kept in a folder of their own."""
        if self.peer_name is None:
            return None
        return replace(
            self,
            model=self.peer,
            name=self.peer_name,
            source=self.peer_name,
            identity=self.peer_identity,
            peer=None,
            peer_name=None,
            peer_identity=None,
            folder=None if self.folder is None else self.folder / f"against-{file_name(self.peer_name)}",
            load=None,
            workers=1,
            _scratch=_Scratch(),
        )

    @cached_property
    def exchanges(self) -> Exchanges:
        """The bundled questions with the replies to them, asked where they are not kept."""
        return exchanged(self)

    @cached_property
    def timed_exchanges(self) -> Exchanges:
        """The same, all asked in this process: what is kept has the times of another."""
        return self.exchanges if self.exchanges.at_once else replace(self, folder=None, _scratch=_Scratch()).exchanges

    def typed(self, texts: Iterable[str]) -> Kept:
        """The replies (``reply``) to texts, typed, by text."""
        return typed(self, texts, self._typed)

    @cached_property
    def _typed(self) -> Kept:
        return typed_place(self)
