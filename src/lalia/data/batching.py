"""Batches of like lengths, in an order that is random, the same everywhere, and can be taken up at any point.

The order depends on the lengths, the seed and the epoch alone: not on how many processes share the work,
nor on the version of the random number generator (only raw Philox output is used, which NumPy keeps stable).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from torch import Tensor

from lalia.errors import ConfigError, DataError

__all__ = ["Batch", "BatchPlan", "BatchSampler", "Epoch", "Row", "random_order", "random_uniform"]


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens ``start`` to ``stop`` of utterance ``index``."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Batch:
    """Rows that are trained on together, and where in the training they come."""

    epoch: int
    number: int
    rows: tuple[Row, ...]

    @property
    def indices(self) -> list[int]:
        """Which utterances."""
        return [row.index for row in self.rows]

    @property
    def num_tokens(self) -> int:
        """Tokens of the batch, padding included."""
        return len(self.rows) * max((row.stop - row.start for row in self.rows), default=0)

    def shard(self, rank: int, world: int) -> "Batch":
        """The rows of one of ``world`` processes: every ``world``-th row.

        The shards of all ranks are the batch. A rank gets none where there are fewer rows than processes.
        """
        return Batch(self.epoch, self.number, self.rows[rank::world])


def random_uniform(n: int, *key: int) -> np.ndarray:
    """``n`` numbers in [0, 1) that depend on ``key`` alone, float64."""
    raw = np.random.Philox(np.random.SeedSequence(key)).random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53


def random_order(n: int, *key: int) -> np.ndarray:
    """A permutation of ``n`` things that depends on ``key`` alone."""
    return np.argsort(random_uniform(n, *key), kind="stable")


class Epoch(Sequence[Batch]):
    """The batches of one epoch, in order."""

    def __init__(self, epoch: int, rows: np.ndarray, starts: np.ndarray, order: np.ndarray) -> None:
        self._epoch = epoch
        self._rows = rows  # [n, 3] index, start, stop
        self._starts = starts  # [number of batches + 1] into rows
        self._order = order  # [number of batches]

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, i: int) -> Batch: ...
    @overload
    def __getitem__(self, i: slice) -> list[Batch]: ...
    def __getitem__(self, i: int | slice) -> Batch | list[Batch]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        number = range(len(self))[i]
        b = self._order[number]
        rows = self._rows[self._starts[b] : self._starts[b + 1]].tolist()
        return Batch(self._epoch, number, tuple(Row(*row) for row in rows))


class BatchPlan:
    """Which utterances are trained on together, for every epoch.

    Utterances are sorted by their length with some noise, packed greedily, and the batches are shuffled:
    little padding, and other neighbours in each epoch.

    :param lengths: tokens (LM steps, frames) of each utterance.
    :param max_tokens: tokens per global batch at most, padding included.
    :param seed: 0 or more.
    :param max_rows: utterances per global batch at most.
    :param max_length: tokens of an utterance at most (the model's context); ``max_tokens`` when not given.
    :param max_padding: the share of a batch that may be padding.
    :param crop: take a random window of what is longer than ``max_length``, another in each epoch; else leave
        it out, and count it in ``num_skipped``.
    :param draw: the utterances of an epoch, where that is not each of them once (``MixtureDataset.draw``).
    :raises ConfigError: an option out of range.
    :raises DataError: no utterance fits.
    """

    def __init__(
        self,
        lengths: Tensor | np.ndarray | Sequence[int],
        max_tokens: int,
        *,
        seed: int = 0,
        max_rows: int | None = None,
        max_length: int | None = None,
        max_padding: float = 0.2,
        crop: bool = True,
        draw: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.max_length = max_tokens if max_length is None else min(max_length, max_tokens)
        if self.max_length < 1 or (max_rows is not None and max_rows < 1):
            raise ConfigError(
                f"A batch of at most {max_tokens} tokens, {max_rows} rows and {max_length} tokens per row "
                "holds nothing. Give 1 or more of each."
            )
        if not 0 <= max_padding < 1:
            raise ConfigError(f"max_padding is {max_padding}. Give a share from 0 to under 1.")
        if seed < 0:
            raise ConfigError(f"The seed is {seed}. Give 0 or more.")
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.max_tokens = max_tokens
        self.max_rows = max_rows
        self.max_padding = max_padding
        self.seed = seed
        self._draw = draw
        self._usable = self.lengths > 0
        if not crop:
            self._usable &= self.lengths <= self.max_length
        if not self._usable.any():
            longest = int(self.lengths.max(initial=0))
            raise DataError(
                f"None of the {len(self.lengths)} utterances fits (the longest has {longest} tokens, a row holds "
                f"{self.max_length}). Raise max_length and max_tokens, or crop."
            )

    @property
    def num_skipped(self) -> int:
        """Utterances left out: empty, or too long where nothing is cropped."""
        return int((~self._usable).sum())

    @property
    def fingerprint(self) -> str:
        """What tells this plan from any that gives other batches."""
        options = (self.max_tokens, self.max_length, self.max_rows, self.max_padding, self.seed)
        facts = hashlib.sha256(repr(options).encode())
        for array in (self.lengths, self._usable, self._drawn(0)):
            facts.update(np.ascontiguousarray(array).tobytes())
        return facts.hexdigest()

    def _drawn(self, epoch: int) -> np.ndarray:
        indices = np.arange(len(self.lengths)) if self._draw is None else np.asarray(self._draw(epoch), np.int64)
        return indices[self._usable[indices]]

    def epoch(self, epoch: int) -> Epoch:
        """The batches of epoch ``epoch`` (from 0).

        :raises DataError: nothing that was drawn for it fits.
        """
        indices = self._drawn(epoch)
        if not len(indices):
            raise DataError(f"Epoch {epoch} has no utterances that fit. Raise max_length and max_tokens, or crop.")
        n = len(indices)
        full = self.lengths[indices]
        length = np.minimum(full, self.max_length)
        start = (random_uniform(n, self.seed, epoch, 0) * (full - length + 1)).astype(np.int64)
        noise = 1.0 + self.max_padding * random_uniform(n, self.seed, epoch, 1)
        order = np.argsort(length * noise, kind="stable")
        starts = self._pack(length[order].tolist())
        rows = np.stack([indices, start, start + length], axis=1)[order]
        return Epoch(epoch, rows, starts, random_order(len(starts) - 1, self.seed, epoch, 2))

    def _pack(self, lengths: Sequence[int]) -> np.ndarray:
        """Where each batch begins, and the end."""
        starts = [0]
        count = longest = total = 0
        most_rows = self.max_rows or len(lengths)
        for i, length in enumerate(lengths):
            size = max(longest, length) * (count + 1)
            padding = size - total - length
            if count and (size > self.max_tokens or count == most_rows or padding > self.max_padding * size):
                starts.append(i)
                count = longest = total = 0
            count, longest, total = count + 1, max(longest, length), total + length
        return np.array([*starts, len(lengths)])


class BatchSampler:
    """The batches of a plan, epoch after epoch; it can be saved and taken up at any batch.

    :param epochs: how many; without end when not given.
    :param rank: which of ``world`` processes this is: it gets its rows of every global batch.
    """

    def __init__(self, plan: BatchPlan, *, epochs: int | None = None, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ConfigError(f"This is rank {rank} of {world}. Count ranks from 0.")
        self.plan = plan
        self.epochs = epochs
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.position = 0

    def __iter__(self) -> Iterator[Batch]:
        """From where it stands; the state moves on as a batch is handed out."""
        while self.epochs is None or self.epoch < self.epochs:
            batches = self.plan.epoch(self.epoch)
            while self.position < len(batches):
                batch = batches[self.position]
                self.position += 1
                yield batch.shard(self.rank, self.world)
            self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self, after: Batch | None = None) -> dict[str, Any]:
        """Where to go on, as JSON-ready data; the same for every rank.

        :param after: the last batch that was used, where batches are fetched ahead of their use.
        """
        epoch, position = (self.epoch, self.position) if after is None else (after.epoch, after.number + 1)
        return {"epoch": epoch, "position": position, "plan": self.plan.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at the batch after the last one of the run that saved ``state``, with any number of processes.

        :raises DataError: the state belongs to other data or other options.
        """
        if state["plan"] != self.plan.fingerprint:
            raise DataError(
                "The saved position belongs to other data or batch options. Resume with those of the first run."
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
