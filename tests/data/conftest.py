"""Recordings of known content, and a tokenizer that costs nothing."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.errors import AudioError
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence, pad_batch

RATE = 16_000


class Energy(Configurable):
    """The energy of each 20 ms in steps of 6 dB, as codes or as a feature beside its negative."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        num_levels: int = 16
        num_codebooks: int = 1
        deduplicate: bool = False
        continuous: bool = False

    def __init__(self, config: Config, refuse: float = 0.0, fail_after: int | None = None) -> None:
        self.config = config
        self.sample_rate = RATE
        kind = Continuous(2) if config.continuous else Discrete(config.num_levels, config.num_codebooks)
        self.spec = StreamSpec(kind=kind, frame_rate=50.0, deduplicated=config.deduplicate)
        self.identity = hashlib.sha256(repr(config).encode()).hexdigest()
        self.refuse = refuse
        self.fail_after = fail_after
        self.batches: list[list[int]] = []

    def encode(self, audio: Audio) -> TokenSequence:
        assert audio.sample_rate == RATE
        assert audio.samples.shape[1] == 1
        if self.fail_after is not None and len(self.batches) >= self.fail_after:
            raise RuntimeError("killed")
        self.batches.append(audio.lengths.tolist())
        rows = []
        for b in range(len(audio)):
            x = audio.row(b).samples[0, 0]
            if self.refuse and float(x.abs().max()) > self.refuse:
                raise AudioError("the recording is too loud for this tokenizer. Turn it down.")
            frames = x[: len(x) // 320 * 320].view(-1, 320)
            level = 10 * torch.log10(frames.square().mean(dim=1) + 1e-9)
            if self.config.continuous:
                features = torch.stack([level, -level], dim=1)
                rows.append(TokenSequence(features[None], torch.tensor([len(frames)])))
                continue
            codes = ((level + 90) / 6).long().clamp(0, self.config.num_levels - 1)
            values = torch.stack([(codes + k) % self.config.num_levels for k in range(self.config.num_codebooks)])
            rows.append(TokenSequence(values[None], torch.tensor([len(frames)])))
        tokens = pad_batch(rows)
        return tokens.deduplicate() if self.config.deduplicate else tokens


@pytest.fixture
def energy() -> type[Energy]:
    return Energy


@pytest.fixture
def sound(tmp_path: Path) -> Callable[..., Path]:
    """Write a recording of noise with a changing level; returns its path."""

    def write(name: str, seconds: float = 0.5, *, seed: int = 0, rate: int = RATE, channels: int = 1) -> Path:
        rng = np.random.default_rng(seed)
        n = round(seconds * rate)
        level = np.repeat(rng.uniform(0.01, 0.3, size=n // 800 + 1), 800)[:n, None]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, (rng.uniform(-1, 1, (n, channels)) * level).astype(np.float32), rate)
        return path

    return write


@pytest.fixture
def speech() -> Path:
    """The folder of real recordings beside the checkout."""
    folder = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"
    if not folder.is_dir():
        pytest.skip("no real recordings beside the checkout")
    return folder
