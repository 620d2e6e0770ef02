"""A spoken conversation in real time, turn by turn: sound comes in as it is spoken, and goes out as it is made.

There is no clock and no thread: time is the sound that came in, and the work is done while a piece of it is pushed. So
a session is as deterministic as its model, and runs as well from a file as from a microphone or a socket.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.realtime.activity import Activity
from lalia.realtime.addressee import Addressee, Utterance, is_backchannel
from lalia.realtime.events import (
    Event,
    Finished,
    Heard,
    Ignored,
    Interrupted,
    Resumed,
    SessionEvent,
    Sound,
    Started,
    Stopped,
    Truncated,
)
from lalia.realtime.listening import Listening, Patience
from lalia.realtime.session import Session, end

__all__ = ["Conversation", "TurnSession"]


class Conversation(Protocol):
    """What a session is over: turns that are listened to in pieces, answered in pieces, and may be cut short."""

    def listen(self, piece: Audio) -> str:
        """Hear the next piece of a turn of the user; what was said so far, as far as it is understood."""
        ...

    def turn(self) -> Iterator[Event]:
        """Answer what was listened to."""
        ...

    def truncate(self, seconds: float) -> str:
        """Have the last reply end where so much of its sound was heard; the text that counts as said."""
        ...

    def retract(self) -> None:
        """Have the last turn, the user's and the reply, not been said."""
        ...


@dataclass(frozen=True)
class _Held:
    """A reply that stopped as the user spoke.

    :param events: that are still to come.
    :param sounds: that were made.
    :param heard: seconds of them that were played.
    """

    events: Iterator[Event] | None
    sounds: list[Audio]
    heard: float

    def close(self) -> None:
        """Make no more of it."""
        end(self.events)

    def past(self) -> list[Audio]:
        """The sound that was played."""
        return [part for start, x in self._placed() if (part := x.cut(0.0, max(self.heard - start, 0.0))).seconds]

    def rest(self) -> Iterator[Event]:
        """What was made and not played, and all that is still to come."""
        for start, x in self._placed():
            part = x.cut(min(max(self.heard - start, 0.0), x.seconds))
            if part.seconds:
                yield Sound(part)
        if self.events is not None:
            yield from self.events

    def _placed(self) -> Iterator[tuple[float, Audio]]:
        start = 0.0
        for x in self.sounds:
            yield start, x
            start += x.seconds


