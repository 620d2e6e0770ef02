"""Conversations of two channels, made of recordings of one: for models that hear and speak at once.

They are no replacement for real ones: nobody answers what was said. They show a model that two people take turns.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lalia.audio import Audio
from lalia.data import Manifest, Utterance, Word
from lalia.errors import AudioError, DataError

__all__ = ["make_conversations"]

_LONGEST = 9.0
"""Seconds of a turn, at most; what is longer is cut, in a pause between words where these are known."""


def make_conversations(manifest: Manifest, folder: Path, *, sample_rate: int = 24000, seed: int = 0) -> Manifest:
    """One conversation of two turns for each utterance that has a successor of another speaker.

    Channel 1, the user, speaks first, and channel 0 after a gap of 0.2 to 0.8 s. The text, the words and the speaker
    of a conversation are those of channel 0.

    :param folder: for the recordings (FLAC); made when missing.
    :raises DataError: there are no two recordings that could be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    made: list[Utterance] = []
    for first, second in zip(manifest, [*manifest[1:], manifest[0]], strict=True):
        gap = draw.uniform(0.2, 0.8)
        if first.id == second.id:
            continue
        path = folder / f"{len(made):05d}.flac"
        try:
            asked, _ = _turn(first, sample_rate)
            answer, kept = _turn(second, sample_rate)
        except AudioError:
            continue
        start = asked.seconds + gap
        samples = torch.zeros(2, round(start * sample_rate) + answer.samples.shape[-1])
        samples[1, : asked.samples.shape[-1]] = asked.samples[0, 0]
        samples[0, -answer.samples.shape[-1] :] = answer.samples[0, 0]
        if not path.exists():
            Audio(samples, sample_rate).save(path)
        made.append(
            replace(
                kept,
                id=f"{first.id}+{second.id}",
                path=path,
                start=0.0,
                channel=None,
                duration=samples.shape[1] / sample_rate,
                words=None if kept.words is None else _later(kept.words, start),
                phones=None if kept.phones is None else _later(kept.phones, start),
            )
        )
    if not made:
        raise DataError("No two recordings could be put into a conversation. Give more recordings.")
    return Manifest(made)


def _later(words: Sequence[Word], seconds: float) -> tuple[Word, ...]:
    return tuple(Word(w.text, w.start + seconds, w.end + seconds) for w in words)


def _turn(u: Utterance, sample_rate: int) -> tuple[Audio, Utterance]:
    """The beginning of an utterance that is no longer than a turn."""
    words, seconds = u.words, min(u.duration, _LONGEST)
    if words and u.duration > _LONGEST:
        words = tuple(w for w in words if w.end <= _LONGEST)
        seconds = min(words[-1].end + 0.15, _LONGEST) if words else _LONGEST
    text = " ".join(w.text for w in words) if words else u.text if seconds == u.duration else None
    phones = None if u.phones is None else tuple(p for p in u.phones if p.end <= seconds)
    u = replace(u, duration=seconds, words=words, phones=phones, text=text)
    return u.load(sample_rate=sample_rate), u
