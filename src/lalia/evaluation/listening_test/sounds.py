"""What is played on a screen: never a file as it lies there, whose name, tags and format would tell whose it is."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import torch

from lalia.audio import Audio
from lalia.evaluation.listening_test.material import Item, Kind
from lalia.evaluation.listening_test.plan import Screen

__all__ = ["Part", "Played", "degrade", "sounds_of", "wav"]

Part = Literal["prompt", "reference", "sound", "first", "second"]

_PIECE_SECONDS = 0.08
_FASTER = 1.7


@dataclass(frozen=True)
class Played:
    """One recording on a screen."""

    part: Part
    path: Path
    degraded: bool = False


def sounds_of(screen: Screen, item: Item, kind: Kind) -> tuple[Played, ...]:
    """The recordings of a screen, in the order in which they are heard."""
    anchor = screen.role == "anchor"
    if kind == "cmos":
        first = Played("first", item.sounds[screen.other], anchor and screen.expected == 1)
        second = Played("second", item.sounds[screen.system], anchor and screen.expected == -1)
        lead: tuple[Played, ...] = () if item.prompt is None else (Played("prompt", item.prompt),)
        return (*lead, first, second)
    sound = Played("sound", item.sounds[screen.system], anchor)
    if kind == "smos" and item.reference is not None:
        return (Played("reference", item.reference), sound)
    if kind == "mmos" and item.prompt is not None:
        return (Played("prompt", item.prompt), sound)
    return (sound,)


def degrade(audio: Audio, kind: Kind) -> Audio:
    """Much worse in what is rated.

    Pieces of 80 ms in another order, in white noise as loud as they: no words, no melody, not natural. Where the
    voice is rated, it is 1.7 times as fast and high.

    :param audio: one row.
    """
    if kind == "smos":
        return Audio(audio.samples, round(audio.sample_rate * _FASTER)).to(audio.sample_rate)
    rng = np.random.default_rng(0)
    samples = audio.samples[0]
    size = max(round(_PIECE_SECONDS * audio.sample_rate), 1)
    pieces = list(samples.split(size, dim=-1))
    mixed = torch.cat([pieces[i] for i in rng.permutation(len(pieces))], dim=-1)
    loud = mixed.square().mean().sqrt()
    noise = torch.from_numpy(rng.standard_normal(tuple(mixed.shape)).astype(np.float32)) * loud
    # As loud as it was.
    return Audio((mixed + noise) / 2**0.5, audio.sample_rate)


def wav(played: Played, kind: Kind) -> bytes:
    """A WAV file of 16 bits, without anything but its sound; beyond full scale it is clipped.

    :raises AudioError: the recording has gone, or cannot be read any more.
    """
    audio = Audio.load(played.path)
    if played.degraded:
        audio = degrade(audio, kind)
    file = io.BytesIO()
    samples = audio.samples[0].clamp(-1, 1).T.numpy()
    soundfile.write(file, samples, audio.sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
