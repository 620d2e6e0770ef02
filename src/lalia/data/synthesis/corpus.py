"""A corpus of synthetic speech: who reads what is decided before anything is read, so it can be made in pieces."""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from lalia.audio import SHORTEST_SECONDS
from lalia.data.importers import MANIFEST_NAME
from lalia.data.manifest import Manifest, Skipped, Utterance, Word
from lalia.data.report import Report
from lalia.data.shards import make_folder
from lalia.data.synthesis.engines import Synthesizer
from lalia.errors import AudioError, ConfigError, DataError
from lalia.files import atomic_write

__all__ = ["SETTINGS_NAME", "Part", "assign_parts", "synthesize_corpus"]

SETTINGS_NAME = "synthesis.json"
"""Beside the sound: what it was made of and how."""

_SAVE_EVERY = 200


@dataclass(frozen=True)
class Part:
    """Who reads a sentence, and how fast."""

    text: str
    voice: str
    speed: float


def assign_parts(
    sentences: Sequence[str], voices: Mapping[str, float], speeds: Sequence[float], seed: int
) -> Iterator[Part]:
    """A voice and a speed for each sentence, drawn by the seed and its place alone.

    :param voices: how often each is drawn beside one of weight 1.
    """
    names, weights = list(voices), list(voices.values())
    for i, text in enumerate(sentences):
        draw = random.Random(f"{seed}:{i}")
        yield Part(text, draw.choices(names, weights)[0], draw.choice(speeds))


def synthesize_corpus(
    sentences: Sequence[str],
    synthesizer: Synthesizer,
    voices: Sequence[str] | Mapping[str, float],
    folder: str | Path,
    *,
    speeds: Sequence[float] = (1.0,),
    seed: int = 0,
    speaker: str = "{voice}",
    language: str | None = "en",
    sample_rate: int | None = None,
    speech_seconds: float | None = None,
    max_seconds: float | None = None,
    max_failures: int = 20,
    progress: Callable[[float, float], None] | None = None,
) -> Report:
    """Have sentences read out, in order, as FLAC files with ``manifest.jsonl`` and ``report.json``.

    Call it again with the same arguments to go on, or with higher limits to have more: what is there stays. Each
    file is whole or not there, and the manifest names what is there up to the first limit.

    :param voices: of the synthesizer; with weights, how often each reads.
    :param folder: made if it does not exist.
    :param speeds: one is drawn for each sentence.
    :param speaker: how manifests call the reader; ``{voice}`` stands for the voice.
    :param language: of the sentences.
    :param sample_rate: of the files, in Hz; the synthesizer's own when not given.
    :param speech_seconds: stop when the corpus is this long.
    :param max_seconds: stop after this time of work; each call has it anew.
    :param max_failures: give up when so many sentences in a row cannot be read out; single ones are left out.
    :param progress: called with what is done and all there is to do: seconds of speech, or else sentences.
    :raises DataError: the folder holds another corpus, or nothing can be read out.
    :raises ConfigError: voices or speeds that the synthesizer does not have.
    :raises OutputError: the folder cannot be written.
    """
    shares = _shares(voices, synthesizer)
    if not sentences:
        raise DataError("There are no sentences to read out. Give some.")
    if not speeds:
        raise ConfigError("No speed was given. Give at least one, such as 1.0.")
    target = make_folder(folder)
    _remember(
        target / SETTINGS_NAME,
        {
            "synthesizer": synthesizer.name,
            "voices": shares,
            "speeds": list(speeds),
            "seed": seed,
            "speaker": speaker,
            "language": language,
            "sample_rate": sample_rate,
            "sentences": len(sentences),
            "sha256": hashlib.sha256("\n".join(sentences).encode()).hexdigest(),
        },
    )
    for stale in target.glob(".*.part"):  # left by a run that was killed while it wrote
        stale.unlink(missing_ok=True)

    started = time.monotonic()
    made: list[Utterance] = []
    skipped: list[Skipped] = []
    length = worked = 0.0
    failures = 0
    complete = True
    try:
        for i, part in enumerate(assign_parts(sentences, shares, speeds, seed)):
            if speech_seconds is not None and length >= speech_seconds:
                break
            reader = speaker.format(voice=part.voice)
            name = f"{i:05d}-{reader}"
            path = target / f"{name}.flac"
            duration = _duration(path)
            if duration is None:
                if max_seconds is not None and time.monotonic() - started >= max_seconds:
                    complete = False
                    break
                try:
                    duration = _read_out(synthesizer, part, path, sample_rate)
                except AudioError as error:
                    skipped.append(Skipped(name, str(path), str(error).split(". ")[0].rstrip(".")))
                    failures += 1
                    if failures >= max_failures:
                        raise DataError(
                            f"{failures} sentences in a row could not be read out: {skipped[-1].reason}. "
                            f"Check {synthesizer.name} and the text."
                        ) from None
                    continue
                worked += duration
                if len(made) % _SAVE_EVERY == _SAVE_EVERY - 1:
                    Manifest(made).save(target / MANIFEST_NAME)
            failures = 0
            length += duration
            made.append(
                Utterance(
                    name,
                    path,
                    duration=duration,
                    text=part.text,
                    speaker=reader,
                    language=language,
                    phones=_phones(path),
                )
            )
            if progress is not None:
                progress(*((length, speech_seconds) if speech_seconds is not None else (len(made), len(sentences))))
    finally:
        # Also when it is interrupted: what was made is of use.
        if made:
            Manifest(made).save(target / MANIFEST_NAME)
    if not made and skipped:
        raise DataError(f"None of {len(skipped)} sentences could be read out: {skipped[0].reason}. Check the text.")
    seconds = time.monotonic() - started
    report = Report(
        total=len(sentences),
        done=len(made),
        skipped=tuple(skipped),
        hours=length / 3600,
        complete=complete,
        seconds=seconds,
        real_time_factor=seconds / worked if worked else None,
    )
    report.save(target)
    return report


