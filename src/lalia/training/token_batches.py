"""Batches of whole utterances laid out for a language model."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from lalia.data import Batch, BatchPlan, BatchSampler, MixtureDataset, Row, TokenDataset, collate
from lalia.layouts import ABSENT, Grid
from lalia.lm import Graph, SpeechLM
from lalia.streams import Discrete, Streams
from lalia.training.crops import cut_time
from lalia.training.distributed import rank, world_size
from lalia.training.interleave import Interleave

__all__ = ["TokenBatches", "held_out"]


class TokenBatches:
    """Global batches by length, in an order that can be repeated and resumed; see ``Batches``.

    Each micro-batch is ``{"grid": Grid, "tokens": int, "seconds": float}``, with ``feeds`` and ``streams`` where the
    model reads the hidden states of others, or predicts streams that have no place in its layout (see ``NextToken``).

    :param max_tokens: of a global batch, padding included.
    :param micro_tokens: of a micro-batch; the whole batch when not given.
    :param max_length: of an utterance; what is longer is cropped at random (single streams) or left out.
    :param crop_seconds: of a longer utterance, a stretch of this length, drawn anew each time.
    :param interleave: how utterances of speech and text become spans of both.
    """

    def __init__(
        self,
        dataset: MixtureDataset | TokenDataset,
        lm: SpeechLM | Graph,
        *,
        name: str | None = None,
        max_tokens: int,
        max_length: int | None = None,
        micro_tokens: int | None = None,
        seed: int = 0,
        crop_seconds: float | None = None,
        interleave: Interleave | None = None,
    ) -> None:
        self.interleave, self.crop_seconds = interleave, crop_seconds
        self.graph = lm if isinstance(lm, Graph) else Graph({name or "lm": lm})
        self.name = name or next(reversed(self.graph.lms))
        self.dataset, self.lm, self.micro = dataset, self.graph.lms[self.name], micro_tokens or max_tokens
        self.streams = self.graph.streams(self.name)
        specs = {n: s for lm in self.graph.lms.values() for n, s in lm.wiring.specs.items()}
        self._factor = {s: k.num_codebooks if isinstance(k := specs[s].kind, Discrete) else 1 for s in self.streams}
        self._beside = tuple(s for s in self.lm.heads if s not in self.lm.layout.streams)
        lengths = sum(dataset.lengths(s) * self._factor[s] for s in self.streams)
        assert isinstance(lengths, torch.Tensor)
        if crop_seconds is not None:
            share = (crop_seconds / dataset.seconds).clamp(max=1.0)
            lengths = (lengths * share).ceil().long()
        self._specs = specs
        self.lengths, self.seconds = lengths, dataset.seconds
        self._crops = crop_seconds is None and len(self.streams) == 1 and self._factor[self.streams[0]] == 1
        plan = BatchPlan(
            lengths,
            max_tokens,
            seed=seed,
            max_length=max_length,
            crop=self._crops,
            draw=dataset.draw if isinstance(dataset, MixtureDataset) else None,
        )
        self.num_skipped = plan.num_skipped
        self._sampler = BatchSampler(plan, epochs=None, rank=rank(), world=world_size())

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._sampler:
            yield [self.load(part) for part in self._split(batch)]

    def state_dict(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._sampler.load_state_dict(state)

    def _split(self, batch: Batch) -> list[tuple[Row, ...]]:
        parts: list[tuple[Row, ...]] = []
        current: list[Row] = []
        longest = 0
        for row in batch.rows:
            longest = max(longest, row.stop - row.start)
            if current and longest * (len(current) + 1) > self.micro:
                parts.append(tuple(current))
                current, longest = [], row.stop - row.start
            current.append(row)
        return [*parts, tuple(current)] if current else parts

    def load(self, rows: Sequence[Row], draw: random.Random | None = None) -> dict[str, Any]:
        """The given utterances as one micro-batch.

        :param draw: of what is drawn anew each time; the generator of the step when not given.
        """
        draw = draw or random.Random(random.getrandbits(64))
        items, cut, seconds = [], [], 0.0
        for row in rows:
            item = self.dataset[row.index]
            whole = int(self.lengths[row.index])
            streams: Streams = {s: item.streams[s] for s in self.streams}
            if self._crops and row.stop - row.start < whole:
                streams = {s: t.cut(row.start, row.stop) for s, t in streams.items()}
            if self.crop_seconds is not None and item.seconds > self.crop_seconds:
                start = draw.uniform(0.0, item.seconds - self.crop_seconds)
                streams = {s: cut_time(t, self._specs[s], start, self.crop_seconds) for s, t in streams.items()}
            if self.interleave is not None:
                streams = self.interleave(streams, self.lm.specs, draw)
            item = replace(item, streams=streams)
            cut.append(row.stop < whole)
            seconds += float(self.seconds[row.index]) * (row.stop - row.start) / max(whole, 1)
            items.append(item)
        together = collate(items)
        grids = self.graph.grids(self.name, together)
        grid = grids.pop(self.name)
        if any(cut):
            grid = _without_end(grid, torch.tensor(cut))
        batch = {"grid": grid, "tokens": sum(int(p.ge(0).sum()) for p in grid.positions.values()), "seconds": seconds}
        if grids:
            batch["feeds"] = grids
        if self._beside:
            batch["streams"] = {s: together[s] for s in self._beside}
        return batch


def _without_end(grid: Grid, rows: torch.Tensor) -> Grid:
    """The grid without the last step of some rows: a crop does not end where it was cut."""
    last = torch.arange(grid.num_steps) == (grid.lengths - 1)[:, None]
    drop = (last & rows[:, None])[:, None]
    positions = {n: torch.where(drop, ABSENT, p) for n, p in grid.positions.items()}
    return Grid(positions, grid.values, grid.lengths - rows.long())


def held_out(batches: TokenBatches, *, most: int = 200) -> list[Any]:
    """One epoch's micro-batches of this rank, at most ``most`` of them, for validation."""
    out: list[Any] = []
    for batch in batches._sampler.plan.epoch(0)[:most]:
        out += [batches.load(part, random.Random(0)) for part in batches._split(batch.shard(rank(), world_size()))]
    return out