class TurnSession(Session):
    """Turns of a user who may pause, interrupt, and be silent, and of a model that stops when he speaks.

    A turn of the user begins with his voice and ends with silence. If he goes on as the reply begins, he was not done:
    both parts are one turn. If he speaks while it is heard, it stops at once; what he says decides whether the rest of
    it was never said, or goes on: after a cough, a word to somebody else, an "mm-hm". What is not understood is not
    answered.

    :param conversation: with the model.
    :param activity: who tells when somebody speaks.
    :param patience: how long to wait for the user to go on; ``Config.silence`` when not given.
    :param addressee: tells whether what was understood is for the model; all of it is when not given.
    """

    @dataclass(frozen=True)
    class Config(Listening.Config):
        """
        :param retake: seconds of a reply up to which a user who speaks was not done, and interrupts nobody.
        :param lead: seconds of a reply that are made ahead of what is played. More costs work that an interruption
            throws away; less may leave gaps where the machine is slow.
        :param interruptible: whether a reply stops when the user speaks. If not, what he says meanwhile is not heard.
        :param ask: whether the model asks again for what it did not understand, in place of silence.
        :param resume: whether a reply goes on after what was no interruption.
        """

        retake: float = 0.4
        lead: float = 1.0
        interruptible: bool = True
        ask: bool = False
        resume: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            if not (self.retake >= 0 and self.lead > 0):
                raise ConfigError(
                    f"A session has a retake of {self.retake} s and a lead of {self.lead} s. "
                    "Give no less than 0 s of retake, and more than 0 s of lead."
                )

    def __init__(
        self,
        conversation: Conversation,
        config: Config | None = None,
        *,
        activity: Activity | None = None,
        patience: Patience | None = None,
        addressee: Addressee | None = None,
    ) -> None:
        self.config = config or self.Config()
        self.conversation, self.addressee = conversation, addressee
        self.activity = activity or Activity()
        self.listening = Listening(conversation.listen, self.config, activity=self.activity, patience=patience)
        self._events: Iterator[Event] | None = None
        """Of the reply that is being made."""
        self._begun: float | None = None
        """When the first sound of the reply was given."""
        self._made = 0.0
        """Seconds of it."""
        self._sounds: list[Audio] = []
        """The sound of it."""
        self._held: _Held | None = None
        """A reply that stopped as the user spoke."""
        self._exchanged = -math.inf
        """When the last reply was over."""

    def close(self) -> None:
        """End a reply that is being made."""
        held, self._held = self._held, None
        end(self._events)
        if held is not None:
            held.close()
        self._events = None

    @property
    def time(self) -> float:
        """Seconds of sound that came in."""
        return self.listening.time

    @property
    def played(self) -> float:
        """Seconds of the reply that were heard, if it is played without a gap since its first sound was given."""
        return 0.0 if self._begun is None else min(self.time - self._begun, self._made)

    @property
    def replying(self) -> bool:
        """Whether a reply is being made or heard."""
        return self._events is not None or (self._begun is not None and self.played < self._made)

    def push(self, piece: Audio) -> Iterator[SessionEvent]:
        """Hear the next piece of sound, and say what comes of it; go through all of it before the next.

        :param piece: [1, C, N] of any length and rate, the same rate each time; channels are averaged.
        :raises AudioError: it has another rate than those before, or samples that are no finite numbers.
        """
        # As the piece is heard, which is when its time has passed.
        before = self.listening.turn
        for event in self.listening.push(piece, deaf=self.replying and not self.config.interruptible):
            yield event
            if isinstance(event, Started) and self.replying:
                yield from self._interrupt(before)
            elif isinstance(event, Stopped):
                self._events = self.conversation.turn()
        yield from self._go_on()

    def _interrupt(self, before: list[Audio]) -> Iterator[SessionEvent]:
        """The user speaks while there is a reply to the turn ``before``."""
        heard = self.played
        # It takes a moment to tell that he speaks.
        goes_on = heard - self.activity.config.start <= self.config.retake
        if goes_on:
            self.close()
            self.conversation.retract()
        else:
            self._held = _Held(self._events, self._sounds, heard)
        self._events, self._begun, self._made, self._sounds = None, None, 0.0, []
        self._exchanged = self.time
        yield Interrupted(heard)
        if goes_on:
            yield from self.listening.again(before)

    # -- the model -----------------------------------------------------------------------------

    def _go_on(self) -> Iterator[SessionEvent]:
        """The reply, as far as it is wanted by now."""
        while self._events is not None and self._made - self.played < self.config.lead:
            event = next(self._events, None)
            if event is None:
                self._events = None
                break
            if isinstance(event, Heard):
                if not self._is_for_it(event):
                    yield Ignored(event.text)
                    yield from self._resume()
                    continue
                if (held := self._held) is not None:
                    self._held = None
                    held.close()
                    yield Truncated(held.heard, self.conversation.truncate(held.heard))
            if isinstance(event, Sound):
                self._begun = self.time if self._begun is None else self._begun
                self._made += event.audio.seconds
                self._sounds.append(event.audio)
            yield event
        if self._begun is not None and not self.replying:
            self._begun, self._made, self._sounds, self._exchanged = None, 0.0, [], self.time
            yield Finished()

    def _resume(self) -> Iterator[SessionEvent]:
        """What was heard is not answered; go on with what it stopped, if it did."""
        held, self._held = self._held, None
        self.close()
        if held is None:
            return
        if not self.config.resume:
            held.close()
            yield Truncated(held.heard, self.conversation.truncate(held.heard))
            return
        self._events = held.rest()
        self._begun, self._made, self._sounds = self.time - held.heard, held.heard, held.past()
        yield Resumed(held.heard)

    def _is_for_it(self, heard: Heard) -> bool:
        """Whether what was heard is to be answered."""
        if not heard.understood:
            # Whoever coughs in a reply is not asked what he meant.
            return self.config.ask and self._held is None
        if self._held is not None and is_backchannel(heard.text):
            return False
        if self.addressee is None:
            return True
        samples = torch.cat([x.samples[0, 0] for x in self.listening.turn])
        since = max(self.listening.began - self._exchanged, 0.0)
        return self.addressee(Utterance(samples, heard.text, heard.understood, since)).addressed