def _shares(voices: Sequence[str] | Mapping[str, float], synthesizer: Synthesizer) -> dict[str, float]:
    shares = dict(voices) if isinstance(voices, Mapping) else dict.fromkeys(voices, 1.0)
    for voice, share in shares.items():
        if voice not in synthesizer.voices:
            raise ConfigError(
                f"{synthesizer.name} has no voice {voice!r}. It has {', '.join(synthesizer.voices) or 'none'}."
            )
        if not 0 <= share < float("inf"):
            raise ConfigError(f"Voice {voice!r} has the weight {share}. Give 0 or more.")
    if not sum(shares.values()):
        raise ConfigError("No voice is to read. Name at least one, with a weight over 0.")
    return shares


def _remember(path: Path, settings: dict[str, Any]) -> None:
    """Note how the corpus is made, and refuse to mix two into one.

    :raises DataError: the folder holds one that was made in another way.
    """
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        changed = [k for k in settings if not isinstance(before, dict) or before.get(k) != settings[k]]
        if changed:
            raise DataError(f"{path.parent} holds speech with other {', '.join(changed)}. Choose an empty folder.")
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _phones(path: Path) -> tuple[Word, ...] | None:
    """The phonemes of a file, which lie beside it where the synthesizer told them."""
    beside = path.with_suffix(".phones.json")
    return tuple(Word(*p) for p in json.loads(beside.read_text(encoding="utf-8"))) if beside.exists() else None


def _duration(path: Path) -> float | None:
    """Of a file that is there and sound, in seconds."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return None
    seconds = float(info.frames) / info.samplerate
    return seconds if seconds >= SHORTEST_SECONDS else None


def _read_out(synthesizer: Synthesizer, part: Part, path: Path, sample_rate: int | None) -> float:
    spoken = synthesizer.speak(part.text, part.voice, part.speed)
    audio = spoken.audio
    audio.check(f"what {synthesizer.name} made of {part.text!r}")
    if spoken.phones is not None:
        # Before the sound: a sound file that is there has them.
        with atomic_write(path.with_suffix(".phones.json")) as temporary:
            temporary.write_text(json.dumps(spoken.phones, ensure_ascii=False), encoding="utf-8")
    audio = audio.mono() if sample_rate is None else audio.mono().to(sample_rate)
    audio.save(path)
    return audio.seconds
