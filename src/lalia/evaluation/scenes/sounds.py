"""Sounds of scenes: pauses within a sentence, people far away, noise."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from lalia.audio import Audio
from lalia.evaluation.intervals import Interval
from lalia.evaluation.scenes.script import RATE

__all__ = ["NOISES", "far", "gain", "parted"]

_FADE = 0.01


def parted(audio: Audio, at: float, seconds: float) -> tuple[Audio, Interval]:
    """A sentence with a silence put into it, and where that is.

    :param at: where it is parted, in seconds; both ends fade over 10 ms.
    :param seconds: how long the silence is.
    """
    rate = audio.sample_rate
    cut, n = round(at * rate), round(_FADE * rate)
    before, after = audio.samples[0, 0, :cut].clone(), audio.samples[0, 0, cut:].clone()
    before[-n:] *= torch.linspace(1, 0, n)[-len(before) :]
    after[:n] *= torch.linspace(0, 1, n)[: len(after)]
    silence = torch.zeros(round(seconds * rate))
    return Audio(torch.cat([before, silence, after]), rate), Interval(cut / rate, cut / rate + seconds)


def gain(audio: Audio, decibels: float) -> Audio:
    """As loud as that, within [-1, 1]."""
    return Audio((audio.samples * 10 ** (decibels / 20)).clamp(-1, 1), audio.sample_rate)


def far(audio: Audio, seed: int, *, decibels: float = -20.0, reverberation: float = 0.5, direct: float = 0.5) -> Audio:
    """Somebody who speaks elsewhere in the room.

    The room is noise that dies away exponentially (Moorer 1979), behind the sound that comes straight.

    :param decibels: how loud it is beside the original.
    :param reverberation: seconds after which it is 60 dB less.
    :param direct: the share of its power that comes straight.
    """
    chance, x = np.random.default_rng(seed), audio.samples[0, 0].double().numpy()
    time = np.arange(round(reverberation * audio.sample_rate)) / audio.sample_rate
    room = chance.standard_normal(len(time)) * 10 ** (-3 * time / reverberation)
    room *= np.sqrt((1 - direct) / np.square(room).sum())
    room[0] = np.sqrt(direct)
    size = len(x) + len(room) - 1
    wet = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(room, size), size)
    return gain(Audio(wet.astype(np.float32), audio.sample_rate), decibels)


def _white(time: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return chance.standard_normal(len(time))


def _hum(time: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A machine: 50 Hz and its overtones, that swell."""
    tones = sum(np.sin(2 * np.pi * 50 * k * time + chance.uniform(0, 2 * np.pi)) / k for k in range(1, 8))
    return tones * (1 + 0.3 * np.sin(2 * np.pi * chance.uniform(0.2, 0.6) * time))


def _traffic(time: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Noise that is less the higher it is, and comes and goes."""
    spectrum = np.fft.rfft(chance.standard_normal(len(time)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1 + len(spectrum) // 400)
    return np.fft.irfft(spectrum, len(time)) * (1.2 + np.sin(2 * np.pi * 0.4 * time + chance.uniform(0, 6)))


def _music(time: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Chords of three notes, two a second, each with overtones that die away."""
    notes = 220 * 2 ** (chance.integers(0, 12, (3, 64)) / 12)
    place = np.minimum((2 * time).astype(int), 63)
    decay = np.exp(-3 * (time % 0.5))
    return decay * sum(np.sin(2 * np.pi * k * notes[v, place] * time) / k for v in range(3) for k in (1, 2, 3))


def _laughter(time: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Voiced bursts, some five a second, that fall in pitch: "ha ha ha"."""
    pitch = np.cumsum(chance.uniform(220, 340) - 20 * time) / RATE
    voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 12)) + 0.5 * chance.standard_normal(len(time))
    bursts = np.clip(np.sin(2 * np.pi * chance.uniform(4, 6) * time), 0, None) ** 2
    return bursts * np.exp(-0.4 * time) * voice


def _knocks(time: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Something hard is put down now and then."""
    found = np.zeros(len(time))
    for at in chance.uniform(0, time[-1], max(int(2 * time[-1]), 1)):
        since = time - at
        found += np.where(since >= 0, np.exp(-40 * np.clip(since, 0, None)), 0) * chance.standard_normal(len(time))
    return found


_MADE: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "white noise": _white,
    "music": _music,
    "laughter": _laughter,
    "traffic": _traffic,
    "hum": _hum,
    "knocks": _knocks,
}


def _noise(name: str) -> Callable[[float, int, float], Audio]:
    def make(seconds: float, seed: int, decibels: float = -34.0) -> Audio:
        x = _MADE[name](np.arange(round(seconds * RATE)) / RATE, np.random.default_rng(seed))
        scale = 10 ** (decibels / 20) / np.sqrt(np.square(x).mean())
        return Audio(np.clip(x * scale, -1, 1).astype(np.float32), RATE)

    return make


NOISES: Mapping[str, Callable[..., Audio]] = {name: _noise(name) for name in _MADE}
"""Synthetic sounds by name, each made of seconds, a seed and a loudness (dB relative to full scale, of its power)."""
