"""Synthesizers: programs that read text out, behind one small protocol."""

import importlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lalia.audio import Audio
from lalia.data.manifest import Word
from lalia.errors import AudioError, ConfigError, MissingDependency, WeightsError

__all__ = ["Espeak", "Flite", "Kokoro", "PhoneSynthesizer", "Spoken", "Synthesizer"]

SLOWEST, FASTEST = 0.5, 2.0

_TIMEOUT_SECONDS = 120.0
_WORDS_PER_MINUTE = 165


@dataclass(frozen=True)
class Spoken:
    """A text, read out.

    :param audio: [1, 1, N].
    :param phones: its phonemes with their times, where the synthesizer tells them.
    """

    audio: Audio
    phones: tuple[Word, ...] | None = None


class Synthesizer(Protocol):
    """What turns text into speech."""

    @property
    def name(self) -> str:
        """Of the program, for people and for the record."""
        ...

    @property
    def voices(self) -> tuple[str, ...]: ...

    def speak(self, text: str, voice: str, speed: float = 1.0) -> Spoken:
        """The text, read out, at the rate of the voice.

        :param voice: one of ``voices``.
        :param speed: 2 is twice as fast as 1; from 0.5 to 2.
        :raises AudioError: this text cannot be read out.
        :raises ConfigError: no such voice or speed.
        """
        ...


class PhoneSynthesizer(Synthesizer, Protocol):
    """What also reads out phones, of which there need be no word."""

    @property
    def version(self) -> str:
        """Of the program: one version makes the same sound of the same text, bit for bit."""
        ...

    def speak_phones(self, phones: Sequence[str], voice: str, speed: float = 1.0) -> Spoken:
        """One word, as it is pronounced.

        :param phones: ARPAbet with stress, as in the CMU dictionary: ``B R IH1 K``.
        :raises AudioError: one of them is none.
        :raises ConfigError: no such voice or speed.
        """
        ...


class Flite:
    """CMU Flite (Black and Lenzo 2001): small, 50 times faster than real time, and plainly synthetic.

    Voices ``slt`` and ``rms`` are American, ``awb`` Scottish, all 16 kHz by statistical synthesis; ``kal16`` is
    by diphones. The program and its voices are free, under a licence like BSD's.

    :param program: its name or path.
    :param segments: tell the phones of what was read, and their times. It is off where nobody asks, for a corpus would
        keep them.
    :raises WeightsError: it is not there.
    """

    name = "flite"

    def __init__(self, program: str = "flite", *, segments: bool = False) -> None:
        found = shutil.which(program)
        if found is None:
            raise WeightsError(f"There is no program {program!r} on the PATH. Install flite (a package of Debian).")
        self.program, self.segments = found, segments

    @cached_property
    def version(self) -> str:
        return _version(self.program, r"version: (.+?) *\(")

    @cached_property
    def voices(self) -> tuple[str, ...]:
        """Those that are built in."""
        listed = subprocess.run([self.program, "-lv"], capture_output=True, text=True, check=False, timeout=30).stdout
        return tuple(sorted(listed.partition(":")[2].split()))

    def speak(self, text: str, voice: str, speed: float = 1.0) -> Spoken:
        _check(self, text, voice, speed)
        return self._speak(text, ("-t", text), voice, speed)

    def speak_phones(self, phones: Sequence[str], voice: str, speed: float = 1.0) -> Spoken:
        """It has no stress, but a reduced vowel of its own."""
        text = " ".join(phones)
        _check(self, text, voice, speed)
        _check_phones(self, phones)
        said = ["ax" if p == "AH0" else p.rstrip("012").lower() for p in phones]
        return self._speak(text, ("-p", " ".join(("pau", *said, "pau"))), voice, speed)

    def _speak(self, text: str, what: tuple[str, str], voice: str, speed: float) -> Spoken:
        options = ["-voice", voice, "--setf", f"duration_stretch={1 / speed:.6g}"]
        if self.segments:
            options.append("-psdur")
        spoken, told = _run(self, text, lambda path: [self.program, *options, *what, "-o", path])
        if not self.segments:
            return spoken
        # "pau:0.213 b:0.263": each phone with its end.
        ends = [(phone, float(end)) for phone, end in re.findall(r"(\S+):([\d.]+)", told)]
        starts = [0.0, *(end for _, end in ends)]
        return Spoken(spoken.audio, tuple(Word(p, start, end) for (p, end), start in zip(ends, starts, strict=False)))


class Espeak:
    """espeak-ng: formant synthesis, hundreds of times faster than real time, and a voice like no person's (22 kHz).

    Accents of English, each in several variants that sound like other throats. The program is GPL, and is only run.

    :param program: its name or path.
    :raises WeightsError: it is not there.
    """

    name = "espeak-ng"
    voices = tuple(
        f"{accent}+{variant}"
        for accent in ("en-us", "en-gb", "en-gb-scotland")
        for variant in ("m1", "m3", "m7", "f2", "f4")
    )

    def __init__(self, program: str = "espeak-ng") -> None:
        found = shutil.which(program)
        if found is None:
            raise WeightsError(f"There is no program {program!r} on the PATH. Install espeak-ng (a package of Debian).")
        self.program = found

    @cached_property
    def version(self) -> str:
        return _version(self.program, r": ([\d.]+)")

    def speak(self, text: str, voice: str, speed: float = 1.0) -> Spoken:
        _check(self, text, voice, speed)
        return self._speak(text, text, voice, speed)

    def speak_phones(self, phones: Sequence[str], voice: str, speed: float = 1.0) -> Spoken:
        text = " ".join(phones)
        _check(self, text, voice, speed)
        _check_phones(self, phones)
        return self._speak(text, f"[[{espeak_phones(phones)}]]", voice, speed)

    def _speak(self, text: str, given: str, voice: str, speed: float) -> Spoken:
        pace = str(round(_WORDS_PER_MINUTE * speed))
        return _run(self, text, lambda path: [self.program, "-v", voice, "-s", pace, "-w", path, "--", given])[0]


