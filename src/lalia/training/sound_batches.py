"""Batches of segments of recordings, with nothing but their sound: what codecs learn from."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.data import Manifest
from lalia.errors import AudioError, DataError
from lalia.training.recordings import Sounds
from lalia.training.segments import RandomSegments, Segment

__all__ = ["SoundBatches"]


class SoundBatches(RandomSegments):
    """Random segments of recordings; each micro-batch is ``{"audio": Audio, "seconds": float}``.

    What turns out to be broken or silent is left out, and noted in ``skipped`` with the reason.

    :param manifest: the recordings.
    :param sample_rate: of the sound, in Hz.
    :param hop: samples of a frame, and ``frames`` the length of a segment.
    :raises DataError: nothing is long enough.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        sample_rate: int,
        hop: int,
        frames: int,
        batch_size: int,
        micro_batch_size: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sample_rate, self.hop = sample_rate, hop
        lengths = [int(u.duration * sample_rate / hop) for u in manifest]
        rows = [i for i, length in enumerate(lengths) if length >= frames]
        if not rows:
            raise DataError(
                f"None of the {len(manifest)} recordings has {frames * hop / sample_rate:.2f} s. Use shorter segments."
            )
        self.sounds = Sounds(manifest.utterances, sample_rate)
        self.skipped: dict[str, str] = {}
        super().__init__(
            rows,
            lengths,
            frames=frames,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            seed=seed,
            rank=rank,
            world=world,
            facts=[u.id for u in manifest],
        )

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in super().__iter__():
            yield [micro for micro in batch if len(micro["audio"])]

    def load(self, segments: Sequence[Segment]) -> dict[str, Any]:
        size, samples = self.frames * self.hop, []
        for s in segments:
            try:
                piece = self.sounds.get(s.row, s.start * self.hop, s.start * self.hop + size)
            except AudioError as error:
                utterance = self.sounds.utterances[s.row]
                assert utterance is not None
                self.skipped[utterance.id] = str(error)
            else:
                samples.append(F.pad(piece, (0, size - len(piece))))
        if len(self.skipped) == len(set(self._rows)):
            raise DataError(f"None of the recordings can be used ({next(iter(self.skipped.values()))})")
        sound = torch.stack(samples) if samples else torch.zeros(0, size)
        return {
            "audio": Audio(sound[:, None], self.sample_rate),
            "seconds": len(sound) * size / self.sample_rate,
        }
