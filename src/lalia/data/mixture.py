"""Several data sets as one, in shares that are chosen."""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.data.batching import random_order
from lalia.data.dataset import TokenDataset
from lalia.data.manifest import SPLITS
from lalia.data.shards import StreamInfo, TokenRow
from lalia.errors import ConfigError, DataError
from lalia.streams import StreamSpec

__all__ = ["Mixture", "MixtureDataset", "Source"]


@dataclass(frozen=True)
class Source(Configuration):
    """A folder of token shards.

    :param weight: how often each of its utterances is drawn beside one of a source of weight 1.
    :param split: take this part of its speakers only (see ``Mixture.fractions``).
    """

    path: str
    weight: float = 1.0
    split: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"Source {self.path!r} has the weight {self.weight}. Give a number over 0.")


@dataclass(frozen=True)
class Mixture(Configuration):
    """Which data a stage is trained on.

    A source of n utterances and weight w is drawn with probability proportional to (w n)^(1 / temperature):
    at 1, as large as it is; above, small sources gain (Conneau and Lample 2019, section 3.1).

    :param size: utterances per epoch; as many as there are when not given.
    :param seed: of the order in which a source is gone through, 0 or more.
    :param fractions: the splits and the share of the speakers in each.
    :param scattered: speakers whose utterances fall to all splits.
    """

    sources: tuple[Source, ...]
    temperature: float = 1.0
    size: int | None = None
    seed: int = 0
    fractions: Mapping[str, float] = field(default_factory=lambda: dict(SPLITS))
    scattered: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("A mixture of no sources. Name at least one folder of token shards.")
        if not self.temperature > 0:
            raise ConfigError(f"The mixture has temperature {self.temperature}. Give a number over 0.")
        if self.size is not None and self.size < 1:
            raise ConfigError(f"The mixture draws {self.size} utterances per epoch. Give 1 or more.")
        if self.seed < 0:
            raise ConfigError(f"The mixture has seed {self.seed}. Give 0 or more.")

    def open(self, *, streams: Sequence[str] | None = None) -> "MixtureDataset":
        """The data that this names.

        :param streams: the streams to read; all when not given.
        :raises DataError: a source that is missing, damaged or empty, or sources of different tokenizers.
        """
        parts = []
        for source in self.sources:
            part = TokenDataset(source.path, streams=streams)
            if source.split is not None:
                part = part.split(source.split, self.fractions, scattered=self.scattered)
            if not len(part):
                which = f"split {source.split!r} of {source.path}" if source.split else source.path
                raise DataError(f"The {which} has no utterances. Choose other fractions or more data.")
            parts.append(part)
        return MixtureDataset(self, parts)


class MixtureDataset:
    """The utterances of several data sets, numbered through; ``draw`` says which make up an epoch.

    :param parts: one data set per source of the mixture.
    :raises DataError: they have different streams or tokenizers.
    """

    def __init__(self, mixture: Mixture, parts: Sequence[TokenDataset]) -> None:
        assert len(parts) == len(mixture.sources)
        self.mixture = mixture
        self.parts = tuple(parts)
        for source, part in zip(mixture.sources, parts, strict=True):
            if (part.identity, part.specs) != (parts[0].identity, parts[0].specs):
                raise DataError(
                    f"{source.path} holds {_describe(part)} but {mixture.sources[0].path} holds {_describe(parts[0])}. "
                    "Tokenize both with the same tokenizers."
                )
        self._starts = [0]
        for part in parts:
            self._starts.append(self._starts[-1] + len(part))
        self.counts = self._counts()

    def _counts(self) -> list[int]:
        """Draws per epoch from each source: shares of the size, rounded so that they sum to it."""
        size = self.mixture.size or len(self)
        wanted = [(s.weight * len(p)) ** (1 / self.mixture.temperature) for s, p in self._pairs()]
        exact = [size * w / math.fsum(wanted) for w in wanted]
        counts = [math.floor(x) for x in exact]
        by_rest = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
        for i in by_rest[: size - sum(counts)]:
            counts[i] += 1
        return counts

    def _pairs(self) -> list[tuple[Source, TokenDataset]]:
        return list(zip(self.mixture.sources, self.parts, strict=True))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> TokenRow:
        """Utterance ``i`` of all sources numbered through."""
        number = range(len(self))[i]
        part = bisect.bisect_right(self._starts, number) - 1
        return self.parts[part][number - self._starts[part]]

    @property
    def info(self) -> dict[str, StreamInfo]:
        """Each stream and what made it."""
        return self.parts[0].info

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """What each stream holds."""
        return self.parts[0].specs

    @property
    def identity(self) -> dict[str, str]:
        """The SHA-256 of the tokenizer of each stream."""
        return self.parts[0].identity

    def lengths(self, stream: str) -> Tensor:
        """Tokens of each utterance, [len(self)] int64."""
        return torch.cat([part.lengths(stream) for part in self.parts])

    @property
    def seconds(self) -> Tensor:
        """Length of each utterance in seconds, [len(self)] float64."""
        return torch.cat([part.seconds for part in self.parts])

    def draw(self, epoch: int) -> np.ndarray:
        """The utterances of an epoch, the sources interleaved in their shares.

        Each source is gone through again and again in a new order, and an epoch goes on where the one before
        stopped: no utterance of a source comes up twice more often than another.
        """
        indices, places = [], []
        for number, (part, count) in enumerate(zip(self.parts, self.counts, strict=True)):
            indices.append(self._starts[number] + self._nth(number, len(part), epoch * count, count))
            places.append((np.arange(count) + 0.5) / max(count, 1))
        order = np.argsort(np.concatenate(places), kind="stable")
        return np.concatenate(indices)[order]

    def _nth(self, source: int, n: int, first: int, count: int) -> np.ndarray:
        """Draws ``first`` to ``first + count`` of the endless sequence of permutations of a source."""
        passes = range(first // n, -(-(first + count) // n))
        drawn = [random_order(n, self.mixture.seed, source, p) for p in passes]
        return np.concatenate([np.empty(0, np.int64), *drawn])[first % n :][:count]


def _describe(part: TokenDataset) -> str:
    return ", ".join(f"{name} of {info}" for name, info in part.info.items())
