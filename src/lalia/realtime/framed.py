"""Any session as one that gives as much sound as it takes: what it says is played at the pace at which it hears."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from lalia.audio import Audio
from lalia.realtime.duplex import DuplexSession
from lalia.realtime.events import Interrupted, Sound, Written
from lalia.realtime.intake import Intake
from lalia.realtime.session import Session

__all__ = ["Framed"]


class Framed:
    """A session whose sound comes out as it is played: silence where nothing is said, nothing of what was interrupted.

    :param sample_rate: of what comes out, in Hz.
    """

    def __init__(self, session: Session, sample_rate: int = 24_000) -> None:
        self.session, self.sample_rate = session, sample_rate
        self._pieces: list[Audio] = []
        self._waiting = np.zeros(0, np.float32)
        """What is said and not played yet."""
        self._owed = 0.0
        """Samples."""
        self._said = Intake(sample_rate)

    @property
    def speaking(self) -> bool:
        """Whether something is said that was not played yet."""
        return len(self._waiting) > 0

    def feed(self, piece: Audio) -> None:
        """Hear the next piece [1, C, N]; see ``DuplexSession.feed``.

        :raises AudioError: as the session's ``push``.
        """
        if isinstance(self.session, DuplexSession):
            self.session.feed(piece)
        else:
            self._pieces.append(piece)
        self._owed += piece.seconds * self.sample_rate

    def take(self) -> tuple[Audio, str]:
        """As much sound [1, 1, N] as was fed since the last time, and what the model wrote meanwhile."""
        text = ""
        for event in self._events():
            if isinstance(event, Sound):
                self._say(event.audio)
            elif isinstance(event, Interrupted):
                self._waiting = self._waiting[:0]
                self._said = Intake(self.sample_rate)
            elif isinstance(event, Written):
                text += event.text
        count = int(self._owed)
        self._owed -= count
        played, self._waiting = self._waiting[:count], self._waiting[count:]
        padded = np.pad(played, (0, count - len(played)))
        return Audio(torch.from_numpy(padded)[None, None], self.sample_rate), text

    def close(self) -> None:
        """End the session."""
        self.session.close()

    def _events(self) -> Iterable[Any]:
        if isinstance(self.session, DuplexSession):
            yield from self.session.take()
            return
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            yield from self.session.push(piece)

    def _say(self, audio: Audio) -> None:
        self._waiting = np.concatenate([self._waiting, self._said.push(audio).samples[0, 0].numpy()])
