"""Batches of short segments of sound with the codes that belong to them, for training vocoders and codecs."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lalia.audio import Audio
from lalia.data.batching import random_order, random_uniform
from lalia.errors import DataError
from lalia.streams import Streams, TokenSequence
from lalia.training.recordings import Recorded, Sounds, voice_of

__all__ = ["RandomSegments", "Segment", "SegmentBatches"]


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
    one code per frame.

    :param recorded: token shards and their sound.
    :param stream: the stream of codes; its durations say which samples a code covers.
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
        micro_batch_size: int | None = None,
        voices: Sequence[str] = (),
        num_voices: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        spec = recorded.tokens.specs[stream]
        if spec.frame_rate is None or sample_rate % spec.frame_rate:
            raise DataError(
                f"Stream {stream!r} at {spec.frame_rate} Hz does not divide sound at {sample_rate} Hz. "
                "Choose another sample rate."
            )
        self.recorded, self.stream, self.sample_rate = recorded, stream, sample_rate
        self.hop = int(sample_rate / spec.frame_rate)
        self.sounds = Sounds(recorded.utterances, sample_rate)
        self._voice = [voice_of(s, voices, num_voices) for s in recorded.speakers]
        lengths = np.floor(np.asarray(recorded.tokens.seconds) * spec.frame_rate).astype(int).tolist()
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
        codes, samples = [], []
        for s in segments:
            row = self.recorded.tokens[s.row].streams[self.stream].expand()
            codes.append(row.values[:, :, s.start : s.start + self.frames])
            piece = self.sounds.get(s.row, s.start * self.hop, (s.start + self.frames) * self.hop)
            samples.append(torch.nn.functional.pad(piece, (0, self.frames * self.hop - len(piece))))
        short = next((s for s, c in zip(segments, codes, strict=True) if c.shape[2] < self.frames), None)
        if short is not None:
            raise DataError(
                f"Utterance {self.recorded.tokens[short.row].id!r} has fewer codes than its length says. "
                "Tokenize the corpus again."
            )
        streams: Streams = {self.stream: TokenSequence(torch.cat(codes), torch.full((len(codes),), self.frames))}
        return {
            "streams": streams,
            "audio": Audio(torch.stack(samples)[:, None], self.sample_rate),
            "speaker": torch.tensor([self._voice[s.row] for s in segments], dtype=torch.long),
            "seconds": len(segments) * self.frames * self.hop / self.sample_rate,
        }
