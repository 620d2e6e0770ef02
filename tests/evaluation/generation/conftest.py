import math
from collections.abc import Sequence

import pytest
import torch

from lalia.audio import Audio

RATE = 16_000


def tone(hz: float, seconds: float = 0.5, gain: float = 0.3) -> Audio:
    t = torch.arange(round(seconds * RATE)) / RATE
    return Audio(gain * torch.sin(2 * math.pi * hz * t), RATE)


@pytest.fixture
def tones():
    return tone


class Pitch:
    """The voice of a tone is on a circle, a degree for each 10 Hz."""

    name, version = "pitch", "1"

    def __call__(self, recordings: Sequence[Audio]) -> list[torch.Tensor]:
        found = []
        for audio in recordings:
            spectrum = torch.fft.rfft(audio.samples[0, 0]).abs()
            hz = float(spectrum.argmax()) * audio.sample_rate / audio.samples.shape[-1]
            found.append(7 * torch.tensor([math.cos(math.radians(hz / 10)), math.sin(math.radians(hz / 10))]))
        return found


@pytest.fixture
def pitch() -> Pitch:
    return Pitch()
