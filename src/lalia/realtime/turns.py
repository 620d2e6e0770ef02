"""A spoken conversation in real time, turn by turn: sound comes in as it is spoken, and goes out as it is made.

There is no clock and no thread: time is the sound that came in, and the work is done while a piece of it is pushed. So
a session is as deterministic as its model, and runs as well from a file as from a microphone or a socket.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import soxr
import torch

from lalia.audio import Audio
from lalia.errors import AudioError, ConfigError
from lalia.realtime.activity import Activity
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


class TurnSession:
    """Turns of a user who may pause, interrupt, and be silent, and of a model that stops when he speaks.

    A turn of the user begins with his voice and ends with silence. If he goes on as the reply begins, he was not done:
    both parts are one turn. If he speaks while it is heard, it stops, and the rest of it was never said. What is not
    understood is not answered.

    :param conversation: with the model.
    :param activity: who tells when somebody speaks.
    :param patience: seconds of silence after which the user is done, by what he has said so far; ``Config.silence``
        when not given.
    """

    @dataclass(frozen=True)
    class Config:
        """
        :param silence: seconds after which the user is done.
        :param padding: seconds of sound before his voice that are heard with it.
        :param retake: seconds of a reply up to which a user who speaks was not done, and interrupts nobody.
        :param lead: seconds of a reply that are made ahead of what is played. More costs work that an interruption
            throws away; less may leave gaps where the machine is slow.
        :param interruptible: whether a reply stops when the user speaks. If not, what he says meanwhile is not heard.
        :param ask: whether the model asks again for what it did not understand, in place of silence.
        """

        silence: float = 0.5
        padding: float = 0.3
        retake: float = 0.4
        lead: float = 1.0
        interruptible: bool = True
        ask: bool = False

        def __post_init__(self) -> None:
            if not (self.silence > 0 and self.padding >= 0 and self.retake >= 0 and self.lead > 0):
                raise ConfigError(
                    f"A session has a silence of {self.silence} s, a padding of {self.padding} s, a retake of "
                    f"{self.retake} s and a lead of {self.lead} s. Give more than 0 s of silence and lead, and no less "
                    "than 0 s of the others."
                )

    def __init__(
        self,
        conversation: Conversation,
        config: Config | None = None,
        *,
        activity: Activity | None = None,
        patience: Callable[[str], float] | None = None,
    ) -> None:
        self.config = config or self.Config()
        self.conversation = conversation
        self.activity = activity or Activity()
        self._patience = patience or (lambda _: self.config.silence)
        self.time = 0.0
        """Seconds of sound that came in."""
        self._resampler: soxr.ResampleStream | None = None
        self._rate: int | None = None
        self._recent: deque[Audio] = deque()
        """What came in last, while nobody spoke."""
        self._turn: list[Audio] = []
        """What the user said in this turn, or the last one."""
        self._listening, self._draft = False, ""
        self._events: Iterator[Event] | None = None
        """Of the reply that is being made."""
        self._begun: float | None = None
        """When the first sound of the reply was given."""
        self._made = 0.0
        """Seconds of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End a reply that is being made."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()
        self._events = None

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
        heard = self._resampled(piece)
        self.time += piece.seconds
        was = self.activity.speaking
        frames = list(self.activity.push(heard.samples[0, 0]))
        deaf = self.replying and not self.config.interruptible
        if not self._listening and not deaf and (was or any(frames)):
            yield from self._begin()
        if self._listening:
            yield from self._hear(heard)
        else:
            self._keep(heard)
        if self._listening and self.activity.quiet >= self._patience(self._draft):
            self._listening = False
            yield Stopped(self.time - self.activity.quiet)
            self._events, self._begun, self._made = self.conversation.turn(), None, 0.0
        yield from self._go_on()

    # -- the user ------------------------------------------------------------------------------

    def _begin(self) -> Iterator[SessionEvent]:
        """He begins to speak, or goes on."""
        yield Started(max(self.time - self.activity.config.start, 0.0))
        before: list[Audio] = []
        if self.replying:
            heard, text = self.played, ""
            self.close()
            # It takes a moment to tell that he speaks.
            if heard - self.activity.config.start <= self.config.retake:
                self.conversation.retract()
                before = self._turn
            else:
                text = self.conversation.truncate(heard)
            yield Interrupted(heard, text)
            self._begun, self._made = None, 0.0
        self._listening, self._draft, self._turn = True, "", []
        for piece in [*before, *self._recent]:
            yield from self._hear(piece)
        self._recent.clear()

    def _hear(self, piece: Audio) -> Iterator[Draft]:
        self._turn.append(piece)
        draft = self.conversation.listen(piece)
        if draft and draft != self._draft:
            self._draft = draft
            yield Draft(draft)

    def _keep(self, piece: Audio) -> None:
        """Keep as much of silence as is heard before a voice."""
        self._recent.append(piece)
        wanted = self.config.padding + self.activity.config.start
        while self._recent and sum(x.seconds for x in self._recent) - self._recent[0].seconds >= wanted:
            self._recent.popleft()

    def _resampled(self, piece: Audio) -> Audio:
        """A piece at the rate at which it is heard."""
        rate = self.activity.sample_rate
        if self._rate not in (None, piece.sample_rate):
            raise AudioError(
                f"The sound comes at {piece.sample_rate} Hz, and came at {self._rate} Hz. Keep to one rate."
            )
        self._rate = piece.sample_rate
        samples = piece.mono().samples[0, 0].detach().float().cpu()
        if not bool(torch.isfinite(samples).all()):
            raise AudioError("The sound has samples that are no finite numbers. Check where it comes from.")
        if piece.sample_rate != rate:
            if self._resampler is None:
                self._resampler = soxr.ResampleStream(piece.sample_rate, rate, 1, dtype=np.float32)
            samples = torch.from_numpy(self._resampler.resample_chunk(samples.numpy()))
        return Audio(samples[None, None], rate)

    # -- the model -----------------------------------------------------------------------------

    def _go_on(self) -> Iterator[SessionEvent]:
        """The reply, as far as it is wanted by now."""
        while self._events is not None and self._made - self.played < self.config.lead:
            event = next(self._events, None)
            if event is None:
                self._events = None
                break
            if isinstance(event, Heard) and not event.understood and not self.config.ask:
                self.close()
                yield Ignored(event.text)
                break
            if isinstance(event, Sound):
                self._begun = self.time if self._begun is None else self._begun
                self._made += event.audio.seconds
            yield event
        if self._begun is not None and not self.replying:
            self._begun, self._made = None, 0.0
            yield Finished()