_ARPABET = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_KIRSHENBAUM = "A: a V O: aU aI E 3: eI I i: oU OI U u: b tS d D f g h dZ k l m n N p r s S t T v w j z Z"
_ESPEAK_PHONES: Mapping[str, str] = dict(zip(_ARPABET.split(), _KIRSHENBAUM.split(), strict=True))
"""What espeak calls the phones of ARPAbet."""


def espeak_phones(phones: Sequence[str]) -> str:
    """ARPAbet with stress, as espeak writes it: the marks of stress stand before vowels, and unstressed AH is @."""
    marks = {"1": "'", "2": ","}
    return "".join("@" if p == "AH0" else marks.get(p[-1], "") + _ESPEAK_PHONES[p.rstrip("012")] for p in phones)


_LANGUAGES = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "p": "pt-br"}
"""By the first letter of a voice. Its Japanese and Chinese need phonemes that espeak does not give."""


class Kokoro:
    """Kokoro-82M (Apache-2.0), after StyleTTS 2 (Li et al. 2023): natural speech at 24 kHz, about in real time.

    It runs through the package kokoro-onnx, whose phonemes come from espeak-ng (GPL): use it to make data, in an
    environment of its own. The model draws noise, so the same sentence differs in its last bits each time.

    :param model: the model in ONNX form. One that has its durations among its outputs tells the times of phonemes.
    :param voices: an ``.npz`` file with a style array [n, 1, 256] for each voice.
    :raises MissingDependency: kokoro-onnx is not installed.
    :raises WeightsError: a file is missing or is not what it should be.
    """

    name = "kokoro"

    def __init__(self, model: str | Path, voices: str | Path) -> None:
        for path in (Path(model), Path(voices)):
            if not path.is_file():
                raise WeightsError(f"{path} does not exist. Name the ONNX model and the voices of Kokoro-82M.")
        try:
            # Its name stands here only: nothing that lalia installs by default may depend on it.
            package: Any = importlib.import_module("kokoro_onnx")
        except ImportError:
            raise MissingDependency("kokoro-onnx", "tts-data") from None
        try:
            with np.load(voices, allow_pickle=False) as styles:
                names = styles.files
            self._engine = package.Kokoro(str(model), str(voices))
        except Exception as error:  # noqa: BLE001  onnxruntime and zipfile each have errors of their own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsError(f"{model} and {voices} are not Kokoro ({reason}). Fetch them again.") from None
        self.voices = tuple(sorted(name for name in names if name[:1] in _LANGUAGES))

    def speak(self, text: str, voice: str, speed: float = 1.0) -> Spoken:
        _check(self, text, voice, speed)
        try:
            samples, sample_rate, timings = self._engine.create_timed(
                text, voice=voice, speed=speed, lang=_LANGUAGES[voice[0]]
            )
        except (ValueError, IndexError, RuntimeError) as error:
            raise _unspoken(self, text, str(error).strip() or type(error).__name__) from None
        audio = Audio(np.asarray(samples, np.float32), sample_rate)
        audio.check(f"what {self.name} made of {_short(text)}")
        phones = tuple(Word(t.phoneme, round(t.start, 4), round(t.end, 4)) for t in timings)
        return Spoken(audio, phones or None)


def _check(engine: Synthesizer, text: str, voice: str, speed: float) -> None:
    if voice not in engine.voices:
        raise ConfigError(f"{engine.name} has no voice {voice!r}. It has {', '.join(engine.voices) or 'none'}.")
    if not SLOWEST <= speed <= FASTEST:
        raise ConfigError(f"A speed of {speed} was asked for. Give one from {SLOWEST} to {FASTEST}.")
    if not any(c.isalnum() for c in text):
        raise AudioError(f"{engine.name} cannot read out {_short(text)}. Give it words.")


def _check_phones(engine: Synthesizer, phones: Sequence[str]) -> None:
    unknown = [p for p in phones if p.rstrip("012") not in _ESPEAK_PHONES]
    if unknown:
        raise AudioError(f"{engine.name} knows no phone {unknown[0]!r}. Write ARPAbet, such as B R IH1 K.")


def _version(program: str, pattern: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30)
    found = re.search(pattern, done.stdout)
    return found[1] if found else "unknown"


def _run(engine: Synthesizer, text: str, command: Callable[[str], list[str]]) -> tuple[Spoken, str]:
    """What a program writes into the file that its command line names, and what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        try:
            done = subprocess.run(command(str(path)), capture_output=True, check=False, timeout=_TIMEOUT_SECONDS)
        except (subprocess.TimeoutExpired, OSError) as error:
            raise _unspoken(engine, text, type(error).__name__) from None
        if done.returncode or not path.exists():
            raise _unspoken(engine, text, f"exit status {done.returncode}")
        return Spoken(Audio.load(path, mono=True)), done.stdout.decode(errors="replace")


def _unspoken(engine: Synthesizer, text: str, reason: str) -> AudioError:
    reason = reason.splitlines()[0].rstrip(".")
    return AudioError(f"{engine.name} cannot read out {_short(text)} ({reason}). Leave it out.")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
