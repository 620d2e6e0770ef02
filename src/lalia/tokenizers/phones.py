"""Phones: the phonemes of an utterance with how long each lasts, as whoever made the speech tells them."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise

import torch

from lalia.config import Configurable
from lalia.errors import ConfigError, DataError
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers.base import identity_of

__all__ = ["Phones"]

_ENGLISH = " ',.?!;:ˈˌːabdefhijklmnopstuvwzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒʔθᵻ"
"""The IPA of American English as espeak-ng writes it, stress and length being symbols of their own."""


class Phones(Configurable):
    """Ids [B, 1, T] with ``durations`` in frames: what a duration model learns.

    The first is always a space, the silence before the speech.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param symbols: one id for each; a space is the pause, and the first of them.
        :param frame_rate: frames per second (Hz) in which durations are counted.
        """

        symbols: str = _ENGLISH
        _: KW_ONLY
        frame_rate: float = 50.0

        def __post_init__(self) -> None:
            if self.symbols[:1] != " " or len(set(self.symbols)) < len(self.symbols):
                raise ConfigError(f"Phones are {self.symbols!r}. Begin with a space, and name each once.")

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Discrete(len(self.symbols)), frame_rate=self.frame_rate, deduplicated=True)

    def __init__(self, config: Config) -> None:
        self.config, self.spec = config, config.spec
        self.identity = identity_of(config, {})
        self._ids = {c: i for i, c in enumerate(config.symbols)}

    def encode(self, phones: Sequence[tuple[str, float, float]], seconds: float) -> TokenSequence:
        """Phones with their times in an utterance of so many seconds [1, 1, T].

        They last ceil(seconds * rate) frames. What is between two phones belongs to the first of them, and so does
        what is not among the symbols.

        :raises DataError: there are none.
        """
        kept = [(self._ids[p], start) for p, start, _ in phones if p in self._ids]
        if not kept:
            raise DataError("The utterance has no phones that are known. Synthesize it with a voice that tells them.")
        rate = self.config.frame_rate
        total = -int(-seconds * rate // 1)
        edges = [0, *(min(round(start * rate), total) for _, start in kept), total]
        durations = [b - a for a, b in pairwise(edges)]
        ids = [0, *(i for i, _ in kept)]
        return TokenSequence(torch.tensor(ids)[None, None], torch.tensor([len(ids)]), torch.tensor(durations)[None])

    def spell(self, symbols: str) -> TokenSequence:
        """Phones whose durations nobody knows, one frame each: [1, 1, T]."""
        ids = [0, *(self._ids[c] for c in symbols if c in self._ids)]
        row = torch.tensor(ids)[None, None]
        return TokenSequence(row, torch.tensor([len(ids)]), torch.ones(1, len(ids), dtype=torch.long))

    def decode(self, tokens: TokenSequence) -> list[str]:
        """The symbols of each row."""
        rows = (tokens.row(b).values[0, 0].tolist() for b in range(len(tokens)))
        return ["".join(self.config.symbols[i] for i in row) for row in rows]
