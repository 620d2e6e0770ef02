"""What tokenizers learn from recordings before they make tokens of them, and the level of each speaker."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.data import Utterance
from lalia.errors import AudioError, DataError
from lalia.store import DESCRIPTION, read_description, read_weights
from lalia.tokenizers import Learns, Levelled

__all__ = ["Load", "begun_with", "learn", "level_of"]

Load = Callable[[Utterance], Audio]
"""The sound of an utterance that a tokenizer hears."""

_FIT_SECONDS = 4 * 3600.0
"""Of a corpus that a tokenizer learns from, evenly over all of it."""

_LEVEL_SECONDS = 60.0
"""Of a speaker from which his level is taken: log-F0 is known to within a hundredth then."""


def begun_with(home: Path, tokenizer: Any) -> None:
    """Give a tokenizer that has learned nothing yet what it learned when the tokens beside ``home`` were begun, if so.

    :param home: where it was saved then.
    """
    if isinstance(tokenizer, Learns) and not tokenizer.fitted and (home / DESCRIPTION).is_file():
        saved = read_weights(home)
        if saved and read_description(home, "tokenizer")[0] == tokenizer.config:
            tokenizer.load_weights(saved)


def learn(tokenizer: Any, utterances: Iterable[Utterance], load: Load, stream: str) -> bool:
    """Fit a tokenizer that learns and has not yet.

    :param load: gives the sound.
    :param stream: what it makes, for the message.
    :returns: whether it was fitted now.
    :raises DataError: there is too little that can be used.
    """
    if not isinstance(tokenizer, Learns) or tokenizer.fitted:
        return False
    some = list(utterances)
    total = sum(u.duration for u in some)
    some = some[:: max(round(total / _FIT_SECONDS), 1)]
    speakers: list[str] = []

    def recordings() -> Iterator[Audio]:
        for u in some:
            try:
                audio = load(u)
            except AudioError:
                continue
            # Who is not known is nobody else.
            speakers.append(u.id if u.speaker is None else f"speaker {u.speaker}")
            yield audio

    try:
        if isinstance(tokenizer, Levelled):
            tokenizer.fit(recordings(), speakers=speakers)  # type: ignore[call-arg]
        else:
            tokenizer.fit(recordings())
    except DataError as error:
        raise DataError(f"Stream {stream!r}: {error}") from None
    return True


def level_of(tokenizer: Any, utterances: Iterable[Utterance], load: Load) -> "Levels | None":
    """What gives the level of who speaks an utterance; None where the tokenizer does not ask for it."""
    return Levels(tokenizer, utterances, load) if isinstance(tokenizer, Levelled) and tokenizer.by_speaker else None


class Levels:
    """The level of each speaker for a tokenizer that is relative to it, measured when it is first asked for.

    :param utterances: of the corpus; up to a minute of each speaker is heard.
    """

    def __init__(self, tokenizer: Levelled, utterances: Iterable[Utterance], load: Load) -> None:
        self.tokenizer, self.load = tokenizer, load
        self._said: dict[str, list[Utterance]] = {}
        self._known: dict[str, float] = {}
        for u in utterances:
            if u.speaker is not None:
                said = self._said.setdefault(u.speaker, [])
                if sum(v.duration for v in said) < _LEVEL_SECONDS:
                    said.append(u)

    def __call__(self, u: Utterance) -> float | None:
        """That of who speaks; None where nobody knows who does."""
        if u.speaker not in self._said:
            return None
        if u.speaker not in self._known:
            self._known[u.speaker] = self.tokenizer.level(self._recordings(u.speaker))
        return self._known[u.speaker]

    def _recordings(self, speaker: str) -> Iterator[Audio]:
        for u in self._said[speaker]:
            try:
                yield self.load(u)
            except AudioError:
                continue
