"""How a recording can sound, whoever speaks: what is heard behind the voice, and the room around it."""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lalia.audio import Audio
from lalia.evaluation.energy import mean_power, speech_span
from lalia.evaluation.scenes.sounds import NOISES, far, gain
from lalia.evaluation.sets.studio import RATE

__all__ = ["BACKGROUNDS", "ROOMS", "SPEECH_DB", "babble", "background", "in_room", "levelled", "spliced", "trimmed"]

SPEECH_DB = -26.0
"""Mean power of every half, relative to full scale: who speaks louder by nature does not here."""

_SNR = 5.0
_EDGE = 0.12
_FADE = 0.005

BACKGROUNDS = ("white noise", "traffic", "hum", "music", "babble")

ROOMS: Mapping[str, tuple[float, float]] = {"studio": (0.1, 0.95), "room": (0.5, 0.55), "hall": (1.6, 0.25)}
"""(Seconds after which the reverberation is 60 dB less, share of the power that comes straight.)"""


def trimmed(audio: Audio) -> Audio:
    """The speech with 120 ms around it, silent where there was not as much."""
    first, last = speech_span(mean_power(audio))
    edge = round(_EDGE * RATE)
    padded = torch.nn.functional.pad(audio.samples, (edge, edge))
    return Audio(padded[..., first : last + 2 * edge], RATE)


def levelled(audio: Audio, decibels: float = SPEECH_DB) -> Audio:
    """With this mean power, of all its samples.

    Not of the speech alone: two halves then have the power together that each has, whichever they are.
    """
    return gain(audio, decibels - 10 * math.log10(float(audio.samples.double().square().mean())))


def babble(voices: Sequence[Audio], seconds: float, seed: int) -> Audio:
    """Many who speak at once: each recording from a place of its own on, over and over."""
    draw = np.random.default_rng(seed)
    n = round(seconds * RATE)
    mixed = np.zeros(n)
    for audio in voices:
        x = levelled(audio).samples[0, 0].double().numpy()
        mixed += np.resize(np.roll(x, int(draw.integers(len(x)))), n)
    return Audio(mixed.astype(np.float32), RATE)


def background(speech: Audio, name: str, crowd: Sequence[Audio], seed: int) -> Audio:
    """The speech with something behind it that has 5 dB less power.

    :param name: one of `BACKGROUNDS`.
    :param crowd: recordings of which babble is made.
    """
    if name == "babble":
        noise = babble(crowd, speech.seconds, seed)
    else:
        noise = NOISES[name](speech.seconds, seed)
    x = noise.samples[..., : speech.samples.shape[-1]]
    x = x * (10 ** ((SPEECH_DB - _SNR) / 20) / x.square().mean().sqrt())
    return Audio((speech.samples + x).clamp(-1, 1), RATE)


def in_room(speech: Audio, name: str) -> Audio:
    """The speech in a room, as long and as loud as before; what echoes beyond its end is cut off.

    :param name: one of `ROOMS`; a room is always the same one.
    """
    seconds, direct = ROOMS[name]
    wet = far(speech, zlib.crc32(name.encode()), decibels=0.0, reverberation=seconds, direct=direct)
    return levelled(Audio(wet.samples[..., : speech.samples.shape[-1]], RATE))


def spliced(first: Audio, second: Audio) -> Audio:
    """One behind the other. Both fade over 5 ms, also where they would fit: a splice says nothing."""
    n = round(_FADE * RATE)
    ramp = torch.sin(torch.linspace(0, torch.pi / 2, n + 2)[1:-1]) ** 2
    a, b = first.samples.clone(), second.samples.clone()
    a[..., -n:] *= ramp.flip(0)
    b[..., :n] *= ramp
    return Audio(torch.cat([a, b], dim=-1), RATE)
