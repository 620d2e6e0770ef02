"""What is asked of a model and of the tools that judge it: never a class, always a capability."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lalia.audio import Audio
from lalia.data import Word

__all__ = ["Aligner", "HasLikelihood", "Likelihood", "Recognizer"]


class Likelihood(Protocol):
    """Log-probabilities of a recording in nats: of its tokens, their sum, and of ending after them.

    ``starts``: the second at which each token begins.
    """

    @property
    def log_probs(self) -> Sequence[float]: ...
    @property
    def starts(self) -> Sequence[float]: ...
    @property
    def tokens(self) -> int: ...
    @property
    def sum(self) -> float: ...
    @property
    def end(self) -> float: ...


@runtime_checkable
class HasLikelihood(Protocol):
    """A model that says how likely it finds a recording."""

    def score(self, audio: Audio, /) -> Likelihood: ...


class Recognizer(Protocol):
    """Speech recognition. ``name`` and ``version`` go into every result that it had a part in."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def __call__(self, recordings: Sequence[Audio], /) -> list[str]:
        """The text of each recording."""
        ...


class Aligner(Protocol):
    """Finds the words of a known text in a recording."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def align(self, audio: Audio, text: str, /) -> tuple[Word, ...]:
        """The words with their times in seconds."""
        ...
