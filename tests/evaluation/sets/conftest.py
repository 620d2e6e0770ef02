import math
from collections.abc import Sequence

import pytest
import torch

from lalia.audio import Audio
from lalia.data import Word
from lalia.data.synthesis import Spoken

RATE = 16_000


class Tones:
    """Reads each letter or phone as a tone of its own height and length; each voice has its pace and its loudness."""

    name, version = "flite", "tones"
    voices = ("slt", "rms", "awb", "kal16")

    def speak(self, text: str, voice: str, speed: float = 1.0) -> Spoken:
        return self._tones(text.lower(), voice, speed)

    def speak_phones(self, phones: Sequence[str], voice: str, speed: float = 1.0) -> Spoken:
        return self._tones(phones, voice, speed)

    def _tones(self, said: Sequence[str], voice: str, speed: float) -> Spoken:
        v = self.voices.index(voice)
        pieces, phones, at = [torch.zeros(800)], [Word("pau", 0.0, 0.05)], 0.05
        for sound in said:
            code = sum(map(ord, sound))
            n = round((60 + 16 * (code % 5) + 8 * v) / speed)
            tone = torch.sin(2 * math.pi * (200 + 13 * (code % 50)) * torch.arange(n) / RATE)
            pieces.append((0.1 + 0.05 * v + 0.02 * (code % 7)) * tone)
            phones.append(Word(sound, at, at + n / RATE))
            at += n / RATE
        return Spoken(Audio(torch.cat([*pieces, torch.zeros(800)]), RATE), (*phones, Word("pau", at, at + 0.05)))


@pytest.fixture
def tones() -> Tones:
    return Tones()
