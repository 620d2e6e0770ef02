"""Recordings that come and go as files: what a client uploads, and sound in a format that it asks for."""

import io
import struct
from typing import Any, Literal

import numpy as np
import soundfile

from lalia.audio import Audio
from lalia.errors import AudioError
from lalia.server.wire import pcm16

__all__ = ["FORMATS", "FileFormat", "FileWriter", "read_recording"]

FileFormat = Literal["pcm", "wav", "flac", "mp3", "opus"]

FORMATS: dict[str, str] = {
    "pcm": "audio/pcm",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
}
"""The media type of each."""

_KINDS = {"flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS")}


class FileWriter:
    """A file that goes out while it is written.

    How long it is, is not known at its beginning: a WAV header says the most that it can, as is usual for streams, and
    a FLAC file, whose readers need to know, goes out when it is whole.
    """

    def __init__(self, format_: FileFormat, sample_rate: int) -> None:
        self.format, self.sample_rate = format_, sample_rate
        self._sink, self._sent, self._begun = io.BytesIO(), 0, False
        self._file: Any = None
        if format_ in _KINDS:
            kind, subtype = _KINDS[format_]
            self._file = soundfile.SoundFile(self._sink, "w", sample_rate, channels=1, format=kind, subtype=subtype)

    def write(self, audio: Audio) -> bytes:
        """A piece [1, 1, N]: the bytes that are certain by now."""
        samples = audio.samples[0, 0].float().cpu().numpy()
        if self._file is not None:
            self._file.write(np.clip(samples, -1, 1))
            return b"" if self.format == "flac" else self._new()
        data = pcm16(samples).tobytes()
        if self.format == "wav" and not self._begun:
            data = _header(self.sample_rate) + data
        self._begun = True
        return data

    def close(self) -> bytes:
        """The rest."""
        if self._file is not None:
            self._file.close()
            return self._new()
        return b"" if self._begun or self.format == "pcm" else _header(self.sample_rate)

    def _new(self) -> bytes:
        data = self._sink.getvalue()[self._sent :]
        self._sent += len(data)
        return data


def _header(rate: int) -> bytes:
    most = 0xFFFFFFFF
    format_ = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", most, b"WAVE") + format_ + struct.pack("<4sI", b"data", most)


def read_recording(data: bytes, name: str, most_seconds: float) -> Audio:
    """A recording that was uploaded: [1, 1, N] at its own rate.

    :param name: of the file, for messages.
    :raises AudioError: it cannot be read, or is empty, silent or too long.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            seconds = file.frames / file.samplerate
            if seconds > most_seconds:
                raise AudioError(f"{name} has {seconds:.1f} s of sound. Give up to {most_seconds:g} s.")
            samples = file.read(dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = str(error).rsplit(":", 1)[-1].strip().rstrip(".") or "unknown"
        raise AudioError(f"{name} is no recording that can be read ({reason}). Send WAV, FLAC, MP3 or Ogg.") from None
    audio = Audio.of((samples.mean(axis=1), rate))
    audio.check(name)
    return audio
