"""Where sets are read out: one synthesizer, its voices, each line once."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Literal, NamedTuple

from lalia.audio import Audio
from lalia.data import Word
from lalia.data.synthesis import Espeak, Flite, PhoneSynthesizer, Spoken
from lalia.errors import ConfigError, WeightsError

__all__ = ["GENDERS", "RATE", "EngineName", "Line", "Studio", "choose_engine"]

RATE = 16_000
"""Hz, of every set."""

EngineName = Literal["flite", "espeak-ng"]

GENDERS: Mapping[str, Mapping[str, str]] = {
    "flite": {"slt": "female", "rms": "male", "awb": "male", "kal16": "male"},
    "espeak-ng": {
        "en-us+f2": "female",
        "en-us+m3": "male",
        "en-gb+m7": "male",
        "en-gb-scotland+f4": "female",
        "en-us+m1": "male",
        "en-gb+f2": "female",
    },
}
"""By engine, the voices of sets, those that are taken first at the front, and what they sound like."""


def choose_engine(engine: EngineName | PhoneSynthesizer | None = None) -> PhoneSynthesizer:
    """A synthesizer by its name. Without one it is flite where it is there, for recognisers understand it.

    :raises WeightsError: it is not there.
    :raises ConfigError: there is none of that name.
    """
    match engine:
        case None:
            for name in (lambda: Flite(segments=True), Espeak):
                try:
                    return name()
                except WeightsError:
                    continue
            raise WeightsError(
                "There is neither flite nor espeak-ng on the PATH. Install one of them (packages of Debian)."
            )
        case "flite":
            return Flite(segments=True)
        case "espeak-ng":
            return Espeak()
        case str():
            raise ConfigError(f"There is no synthesizer {engine!r} for sets. Choose flite or espeak-ng.")
        case _:
            return engine


class Line(NamedTuple):
    """What is to be read out, and how.

    :param said: a text, or the phones of a word (ARPAbet with stress).
    """

    said: str | tuple[str, ...]
    voice: str
    speed: float = 1.0


class Studio:
    """Reads out lines, at 16 kHz and mono; a line that was read is kept.

    :param voices: those to read; the first ``num_voices`` of the engine's when not given.
    :param progress: called with how many lines are read, and how many there will be.
    :raises ConfigError: a voice that the engine does not have, one named twice, or none at all.
    """

    def __init__(
        self,
        engine: PhoneSynthesizer,
        voices: Sequence[str] | None = None,
        *,
        num_voices: int = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        known = [v for v in GENDERS.get(engine.name, {}) if v in engine.voices] or list(engine.voices)
        chosen = tuple(known[:num_voices] if voices is None else voices)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ConfigError(f"The voices are {', '.join(chosen) or 'none'}. Name at least one, and each once.")
        for voice in chosen:
            if voice not in engine.voices:
                raise ConfigError(f"{engine.name} has no voice {voice!r}. It has {', '.join(engine.voices) or 'none'}.")
        self.engine, self.voices = engine, chosen
        self._progress = progress
        self._spoken: dict[Line, Spoken] = {}

    def gender(self, voice: str) -> str | None:
        """What a voice sounds like, where it is known."""
        return GENDERS.get(self.engine.name, {}).get(voice)

    def prepare(self, lines: Iterable[Line]) -> None:
        """Read out lines that will be asked for, as many at once as there are processors.

        :raises LaliaError: one of them cannot be read out.
        """
        wanted = [line for line in dict.fromkeys(lines) if line not in self._spoken]
        with ThreadPoolExecutor(os.cpu_count()) as readers:
            running = {readers.submit(self._read, line): line for line in wanted}
            try:
                for n, done in enumerate(as_completed(running), start=1):
                    self._spoken[running[done]] = done.result()
                    if self._progress is not None:
                        self._progress(n, len(wanted))
            finally:
                readers.shutdown(cancel_futures=True)

    def say(self, said: str | Sequence[str], voice: str, speed: float = 1.0) -> Audio:
        """A text or the phones of a word, read out: [1, 1, N]."""
        return self._spoken_line(said, voice, speed).audio

    def phones(self, text: str, voice: str) -> tuple[Word, ...]:
        """What phones a text is read with, and when.

        :raises ConfigError: the engine does not tell.
        """
        found = self._spoken_line(text, voice, 1.0).phones
        if found is None:
            raise ConfigError(f"{self.engine.name} does not tell when it says which phone. Use flite.")
        return found

    def _spoken_line(self, said: str | Sequence[str], voice: str, speed: float) -> Spoken:
        line = Line(said if isinstance(said, str) else tuple(said), voice, speed)
        if line not in self._spoken:
            self._spoken[line] = self._read(line)
        return self._spoken[line]

    def _read(self, line: Line) -> Spoken:
        if isinstance(line.said, str):
            spoken = self.engine.speak(line.said, line.voice, line.speed)
        else:
            spoken = self.engine.speak_phones(line.said, line.voice, line.speed)
        return Spoken(spoken.audio.mono().to(RATE), spoken.phones)
