"""Turns of which a model says when they begin and end, in place of silence (see ``controllers``)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.realtime.controllers import Action, Controller, Situation
from lalia.realtime.events import (
    Draft,
    Event,
    Finished,
    Heard,
    Ignored,
    Interrupted,
    SessionEvent,
    Sound,
    Started,
    Stopped,
)
from lalia.realtime.intake import Intake
from lalia.realtime.session import Session, end
from lalia.realtime.turns import Conversation

__all__ = ["ControlledSession", "Forgetful"]


class Forgetful(Conversation, Protocol):
    """A conversation to which a turn can be listened as it comes, and which can forget what it listened to."""

    def forget(self) -> None:
        """Have nothing been listened to since the last turn."""
        ...


class ControlledSession(Session):
    """Turns of a user and of a model that answers, begun and ended by a controller.

    A conversation that cannot forget hears a turn only when it is over, as the controller may find it to be no query.
    What comes of a sound does not depend on the pieces that it comes in.

    :param conversation: with the model.
    :param controller: decides on each chunk of sound.
    """

    @dataclass(frozen=True)
    class Config:
        """
        :param lead: seconds of a reply that are made ahead of what is played.
        :param memory: seconds of sound that are remembered while nobody is listened to: a controller may tell late that
            a turn has begun.
        """

        lead: float = 1.0
        memory: float = 30.0

        def __post_init__(self) -> None:
            if not (self.lead > 0 and self.memory >= 0):
                raise ConfigError(
                    f"A session has a lead of {self.lead} s and a memory of {self.memory} s. Give more than 0 s, "
                    "and no less than 0 s."
                )

    def __init__(self, conversation: Conversation, controller: Controller, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.conversation, self.controller = conversation, controller
        self.situation = Situation.IDLE
        self._chunks = 0
        self._intake = Intake(controller.sample_rate)
        self._rest: Tensor = torch.zeros(0)
        self._recent: deque[Tensor] = deque(maxlen=max(round(self.config.memory / self._seconds), 1))
        self._turn: list[Tensor] = []
        """Chunks of the turn that are to be heard when it is over."""
        self._draft = ""
        self._events: Iterator[Event] | None = None
        """Of the reply that is being made."""
        self._begun: float | None = None
        """When its first sound was given, and how many seconds of it there are."""
        self._made = 0.0

    def close(self) -> None:
        """End a reply that is being made."""
        end(self._events)
        self._events = None

    @property
    def _seconds(self) -> float:
        return self.controller.chunk / self.controller.sample_rate

    @property
    def time(self) -> float:
        """Seconds of sound that were decided on."""
        return self._chunks * self._seconds

    @property
    def played(self) -> float:
        """Seconds of the reply that were heard, if it is played without a gap since its first sound was given."""
        return 0.0 if self._begun is None else min(self.time - self._begun, self._made)

    def push(self, piece: Audio) -> Iterator[SessionEvent]:
        """Hear the next piece of sound, and say what comes of it; go through all of it before the next.

        :param piece: [1, C, N] of any length and rate, the same rate each time; channels are averaged.
        :raises AudioError: it has another rate than those before, or samples that are no finite numbers.
        :raises ConfigError: the controller decides on what is not the state.
        """
        self._rest = torch.cat([self._rest, self._intake.push(piece).samples[0, 0]])
        while len(self._rest) >= (size := self.controller.chunk):
            chunk, self._rest = self._rest[:size], self._rest[size:]
            self._chunks += 1
            yield from self._hear(chunk)
            yield from self._go_on()

    # -- the user ------------------------------------------------------------------------------

    def _hear(self, chunk: Tensor) -> Iterator[SessionEvent]:
        with torch.inference_mode():
            decision = self.controller.hear(chunk, self.situation)
        action = decision.action
        if action.before is not self.situation:
            raise ConfigError(
                f"{type(self.controller).__name__} decides {action.name} while the state is {self.situation.name}. "
                "Have it take the actions of the state that it is told."
            )
        if self.situation is Situation.LISTEN:
            yield from self._listen(chunk)
        else:
            self._recent.append(chunk)
        self.situation = action.after
        match action:
            case Action.IDLE_TO_LISTEN | Action.SPEAK_TO_LISTEN:
                if action is Action.SPEAK_TO_LISTEN:
                    yield self._stop()
                turn = list(self._recent)[-1 - decision.back :]
                self._recent.clear()
                yield Started(max(self.time - len(turn) * self._seconds, 0.0))
                for earlier in turn:
                    yield from self._listen(earlier)
            case Action.SPEAK_TO_IDLE:
                yield self._stop()
            case Action.LISTEN_TO_SPEAK:
                yield Stopped(self.time)
                for heard in self._turn:
                    self.conversation.listen(self._audio(heard))
                self._turn, self._draft = [], ""
                self._events, self._begun, self._made = self.conversation.turn(), None, 0.0
            case Action.LISTEN_TO_IDLE:
                yield Ignored(self._draft)
                self._turn, self._draft = [], ""
                if (forget := self._forget) is not None:
                    forget.forget()

    @property
    def _forget(self) -> Forgetful | None:
        """The conversation, where it can forget."""
        return self.conversation if hasattr(self.conversation, "forget") else None  # type: ignore[return-value]

    def _listen(self, chunk: Tensor) -> Iterator[SessionEvent]:
        if self._forget is None:
            self._turn.append(chunk)
            return
        draft = self.conversation.listen(self._audio(chunk))
        if draft != self._draft:
            self._draft = draft
            yield Draft(draft)

    def _audio(self, chunk: Tensor) -> Audio:
        return Audio(chunk[None, None], self.controller.sample_rate)

    # -- the model -----------------------------------------------------------------------------

    def _stop(self) -> SessionEvent:
        """Stop the reply where it was heard."""
        heard, text = self.played, ""
        self.close()
        if self._begun is not None:
            text = self.conversation.truncate(heard)
        else:
            # Nothing of it was heard.
            self.conversation.retract()
        self._begun, self._made = None, 0.0
        return Interrupted(heard, text)

    def _go_on(self) -> Iterator[SessionEvent]:
        """The reply, as far as it is wanted by now."""
        while self._events is not None and self._made - self.played < self.config.lead:
            event = next(self._events, None)
            if event is None:
                self._events = None
                break
            if isinstance(event, Heard) and not event.understood:
                self.close()
                yield Ignored(event.text)
                break
            if isinstance(event, Sound):
                self._begun = self.time if self._begun is None else self._begun
                self._made += event.audio.seconds
            yield event
        if self.situation is Situation.SPEAK and self._events is None and self.played >= self._made:
            spoken, self._begun, self._made = self._begun is not None, None, 0.0
            self.situation = Situation.IDLE
            if spoken:
                yield Finished()
