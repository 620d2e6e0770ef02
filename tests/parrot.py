"""A conversation for scenes: it answers whatever was said, and remembers what happened."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.realtime import Heard, Reply, Said, Sound, Written

RATE = 16_000


class Parrot:
    """A conversation that answers what was said with so many pieces of 0.25 s of sound, and remembers what happened."""

    def __init__(self, pieces: int = 8, *, understood: bool = True) -> None:
        self.pieces, self.understood = pieces, understood
        self.happened: list[Any] = []
        self.heard: list[Tensor] = []
        self.made = 0

    def listen(self, piece: Audio) -> str:
        self.heard.append(piece.samples[0, 0])
        return f"{sum(len(x) for x in self.heard) // 8000} words"

    def turn(self) -> Iterator[Any]:
        sound = torch.cat(self.heard)
        self.heard = []
        self.happened.append(("turn", len(sound) / RATE))
        yield Heard("words", self.understood)
        for i in range(self.pieces):
            self.made += 1
            yield Written(f"{i} ")
            yield Sound(Audio(torch.full((1, 1, 6000), 0.1), 24_000))
        yield Said(Reply("all", None, {}))

    def truncate(self, seconds: float) -> str:
        self.happened.append(("truncate", round(seconds, 2)))
        return "so far"

    def retract(self) -> None:
        self.happened.append("retract")
