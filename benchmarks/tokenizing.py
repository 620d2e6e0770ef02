"""Seconds of speech to units per second: lalia's SSLUnits beside the usual way to Whisper's hidden states.

Both read the sound file, and give the numbers of the nearest of 500 centroids without repeats. The usual way
is what textless pipelines are made of: the feature extractor pads to the 30 s that the model was trained on,
the whole encoder runs, and the padding is cut off; longer recordings go piece by piece.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.limits import count_operations
from benchmarks.worker import Gate
from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.errors import DataError
from lalia.tokenizers import SSLUnits

__all__ = ["lalia", "peer", "recordings"]

_ENCODER, _LAYER, _CLUSTERS = "whisper-tiny.en", 2, 500
_ROOT = Path(__file__).resolve().parents[1]
_SPEECH = (_ROOT.parent / "shared" / "data" / "librispeech-mini", _ROOT / "examples")
"""Real speech: utterances beside the checkout, else the bundled clip."""


def recordings() -> list[Path]:
    """Files of real speech.

    :raises DataError: there are none.
    """
    found = next((files for place in _SPEECH if (files := sorted(place.glob("*.flac")))), [])
    if not found:
        raise DataError(f"There is no speech in {_SPEECH[0]} nor {_SPEECH[1]}. Put FLAC files there.")
    return found


def _files(options: Mapping[str, Any], folder: Path) -> tuple[list[Path], float]:
    """About so many seconds of speech, as utterances or joined to one recording, and how long they really are."""
    found = recordings()
    files, seconds = [], 0.0
    while seconds < options["seconds"]:
        files.append(found[len(files) % len(found)])
        seconds += Audio.load(files[-1]).seconds
    if options["joined"]:
        parts = [Audio.load(file, sample_rate=16000, mono=True).samples for file in files]
        files = [Audio(torch.cat(parts, dim=-1), 16000).save(folder / "recording.flac")]
    return files, seconds


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    config = SSLUnits.Config(_ENCODER, layer=_LAYER, clusters=_CLUSTERS, deduplicate=True, standardize=True)
    tokenizer: SSLUnits = config.build()

    def work() -> None:
        for file in files:
            tokenizer.encode(Audio.load(file))

    with tempfile.TemporaryDirectory() as folder:
        files, seconds = _files(options, Path(folder))
        work()
        for _ in gate.rounds(amount=seconds):
            work()
        return {"operations": count_operations(work)}


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers and NumPy."""
    import soundfile
    from transformers import WhisperFeatureExtractor, WhisperModel

    extractor = WhisperFeatureExtractor()
    encoder = WhisperModel.from_pretrained(fetch(_ENCODER)).eval().encoder
    generator = np.random.default_rng(0)
    centroids = generator.standard_normal((_CLUSTERS, encoder.config.d_model), dtype=np.float32)
    norms = (centroids**2).sum(axis=1)

    def units(samples: np.ndarray) -> np.ndarray:
        inputs = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
        with torch.inference_mode():
            hidden = encoder(inputs, output_hidden_states=True).hidden_states[_LAYER]
        x = hidden[0, : -(-len(samples) // 320)].numpy()
        return (norms - 2 * x @ centroids.T).argmin(axis=1)

    def work() -> None:
        for file in files:
            samples = soundfile.read(file, dtype="float32")[0]
            codes = np.concatenate([units(samples[i : i + 480000]) for i in range(0, len(samples), 480000)])
            # The first of each run, and how long it is.
            starts = np.flatnonzero(np.diff(codes, prepend=-1))
            np.diff(starts, append=len(codes))

    with tempfile.TemporaryDirectory() as folder:
        files, seconds = _files(options, Path(folder))
        work()
        for _ in gate.rounds(amount=seconds):
            work()
    return {}
