"""Batches of whole utterances with their sound, for what has to see where speech begins and ends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lalia.audio import Audio
from lalia.data import BatchPlan, Row
from lalia.errors import DataError
from lalia.streams import Streams, pad_batch
from lalia.training.planned import PlannedBatches
from lalia.training.recordings import Recorded, Sounds, voice_of

__all__ = ["UtteranceBatches"]

_SHORTEST_SECONDS = 0.1
"""Less than this makes no spectrum to learn from."""


class UtteranceBatches(PlannedBatches):
    """Utterances by length, in an order that can be repeated and resumed; see ``Batches``.

    Each micro-batch is ``{"streams": Streams, "audio": Audio, "speaker": Tensor [B], "tokens", "seconds"}``, with
    the tokens as the stream has them (without repeats where it has none).

    :param recorded: token shards and their sound.
    :param stream: the stream of codes; its durations say which samples a code covers.
    :param sample_rate: of the sound, in Hz.
    :param max_tokens: of a global batch, padding included.
    :param max_length: tokens of an utterance; of a longer one, a stretch that begins and ends between tokens.
    :param voices: names of speakers, and ``num_voices`` of the vocoder: see ``voice_of``. Who has no voice is
        left out.
    :raises DataError: no utterance has its recording.
    """

    def __init__(
        self,
        recorded: Recorded,
        stream: str,
        *,
        sample_rate: int,
        max_tokens: int,
        max_length: int | None = None,
        voices: Sequence[str] = (),
        num_voices: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        spec = recorded.tokens.specs[stream]
        if spec.frame_rate is None:
            raise DataError(f"Stream {stream!r} has no clock, so its sound cannot be found. Name another stream.")
        self.recorded, self.stream, self.sample_rate = recorded, stream, sample_rate
        self.rate = spec.frame_rate
        self.sounds = Sounds(recorded.utterances, sample_rate)
        self._voice = [voice_of(s, voices, num_voices) for s in recorded.speakers]
        lengths = recorded.tokens.lengths(stream).numpy().copy()
        usable = [u is not None and v is not None for u, v in zip(recorded.utterances, self._voice, strict=True)]
        # An utterance of no tokens is what a plan leaves out.
        lengths[~np.array(usable) | (np.asarray(recorded.tokens.seconds) < _SHORTEST_SECONDS)] = 0
        if not lengths.any():
            raise DataError(
                f"None of the {len(recorded)} utterances has its recording and a voice. "
                "Keep manifest.jsonl beside the shards, and the recordings where it says."
            )
        super().__init__(BatchPlan(lengths, max_tokens, seed=seed, max_length=max_length), rank=rank, world=world)

    def load(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The given utterances as one batch."""
        tokens, sounds = [], []
        for row in rows:
            whole = self.recorded.tokens[row.index].streams[self.stream]
            durations = (
                torch.ones(whole.num_tokens, dtype=torch.long) if whole.durations is None else whole.durations[0]
            )
            tokens.append(whole.cut(row.start, row.stop))
            start = int(durations[: row.start].sum())
            stop = start + int(durations[row.start : row.stop].sum())
            samples = self.sounds.get(
                row.index,
                round(start * self.sample_rate / self.rate),
                None if row.stop == whole.num_tokens else round(stop * self.sample_rate / self.rate),
            )
            sounds.append(Audio(samples, self.sample_rate))
        streams: Streams = {self.stream: pad_batch(tokens)}
        return {
            "streams": streams,
            "audio": Audio.batch(sounds),
            "speaker": torch.tensor([self._voice[row.index] for row in rows], dtype=torch.long),
            "tokens": sum(row.stop - row.start for row in rows),
            "seconds": sum(sound.seconds for sound in sounds),
        }
