"""Batches of whole utterances as streams alone, for parts of a vocoder that need no sound to learn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lalia.data import BatchPlan, Row
from lalia.errors import DataError
from lalia.streams import pad_batch
from lalia.training.planned import PlannedBatches
from lalia.training.recordings import Recorded, voice_of

__all__ = ["StreamBatches"]


class StreamBatches(PlannedBatches):
    """Utterances by length, in an order that can be repeated and resumed; see ``Batches``.

    Each micro-batch is ``{"streams": Streams, "speaker": Tensor [B], "tokens", "seconds"}``.

    :param recorded: token shards; their recordings are not needed.
    :param streams: which of theirs.
    :param max_tokens: of the longest of the streams in a global batch, padding included.
    :param voices: names of speakers, and ``num_voices`` of the part: see ``voice_of``. Who has no voice is left out.
    :raises DataError: a stream is not in the shards, or nobody has a voice.
    """

    def __init__(
        self,
        recorded: Recorded,
        streams: Sequence[str],
        *,
        max_tokens: int,
        voices: Sequence[str] = (),
        num_voices: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        tokens = recorded.tokens
        for name in streams:
            if name not in tokens.specs:
                raise DataError(
                    f"The stage learns from {name!r}, and the shards have {', '.join(tokens.specs)}. "
                    "Tokenize the corpus with all of its streams."
                )
        self.tokens, self.streams = tokens, tuple(streams)
        # A part with one voice speaks for everybody.
        self._voice = [0 if num_voices == 1 else voice_of(s, voices, num_voices) for s in recorded.speakers]
        lengths = np.max([tokens.lengths(name).numpy() for name in streams], axis=0)
        lengths[[v is None for v in self._voice]] = 0
        if not lengths.any():
            raise DataError(f"None of the {len(recorded)} utterances has tokens and a voice. Name other voices.")
        super().__init__(BatchPlan(lengths, max_tokens, seed=seed), rank=rank, world=world)

    def load(self, rows: Sequence[Row]) -> dict[str, Any]:
        items = [self.tokens[row.index] for row in rows]
        return {
            "streams": {name: pad_batch([item.streams[name] for item in items]) for name in self.streams},
            "speaker": torch.tensor([self._voice[row.index] for row in rows], dtype=torch.long),
            "tokens": sum(row.stop - row.start for row in rows),
            "seconds": sum(item.seconds for item in items),
        }
