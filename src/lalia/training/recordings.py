"""Token shards together with the recordings that they were made of."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.data import Manifest, MixtureDataset, Utterance
from lalia.errors import ConfigError

__all__ = ["Recorded", "Sounds", "voice_of"]

_CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class Recorded:
    """The utterances of one or more folders, numbered through.

    :param tokens: their token shards.
    :param utterances: where the sound of each is; None where no manifest says.
    :param speakers: who speaks; None where unknown.
    """

    tokens: MixtureDataset
    utterances: tuple[Utterance | None, ...]
    speakers: tuple[str | None, ...]

    @classmethod
    def of(cls, tokens: MixtureDataset, manifests: Sequence[Manifest | None]) -> "Recorded":
        """
        :param manifests: one for each part of ``tokens``.
        """
        utterances: list[Utterance | None] = []
        speakers: list[str | None] = []
        for part, manifest in zip(tokens.parts, manifests, strict=True):
            known = {u.id: u for u in manifest or ()}
            utterances += [known.get(name) for name in part.ids]
            speakers += part.speakers
        return cls(tokens, tuple(utterances), tuple(speakers))

    def __len__(self) -> int:
        return len(self.tokens)


class Sounds:
    """The recordings of utterances at one rate, mono; the last ones used stay in memory.

    Threads may share one.
    """

    def __init__(
        self, utterances: Sequence[Utterance | None], sample_rate: int, *, cache_bytes: int = _CACHE_BYTES
    ) -> None:
        self.utterances, self.sample_rate, self.cache_bytes = utterances, sample_rate, cache_bytes
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._cached = 0

    def get(self, row: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Samples [n] from ``start`` to ``stop`` of an utterance; fewer where it ends before.

        :raises AudioError: the file is missing, not audio, or has become silent.
        """
        with self._lock:
            held = self._cache.get(row)
            if held is not None:
                self._cache.move_to_end(row)
        if held is None:
            utterance = self.utterances[row]
            assert utterance is not None
            audio = utterance.load(sample_rate=self.sample_rate).mono()
            # Sixteen bits: what the files have, and half the memory.
            held = (audio.samples[0, 0].clamp(-1, 1) * 32767).round().to(torch.int16)
            with self._lock:
                if row not in self._cache:
                    self._cache[row] = held
                    self._cached += held.numel() * 2
                while self._cached > self.cache_bytes and len(self._cache) > 1:
                    self._cached -= self._cache.popitem(last=False)[1].numel() * 2
        return held[start:stop].float() / 32767


def voice_of(speaker: str | None, voices: Sequence[str], num_voices: int) -> int | None:
    """The number of a speaker's voice, or None where the speaker has none.

    :param voices: names of speakers, in the order of the vocoder's voices; with none, everyone is voice 0.
    :param num_voices: voices of the vocoder. Speakers that are not named share those past the named ones, each
        by a hash of the name; where there are none past them, they have none.
    :raises ConfigError: more are named than there are.
    """
    if len(voices) > num_voices:
        raise ConfigError(f"{len(voices)} voices are named, but the vocoder has {num_voices}. Name fewer.")
    if not voices:
        return 0
    if speaker in voices:
        return voices.index(speaker)
    spare = num_voices - len(voices)
    if not spare:
        return None
    place = int.from_bytes(hashlib.sha256((speaker or "").encode()).digest()[:8], "big")
    return len(voices) + place % spare
