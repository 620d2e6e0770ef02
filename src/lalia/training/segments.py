"""Batches of short segments of sound with the codes that belong to them, for training vocoders and codecs."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.data.batching import random_order, random_uniform
from lalia.errors import DataError
from lalia.streams import Streams, TokenSequence, pad_batch
from lalia.training.analysis import Analysis
from lalia.training.recordings import Recorded, Sounds, voice_of
from lalia.vocoders.conditions import condition_of

__all__ = ["RandomSegments", "Segment", "SegmentBatches"]

_EPSILON = 1e-6
"""Of a frame: 22050 / 256 Hz is not exact."""


@dataclass(frozen=True)
class Segment:
    """Which frames of which utterance."""

    row: int
    start: int


class RandomSegments(ABC):
    """Random segments of one length, every stretch of a corpus about once an epoch; see ``Batches``.

    :param rows: which utterances are used.
    :param lengths: of all utterances, in frames.
    :param frames: length of a segment.
    :param batch_size: segments per global batch; every rank takes its share.
    :param micro_batch_size: most segments at once.
    :param facts: what else tells these batches from any others.
    """

    def __init__(
        self,
        rows: Sequence[int],
        lengths: Sequence[int],
        *,
        frames: int,
        batch_size: int,
        micro_batch_size: int | None,
        seed: int,
        rank: int,
        world: int,
        facts: Any = None,
    ) -> None:
        self._rows, self._lengths, self._facts = list(rows), list(lengths), facts
        self.frames, self.batch_size, self.micro = frames, batch_size, micro_batch_size or batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = self.position = 0

    @abstractmethod
    def load(self, segments: Sequence[Segment]) -> dict[str, Any]:
        """The segments as one batch."""

    def sample(self, count: int) -> dict[str, Any]:
        """The first segments of the first epoch, fewer where there are not as many."""
        return self.load(self._segments(0)[:count])

    def __iter__(self) -> Iterator[list[Any]]:
        segments = self._segments(self.epoch)
        count = max(len(segments) // self.batch_size, 1)
        while self.position < count:
            batch = segments[self.position * self.batch_size : (self.position + 1) * self.batch_size]
            self.position += 1
            mine = batch[self.rank :: self.world]
            yield [self.load(mine[i : i + self.micro]) for i in range(0, len(mine), self.micro)]
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position, "plan": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        if state.get("plan", self._fingerprint) != self._fingerprint:
            raise DataError(
                "The saved position belongs to other data or batch options. Resume with those of the first run."
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    @cached_property
    def _fingerprint(self) -> str:
        """What tells these batches from any others."""
        facts = (self._rows, self._lengths, self._facts, self.frames, self.batch_size, self.seed)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _segments(self, epoch: int) -> list[Segment]:
        found = []
        for i, u in zip(self._rows, random_uniform(len(self._rows), self.seed, epoch, 0), strict=True):
            room = self._lengths[i] - self.frames
            # A random offset, then end to end: each frame comes about once.
            first = int(u * (min(room, self.frames) + 1))
            found += [Segment(i, start) for start in range(first, room + 1, self.frames)]
        return [found[j] for j in random_order(len(found), self.seed, epoch, 1)]


class SegmentBatches(RandomSegments):
    """Random segments with the codes that belong to them.

    Each micro-batch is ``{"streams": Streams, "audio": Audio, "speaker": Tensor [B], "seconds": float}``, with
    one code or vector of features per frame, and the same number of steps of every condition.

    :param recorded: token shards and their sound.
    :param stream: the stream of codes; its durations say which samples a code covers.
    :param conditions: further streams of the shards, which are cut by time (see ``condition_of``).
    :param analysis: what computes the stream of the sound, where the shards need not have it.
    :param sample_rate: of the sound, in Hz; a multiple of the frame rate.
    :param voices: names of speakers, and ``num_voices`` of the vocoder: see ``voice_of``. Who has no voice is
        left out.
    :raises DataError: nothing is long enough.
    """

    def __init__(
        self,
        recorded: Recorded,
        stream: str,
        *,
        sample_rate: int,
        frames: int,
        batch_size: int,
        conditions: Sequence[str] = (),
        analysis: Analysis | None = None,
        micro_batch_size: int | None = None,
        voices: Sequence[str] = (),
        num_voices: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        rate = recorded.tokens.specs[stream].frame_rate if analysis is None else analysis.frame_rate
        if rate is None or abs(sample_rate / rate - round(sample_rate / rate)) > _EPSILON:
            raise DataError(
                f"Stream {stream!r} at {rate} Hz does not divide sound at {sample_rate} Hz. Choose another sample rate."
            )
        self.recorded, self.stream, self.sample_rate = recorded, stream, sample_rate
        for name in conditions:
            if name not in recorded.tokens.specs:
                raise DataError(
                    f"The vocoder hears {name!r}, and the shards have {', '.join(recorded.tokens.specs)}. "
                    "Tokenize the corpus with all of its streams."
                )
        self.conditions, self.analysis, self.frame_rate = tuple(conditions), analysis, rate
        self.hop = round(sample_rate / rate)
        self.sounds = Sounds(recorded.utterances, sample_rate)
        self._voice = [voice_of(s, voices, num_voices) for s in recorded.speakers]
        lengths = np.floor(np.asarray(recorded.tokens.seconds) * rate).astype(int).tolist()
        rows = [
            i
            for i, u in enumerate(recorded.utterances)
            if lengths[i] >= frames and u is not None and self._voice[i] is not None
        ]
        super().__init__(
            rows,
            lengths,
            frames=frames,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            seed=seed,
            rank=rank,
            world=world,
            facts=self._voice,
        )
        if not rows:
            raise DataError(
                f"None of the {len(recorded)} utterances has {frames} frames, its recording and a voice. "
                "Use shorter segments, or keep manifest.jsonl beside the shards."
            )

    def load(self, segments: Sequence[Segment]) -> dict[str, Any]:
        """The segments as one batch."""
        parts = [self._streams(s) for s in segments]
        streams: Streams = {name: pad_batch([part[name] for part in parts]) for name in parts[0]}
        samples = [self._sound(s.row, s.start, s.start + self.frames) for s in segments]
        return {
            "streams": streams,
            "audio": Audio(torch.stack(samples)[:, None], self.sample_rate),
            "speaker": torch.tensor([self._voice[s.row] for s in segments], dtype=torch.long),
            "seconds": len(segments) * self.frames * self.hop / self.sample_rate,
        }

    def _sound(self, row: int, start: int, stop: int) -> Tensor:
        """The samples of frames ``start`` to ``stop``; silence where the recording ends before."""
        piece = self.sounds.get(row, start * self.hop, stop * self.hop)
        return F.pad(piece, (0, (stop - start) * self.hop - len(piece)))

    def _streams(self, segment: Segment) -> Streams:
        """What the vocoder reads of a segment, of batch size 1."""
        start, stop = segment.start, segment.start + self.frames
        if self.analysis is not None:
            first = max(start - self.analysis.reach, 0)
            piece = self.sounds.get(segment.row, first * self.hop, (stop + self.analysis.reach) * self.hop)
            # Silence only up to a whole frame: at its end a recording is analysed as it is when it is whole.
            wanted = max(-(-len(piece) // self.hop), stop - first) * self.hop
            values = self.analysis.frames(F.pad(piece, (0, wanted - len(piece))))[start - first : stop - first]
            return {self.stream: TokenSequence(values[None], torch.tensor([self.frames]))}
        tokens = self.recorded.tokens[segment.row]
        units, specs = tokens.streams[self.stream], self.recorded.tokens.specs
        made = {self.stream: units.expand()}
        for name in self.conditions:
            made[name] = condition_of(name, tokens.streams[name], specs[name], units, self.frame_rate)
        made = {name: row.cut(start, stop) for name, row in made.items()}
        if made[self.stream].num_tokens < self.frames:
            raise DataError(f"Utterance {tokens.id!r} has fewer codes than its length says. Tokenize the corpus again.")
        return made
