"""Sound files, written whole or not at all."""

from pathlib import Path

import numpy as np
import soundfile

from lalia.errors import AudioError, OutputError
from lalia.files import atomic_write

__all__ = ["write"]

_FORMATS = {
    "": ("WAV", "PCM_16"),
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}

_BLOCK = 1 << 13
"""Samples at once: libsndfile puts what it is given for an OGG on the stack."""


def write(path: Path, samples: np.ndarray, sample_rate: int) -> Path:
    """Write ``samples`` [C, N] to ``path``; see ``Audio.save``."""
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(f"{path.name} has a suffix that cannot be written. Use .wav, .flac, .ogg, .opus or .mp3.")
    kind, subtype = _FORMATS[path.suffix.lower()]
    bits = subtype == "PCM_16"
    channels, length = samples.shape
    with atomic_write(path) as temporary:
        try:
            with soundfile.SoundFile(temporary, "w", sample_rate, channels, subtype, format=kind) as file:
                for start in range(0, length, _BLOCK):
                    block = samples[:, start : start + _BLOCK]
                    if not np.isfinite(block).all():
                        raise AudioError(f"What is to be written to {path} contains NaN or infinite samples. Mend it.")
                    block = block.clip(-1, 1).T
                    # Rounded and scaled as they are read, so that a file of 16 bits is copied to the bit.
                    file.write((block * 32768).round().clip(max=32767).astype(np.int16) if bits else block)
        except soundfile.LibsndfileError as error:
            reason = str(error).rsplit(": ", 1)[-1].rstrip(".")
            raise OutputError(
                f"{path.name} cannot hold {channels} channels at {sample_rate} Hz ({reason}). Write a WAV file."
            ) from None
    return path
