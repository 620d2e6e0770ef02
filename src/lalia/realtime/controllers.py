"""Duplex controllers: models that decide, chunk by chunk of sound, in which state a conversation is.

A model that answers in turns does not know when to. In place of silence, another model that hears says so: by state
tokens before an answer (VITA, arXiv:2408.05211), by a head on its hidden states (Freeze-Omni, arXiv:2411.00774), or by
action tokens (FlexDuo, arXiv:2502.13472). Each tells too whether somebody speaks to it at all: what is no query, such
as noise or words to somebody else, is not answered (interactive-period recognition).
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.lm import ContinuousBatch, Running, Sampler, Sampling, SpeechLM
from lalia.lm import State as StateOf
from lalia.realtime.activity import Activity
from lalia.realtime.duplex import StreamingTokenizer
from lalia.realtime.intake import Intake
from lalia.streaming import State
from lalia.streams import Discrete, Streams, TokenSequence
from lalia.tokenizers import SpeechTokenizer

__all__ = ["Action", "ActionTokens", "Controller", "Decision", "Situation", "StateHead", "StateTokens"]

_LIKELIEST = Sampling(temperature=0.0)


class Situation(Enum):
    """The states of a conversation, as its model is in them (FlexDuo)."""

    SPEAK = "S"
    LISTEN = "L"
    IDLE = "I"
    """Nobody speaks, or none to the model."""


class Action(Enum):
    """What happens to the state: the seven action tokens of FlexDuo, in the order of their ids, and one more."""

    KEEP_SPEAKING = "K.S"
    KEEP_LISTENING = "K.L"
    KEEP_IDLE = "K.I"
    SPEAK_TO_LISTEN = "S2L"
    SPEAK_TO_IDLE = "S2I"
    LISTEN_TO_SPEAK = "L2S"
    IDLE_TO_LISTEN = "I2L"

    LISTEN_TO_IDLE = "L2I"
    """What was heard is no query (VITA's <2>, Freeze-Omni's state 2). FlexDuo does not begin to listen to such."""

    @property
    def before(self) -> Situation:
        """The state in which it can be taken."""
        return Situation(self.value[-1] if self.value[0] == "K" else self.value[0])

    @property
    def after(self) -> Situation:
        return Situation(self.value[-1])

    @classmethod
    def keep(cls, situation: Situation) -> "Action":
        """That which changes nothing."""
        return cls(f"K.{situation.value}")


@dataclass(frozen=True)
class Decision:
    """What a controller says about a chunk.

    :param back: chunks before this one that the user's turn began, where one begins.
    """

    action: Action
    back: int = 0


class Controller(Protocol):
    """Hears one sound chunk by chunk, and decides."""

    sample_rate: int
    chunk: int
    """Samples that it hears at once."""

    def hear(self, chunk: Tensor, situation: Situation) -> Decision:
        """What is to happen now that a chunk [N] was heard; its action begins in this situation."""
        ...

    def reset(self) -> None:
        """Forget what was heard."""
        ...


class _Judge(ABC):
    """What is common to those whose turns a voice opens, and a model closes: with an answer, or without.

    While the model speaks, it goes on until it is judged that somebody spoke to it.

    :param activity: tells when there is a voice.
    :param chunk: seconds that are heard at once.
    :param padding: seconds before the voice that are heard with it.
    """

    def __init__(self, activity: Activity | None, *, chunk: float, padding: float) -> None:
        self.activity = activity or Activity()
        self.sample_rate = self.activity.sample_rate
        self.chunk = round(chunk * self.sample_rate)
        if self.chunk < 1 or padding < 0:
            raise ConfigError(f"A controller hears chunks of {chunk} s with {padding} s before a voice. Give more.")
        self._padding = round(padding / chunk)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self.activity.reset()
        self._before: deque[Tensor] = deque(maxlen=self._padding)
        self._open, self._count, self._due = False, 0, False
        self._end()

    def hear(self, chunk: Tensor, situation: Situation) -> Decision:
        """See ``Controller``."""
        if self._due and situation is Situation.LISTEN:
            # The turn by which a reply was interrupted was over when it was judged.
            self._due = False
            return Decision(Action.LISTEN_TO_SPEAK)
        self._due = False
        voice = any(list(self.activity.push(chunk)))
        before = list(self._before)
        self._before.append(chunk)
        if not self._open and voice:
            self._open, self._count = True, -1
            self._begin()
            for earlier in before:
                self._count += 1
                self._judge(earlier)
        if not self._open:
            return Decision(Action.keep(situation))
        self._count += 1
        verdict = self._judge(chunk)
        back = self._count
        if verdict is not None:
            self._open = False
            self._end()
        match verdict, situation:
            case None | True, Situation.IDLE:
                self._due = verdict is True
                return Decision(Action.IDLE_TO_LISTEN, back)
            case True, Situation.LISTEN:
                return Decision(Action.LISTEN_TO_SPEAK)
            case True, Situation.SPEAK:
                self._due = True
                return Decision(Action.SPEAK_TO_LISTEN, back)
            case False, Situation.LISTEN:
                return Decision(Action.LISTEN_TO_IDLE)
            case _:
                return Decision(Action.keep(situation))

    @abstractmethod
    def _begin(self) -> None:
        """A voice is heard."""

    @abstractmethod
    def _judge(self, chunk: Tensor) -> bool | None:
        """Whether the turn is over, and to be answered; None while it goes on."""

    @abstractmethod
    def _end(self) -> None:
        """Forget the turn."""


class StateTokens(_Judge):
    """State tokens (VITA): the first token of an answer says what was heard.

    When a voice has been followed by silence, the model hears all of it and says its first token: that of a query, or
    one of what is none. While another reply is spoken, this is VITA's monitoring model.

    :param lm: hears the stream ``question`` as a whole, and answers with the stream ``answer``.
    :param ear: makes ``question`` of a sound.
    :param query: the id that a query is answered with.
    :param others: the ids for what is not to be answered: noise, or what was said to others.
    :param known: what stands around the question, such as a template.
    :param silence: seconds after which a turn is over.
    """

    def __init__(
        self,
        lm: SpeechLM,
        ear: SpeechTokenizer,
        *,
        query: int,
        others: Sequence[int],
        question: str = "question",
        answer: str = "text",
        known: Streams | None = None,
        activity: Activity | None = None,
        silence: float = 0.5,
        chunk: float = 0.1,
        padding: float = 0.3,
    ) -> None:
        for name in (question, answer):
            if name not in lm.specs:
                raise ConfigError(f"Stream {name!r} is not of the model, which has {', '.join(lm.specs)}. Fix it.")
        self._lm, self._ear, self._query, self._silence = lm, ear, query, silence
        self._question, self._answer, self._known = question, answer, dict(known or {})
        self._sampler = Sampler(_LIKELIEST, banned={answer: _all_but({query, *others})})
        self._sound: list[Tensor] = []
        super().__init__(activity, chunk=chunk, padding=padding)

    def _begin(self) -> None:
        self._sound = []

    def _end(self) -> None:
        self._sound = []

    def _judge(self, chunk: Tensor) -> bool | None:
        self._sound.append(chunk)
        if self.activity.speaking or self.activity.quiet < self._silence:
            return None
        return self.token(Audio(torch.cat(self._sound), self.sample_rate)) == self._query

    def token(self, audio: Audio) -> int:
        """The state token for a recording."""
        known = {**self._known, self._question: self._ear.encode(audio)}
        complete = [s for s in self._lm.specs if s != self._answer]
        limits = {self._answer: 1 + (int(known[self._answer].lengths[0]) if self._answer in known else 0)}
        made = self._lm.generate(known, sampler=self._sampler, complete=complete, limits=limits)
        return int(next(part for part in made if self._answer in part)[self._answer].values[0, 0, 0])


class StateHead(_Judge):
    """A head on hidden states (Freeze-Omni): at every chunk, whether to listen on, answer, or end without reply.

    :param batch: of a language model that hears ``heard`` frame by frame and predicts ``state`` by a ``State`` head, in
        a layout where the state of a frame comes a step after it (``Parallel(("heard", "state"), delays=(0, 1))``).
        The controllers of several sessions may share one.
    :param ear: makes ``heard`` of a sound as it comes.
    :param respond: the label of the state in which to answer, and ``end`` of that in which not to.
    """

    def __init__(
        self,
        batch: ContinuousBatch,
        ear: StreamingTokenizer,
        *,
        respond: str = "respond",
        end: str = "end",
        heard: str = "heard",
        state: str = "state",
        activity: Activity | None = None,
        chunk: float = 0.16,
        padding: float = 0.3,
        context: int = 3000,
    ) -> None:
        head = dict(batch.lm.heads.items()).get(state)
        if not isinstance(head, StateOf):
            raise ConfigError(f"Stream {state!r} of the model has no State head. Name the stream that has one.")
        labels = head.config.labels
        for label in (respond, end):
            if label not in labels:
                raise ConfigError(f"The State head knows {', '.join(labels)}, not {label!r}. Name one of these.")
        self._verdicts = {labels.index(respond): True, labels.index(end): False}
        self._batch, self._ear, self._heard, self._state, self._context = batch, ear, heard, state, context
        self._row: Running | None = None
        super().__init__(activity, chunk=chunk, padding=padding)

    def _begin(self) -> None:
        self._row = self._batch.join({}, sampler=Sampler(_LIKELIEST), awaited=(self._heard,), context=self._context)
        self._intake, self._hearing = Intake(self._ear.sample_rate), self._ear.init_state(1)

    def _end(self) -> None:
        if self._row is not None:
            self._batch.leave(self._row)
        self._row = None

    def _judge(self, chunk: Tensor) -> bool | None:
        row = self._row
        assert row is not None
        piece = self._intake.push(Audio(chunk[None, None], self.sample_rate))
        frames = self._ear.encode(piece, self._hearing)
        if frames.num_tokens:
            row.hear(**{self._heard: frames})
        codes: list[int] = []
        while True:
            while (new := row.take()) is not None:
                codes += new[self._state].values[0, 0].tolist() if self._state in new else []
            if not row.ready:
                break
            self._batch.step([row])
        # What is true at the end of the chunk counts.
        return self._verdicts.get(codes[-1]) if codes else None


class ActionTokens:
    """Action tokens (FlexDuo): every chunk of 120 ms, one of those that the state allows.

    What it decides by is the state and the sound that is kept: the last ``window`` chunks while idle and while it
    speaks, and all of a turn while it listens.

    :param lm: told ``state`` and ``heard``, predicts ``action``: one token each of the first two, in the order of
        ``Situation`` and of ``Action``, around the frames.
    :param ear: makes ``heard`` of a sound as it comes.
    :param longest: chunks of a turn that are kept.
    """

    _ACTIONS = tuple(action for action in Action if action is not Action.LISTEN_TO_IDLE)

    def __init__(
        self,
        lm: SpeechLM,
        ear: StreamingTokenizer,
        *,
        state: str = "state",
        heard: str = "heard",
        action: str = "action",
        chunk: float = 0.12,
        window: int = 4,
        longest: int = 250,
    ) -> None:
        sizes: Mapping[str, int] = {state: len(Situation), action: len(self._ACTIONS)}
        for name, size in sizes.items():
            kind = lm.specs[name].kind if name in lm.specs else None
            if not isinstance(kind, Discrete) or kind.codebook_size != size:
                raise ConfigError(f"Stream {name!r} should be of {size} codes, but is {kind}. Fix its tokenizer.")
        if not 1 <= window <= longest:
            raise ConfigError(f"A window of {window} chunks in at most {longest}. Give at least 1, and no more.")
        self._lm, self._ear, self._state, self._heard, self._action = lm, ear, state, heard, action
        self.sample_rate, self.chunk = ear.sample_rate, round(chunk * ear.sample_rate)
        self._window, self._longest = window, longest
        self._samplers = {
            s: Sampler(_LIKELIEST, banned={action: _all_but({i for i, a in enumerate(self._ACTIONS) if a.before is s})})
            for s in Situation
        }
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._hearing: State = self._ear.init_state(1)
        self._kept: deque[TokenSequence] = deque(maxlen=self._longest)

    def hear(self, chunk: Tensor, situation: Situation) -> Decision:
        """See ``Controller``."""
        frames = self._ear.encode(Audio(chunk[None, None], self.sample_rate), self._hearing)
        self._kept.append(frames)
        if situation is not Situation.LISTEN:
            while len(self._kept) > self._window:
                self._kept.popleft()
        heard = [x for x in self._kept if x.num_tokens]
        if not heard:
            return Decision(Action.keep(situation))
        action = self._decide(heard, situation)
        return Decision(action, len(self._kept) - 1 if action.after is Situation.LISTEN else 0)

    def _decide(self, heard: Sequence[TokenSequence], situation: Situation) -> Action:
        values = torch.cat([x.values for x in heard], dim=2 if heard[0].discrete else 1)
        known = {
            self._state: TokenSequence(torch.tensor([[[list(Situation).index(situation)]]]), torch.tensor([1])),
            self._heard: TokenSequence(values, torch.tensor([values.shape[2 if heard[0].discrete else 1]])),
        }
        made = self._lm.generate(
            known, sampler=self._samplers[situation], complete=list(known), limits={self._action: 1}
        )
        token = next(part for part in made if self._action in part)[self._action]
        return self._ACTIONS[int(token.values[0, 0, 0])]


def _all_but(ids: set[int]) -> tuple[tuple[int, int], ...]:
    """Ranges of all ids but these."""
    ordered = sorted(ids)
    starts, stops = [0, *(i + 1 for i in ordered)], [*ordered, 1 << 31]
    return tuple((a, b) for a, b in zip(starts, stops, strict=True) if a < b)
