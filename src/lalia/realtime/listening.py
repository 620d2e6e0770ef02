"""The user's turns in a sound that comes piece by piece: where his voice begins, and where he is done."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch

from lalia.audio import Audio
from lalia.errors import AudioError, ConfigError
from lalia.realtime.activity import Activity
from lalia.realtime.events import Draft, Started, Stopped

__all__ = ["Listening", "Patience"]

Patience = Callable[[Sequence[Audio], str], float]
"""Seconds of silence after which the user is done, by the sound of his turn so far and what is understood of it."""


class Listening:
    """Turns begin with a voice and end with silence. Time is the sound that came in.

    :param listen: hears each piece of a turn, and gives what was said in it so far, as far as it is understood.
    :param activity: who tells when somebody speaks; nobody where None: then a turn is all that comes until it is ended.
    :param patience: how long to wait for the user to go on; ``Config.silence`` when not given. It is asked at the
        beginning of each silence.
    """

    @dataclass(frozen=True)
    class Config:
        """
        :param silence: seconds after which the user is done.
        :param padding: seconds of sound before his voice that are heard with it.
        """

        silence: float = 0.5
        padding: float = 0.3

        def __post_init__(self) -> None:
            if not (self.silence > 0 and self.padding >= 0):
                raise ConfigError(
                    f"Listening has a silence of {self.silence} s and a padding of {self.padding} s. "
                    "Give more than 0 s of silence, and no less than 0 s of padding."
                )

    sample_rate = 16_000
    """Of what is heard."""

    def __init__(
        self,
        listen: Callable[[Audio], str],
        config: Config | None = None,
        *,
        activity: Activity | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.config = config or self.Config()
        self.activity = activity
        self.patience = patience
        self._listen = listen
        self.time = 0.0
        """Seconds of sound that came in."""
        self.began = 0.0
        """When the turn began, its padding included."""
        self.turn: list[Audio] = []
        """What the user said in this turn, or the last one."""
        self.open, self.draft = False, ""
        """Whether a turn is heard, and what was said in it so far."""
        self._wait: float | None = None
        """The patience with the silence that is heard now."""
        self._resampler: soxr.ResampleStream | None = None
        self._rate: int | None = None
        self._recent: deque[Audio] = deque()
        """What came in last, while nobody spoke."""

    @property
    def seconds(self) -> float:
        """Of the turn."""
        return sum(x.seconds for x in self.turn)

    def push(self, piece: Audio, *, deaf: bool = False) -> Iterator[Started | Draft | Stopped]:
        """Hear the next piece of sound; go through all that comes of it before the next.

        After ``Started``, and before it is gone on, what was said before may be put to the turn (``again``).

        :param piece: [1, C, N] of any length and rate, the same rate each time; channels are averaged.
        :param deaf: whether nobody can begin to speak.
        :raises AudioError: it has another rate than those before, or samples that are no finite numbers.
        """
        heard = self._resampled(piece)
        self.time += piece.seconds
        activity = self.activity
        if activity is None:
            yield from self._begin() if not self.open else ()
            yield from self._hear(heard)
            return
        was = activity.speaking
        frames = list(activity.push(heard.samples[0, 0]))
        if not self.open and not deaf and (was or any(frames)):
            yield from self._begin()
        if self.open:
            yield from self._hear(heard)
        else:
            self._keep(heard)
        if activity.speaking:
            self._wait = None
        elif self.open:
            if self._wait is None:
                self._wait = self.config.silence if self.patience is None else self.patience(self.turn, self.draft)
            if activity.quiet >= self._wait:
                self.open, self._wait = False, None
                yield Stopped(self.time - activity.quiet)

    def again(self, pieces: Sequence[Audio]) -> Iterator[Draft]:
        """Have sound that was heard before at the beginning of the turn."""
        for piece in pieces:
            yield from self._hear(piece)

    def end(self) -> None:
        """The user is done, without a silence."""
        self.open, self._wait = False, None

    def clear(self) -> None:
        """Nothing was said."""
        self.end()
        self.turn, self.draft = [], ""
        self._recent.clear()
        if self.activity is not None:
            self.activity.reset()

    def _begin(self) -> Iterator[Started | Draft]:
        """He begins to speak, or goes on."""
        self.open, self.draft, self.turn = True, "", []
        start = 0.0 if self.activity is None else self.activity.config.start
        before = list(self._recent)
        self._recent.clear()
        self.began = max(self.time - (start if before else 0.0) - sum(x.seconds for x in before), 0.0)
        yield Started(max(self.time - start, 0.0))
        for piece in before:
            yield from self._hear(piece)

    def _hear(self, piece: Audio) -> Iterator[Draft]:
        self.turn.append(piece)
        draft = self._listen(piece)
        if draft and draft != self.draft:
            self.draft = draft
            yield Draft(draft)

    def _keep(self, piece: Audio) -> None:
        """Keep as much of silence as is heard before a voice."""
        assert self.activity is not None
        self._recent.append(piece)
        wanted = self.config.padding + self.activity.config.start
        while self._recent and sum(x.seconds for x in self._recent) - self._recent[0].seconds >= wanted:
            self._recent.popleft()

    def _resampled(self, piece: Audio) -> Audio:
        """A piece at the rate at which it is heard."""
        rate = self.sample_rate if self.activity is None else self.activity.sample_rate
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
