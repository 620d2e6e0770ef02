"""Words with their times, of speech whose words nobody knows."""

from collections.abc import Sequence
from typing import Protocol

from lalia.audio import Audio
from lalia.data import Word
from lalia.evaluation.intervals import Interval, Speech, merged
from lalia.evaluation.protocols import Aligner, Recognizer

__all__ = ["HearsWords", "TimedWords"]

_LONGEST = 28.0
"""Seconds at once: Whisper hears 30."""

_MARGIN = 0.1


class HearsWords(Protocol):
    """Speech recognition that tells when each word is said, in seconds of the recording."""

    def __call__(self, audio: Audio, /) -> tuple[Word, ...]: ...


class _Hears(Recognizer, Aligner, Protocol):
    pass


class TimedWords:
    """Hears words where somebody speaks, and finds each in the sound.

    Silence is never given to the recogniser, which would invent words for it; speech is, in stretches of at most 28 s
    that end in silence wherever there is one.

    :param whisper: recognises, and aligns what it recognised: ``Whisper("whisper-base")``, whose times are good to
        0.1 s.
    :param speech: finds where somebody speaks.
    """

    def __init__(self, whisper: _Hears, speech: Speech | None = None) -> None:
        self.whisper, self.speech = whisper, speech or Speech()

    def __call__(self, audio: Audio) -> tuple[Word, ...]:
        found: list[Word] = []
        for first, last in _stretches(self.speech(audio)):
            start, end = max(first - _MARGIN, 0.0), min(last + _MARGIN, audio.seconds)
            piece = audio.cut(start, end - start)
            (text,) = self.whisper([piece])
            aligned = self.whisper.align(piece, text) if text.strip() else ()
            # No word begins before somebody speaks: the aligner has the first take all the silence before it.
            for w in aligned:
                begun, ended = (min(max(start + t, first), last) for t in (w.start, w.end))
                found.append(Word(w.text, begun, ended))
        return tuple(found)


def _stretches(speech: Sequence[Interval]) -> list[Interval]:
    """Speech in stretches of at most 28 s; whole segments, but for those that are longer."""
    found: list[Interval] = []
    for x in merged(speech):
        start = x.start
        while x.end - start > _LONGEST:
            found.append(Interval(start, start + _LONGEST))
            start += _LONGEST
        if found and x.end - found[-1].start <= _LONGEST and start == x.start:
            found[-1] = Interval(found[-1].start, x.end)
        else:
            found.append(Interval(start, x.end))
    return found
