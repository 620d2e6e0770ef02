from pathlib import Path

import pytest
import torch

from lalia.audio import Audio
from lalia.streams import TokenSequence

SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"


@pytest.fixture
def speech() -> Audio:
    """A few seconds of somebody reading."""
    files = sorted(SPEECH.glob("*.flac"))
    if not files:
        pytest.skip("needs recorded speech")
    return Audio.load(files[0], sample_rate=16000, mono=True, start=1.0, seconds=3.0)


@pytest.fixture
def in_pieces():
    """``in_pieces(vocoder, name, tokens, cuts, **kwargs)``: decode a stream bit by bit, as a list of rows."""

    def run(vocoder, name: str, tokens: TokenSequence, cuts: list[int], **kwargs) -> list[torch.Tensor]:
        state, rows = vocoder.init_state(len(tokens)), [[] for _ in range(len(tokens))]
        ends = [*sorted(cuts), tokens.num_tokens]
        for i, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
            final = i == len(ends) - 1
            audio = vocoder.decode({name: tokens.cut(start, stop)}, state, final=final, **kwargs)
            for b, row in enumerate(rows):
                row.append(audio.samples[b, 0, : int(audio.lengths[b])])
        return [torch.cat(row) for row in rows]

    return run
