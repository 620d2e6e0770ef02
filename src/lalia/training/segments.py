"""Batches of short segments of sound with the codes that belong to them, for training vocoders and codecs."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.data import Manifest, TokenDataset
from lalia.data.batching import random_order, random_uniform
from lalia.errors import ConfigError, DataError
from lalia.streams import Streams, TokenSequence

__all__ = ["Segment", "SegmentBatches"]

_CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class Segment:
    """Which frames of which utterance."""

    row: int
    start: int


class SegmentBatches:
    """Random segments of one length, every stretch of the corpus about once an epoch; see ``Batches``.

    Each micro-batch is ``{"streams": Streams, "audio": Audio, "speaker": Tensor [B], "seconds": float}``, with
    one code per frame.

    :param dataset: token shards.
    :param manifest: where the sound of each of its utterances is.
    :param stream: the stream of codes; its durations say which samples a code covers.
    :param sample_rate: of the sound, in Hz; a multiple of the frame rate.
    :param frames: length of a segment.
    :param batch_size: segments per global batch; every rank takes its share.
    :param micro_batch_size: most segments at once.
    :param voices: names of speakers, in the order of the vocoder's voices; with none, everyone is voice 0.
    :param num_voices: voices of the vocoder. Speakers that are not named share those past the named ones, each
        by a hash of the name; where there are none past them, they are left out.
    :raises DataError: nothing is long enough.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        manifest: Manifest,
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
        spec = dataset.specs[stream]
        if spec.frame_rate is None or sample_rate % spec.frame_rate:
            raise DataError(
                f"Stream {stream!r} at {spec.frame_rate} Hz does not divide sound at {sample_rate} Hz. "
                "Choose another sample rate."
            )
        self.dataset, self.stream, self.sample_rate, self.frames = dataset, stream, sample_rate, frames
        self.hop = int(sample_rate / spec.frame_rate)
        self.batch_size, self.micro = batch_size, micro_batch_size or batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = self.position = 0
        if len(voices) > num_voices:
            raise ConfigError(f"{len(voices)} voices are named, but the vocoder has {num_voices}. Name fewer.")
        self._utterances = {u.id: u for u in manifest}
        ids, speakers = dataset.ids, dataset.speakers
        self._speaker = [_voice(s, voices, num_voices) for s in speakers]
        lengths = np.floor(np.asarray(dataset.seconds) * spec.frame_rate).astype(int)
        self._rows = [
            i
            for i, name in enumerate(ids)
            if lengths[i] >= frames and name in self._utterances and self._speaker[i] is not None
        ]
        self._lengths, self._ids = lengths, ids
        if not self._rows:
            raise DataError(
                f"None of the {len(ids)} utterances has {frames} frames and its recording. Use shorter segments."
            )
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._cached = 0

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
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def _segments(self, epoch: int) -> list[Segment]:
        found = []
        for i, u in zip(self._rows, random_uniform(len(self._rows), self.seed, epoch, 0), strict=True):
            room = self._lengths[i] - self.frames
            # A random offset, then end to end: each frame comes about once.
            first = int(u * (min(room, self.frames) + 1))
            found += [Segment(i, start) for start in range(first, room + 1, self.frames)]
        return [found[j] for j in random_order(len(found), self.seed, epoch, 1)]

    def load(self, segments: Sequence[Segment]) -> dict[str, Any]:
        """The segments as one batch."""
        codes, samples = [], []
        for s in segments:
            row = self.dataset[s.row].streams[self.stream].expand()
            codes.append(row.values[:, :, s.start : s.start + self.frames])
            samples.append(self._sound(s.row, s.start))
        short = next((s for s, c in zip(segments, codes, strict=True) if c.shape[2] < self.frames), None)
        if short is not None:
            raise DataError(
                f"Utterance {self._ids[short.row]!r} has fewer codes than its length says. Tokenize the corpus again."
            )
        streams: Streams = {self.stream: TokenSequence(torch.cat(codes), torch.full((len(codes),), self.frames))}
        return {
            "streams": streams,
            "audio": Audio(torch.stack(samples)[:, None], self.sample_rate),
            "speaker": torch.tensor([self._speaker[s.row] for s in segments], dtype=torch.long),
            "seconds": len(segments) * self.frames * self.hop / self.sample_rate,
        }

    def _sound(self, row: int, start: int) -> Tensor:
        with self._lock:
            held = self._cache.get(row)
            if held is not None:
                self._cache.move_to_end(row)
        if held is None:
            audio = self._utterances[self._ids[row]].load(sample_rate=self.sample_rate).mono()
            # Sixteen bits: what the files have, and half the memory.
            held = (audio.samples[0, 0].clamp(-1, 1) * 32767).round().to(torch.int16)
            with self._lock:
                self._cache[row] = held
                self._cached += held.numel() * 2
                while self._cached > _CACHE_BYTES and len(self._cache) > 1:
                    self._cached -= self._cache.popitem(last=False)[1].numel() * 2
        n = self.frames * self.hop
        piece = held[start * self.hop : start * self.hop + n].float() / 32767
        return torch.nn.functional.pad(piece, (0, n - len(piece)))


def _voice(speaker: str | None, voices: Sequence[str], num_voices: int) -> int | None:
    if not voices:
        return 0
    if speaker in voices:
        return voices.index(speaker)
    spare = num_voices - len(voices)
    if not spare:
        return None
    place = int.from_bytes(hashlib.sha256((speaker or "").encode()).digest()[:8], "big")
    return len(voices) + place % spare
