"""What all sessions in real time are: sound in, events out, closed at the end."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from lalia.audio import Audio

__all__ = ["Session", "end"]


def end(events: Iterator[Any] | None) -> None:
    """Make no more of what is being made, where that is something: a generator is closed."""
    close = getattr(events, "close", None)
    if close is not None:
        close()


class Session(ABC):
    """Hears pieces of sound, and says what comes of them; without a socket and a clock of its own."""

    @abstractmethod
    def push(self, piece: Audio) -> Iterator[Any]:
        """Hear the next piece, and give the events that come of it; go through all of them before the next."""

    @abstractmethod
    def close(self) -> None:
        """Make no more of what is being made."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
