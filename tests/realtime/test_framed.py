"""A session of turns as one that gives as much sound as it takes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.realtime import Activity, Heard, Reply, Said, Sound, TurnSession, Written
from lalia.realtime.framed import Framed
from loud import Loud

RATE = 16_000


class Hummer:
    """Answers with three seconds of a steady sound."""

    def listen(self, piece: Audio) -> str:
        return ""

    def turn(self) -> Iterator[Any]:
        yield Heard("", understood=True)
        for i in range(12):
            yield Written(f"{i} ")
            yield Sound(Audio(torch.full((1, 1, 2000), 0.5), 8000))
        yield Said(Reply("", None, {}))

    def truncate(self, seconds: float) -> str:
        return ""

    def retract(self) -> None:
        pass


def played(*parts: float, frame: int = 1280) -> tuple[torch.Tensor, str]:
    """What is heard of it while somebody is silent and speaks in turns, in seconds."""
    sound = torch.cat([torch.full((round(RATE * t),), 0.9 * (i % 2)) for i, t in enumerate(parts)])
    framed = Framed(TurnSession(Hummer(), activity=Activity(detector=Loud())))
    out, text, fed = [], "", 0
    for piece in sound.split(frame):
        framed.feed(Audio(piece, RATE))
        audio, new = framed.take()
        fed += len(piece)
        out.append(audio.samples[0, 0])
        text += new
        assert sum(map(len, out)) == fed * 24_000 // RATE
    return torch.cat(out), text


def test_a_reply_is_played_when_it_is_said() -> None:
    sound, text = played(0.5, 1.0, 4.5)
    heard = (sound > 0.25).nonzero()[:, 0] / 24_000
    assert float(heard.min()) == pytest.approx(2.0, abs=0.1)
    # The resampler keeps a few milliseconds back.
    assert float(heard.max()) == pytest.approx(5.0, abs=0.15)
    assert text == "".join(f"{i} " for i in range(12))


def test_an_interrupted_reply_is_not_played_on() -> None:
    sound, _ = played(0.5, 1.0, 1.5, 1.0, 0.4)
    heard = (sound > 0.25).nonzero()[:, 0] / 24_000
    assert float(heard.max()) == pytest.approx(3.1, abs=0.1)
