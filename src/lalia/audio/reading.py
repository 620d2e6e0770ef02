"""Sound files, block by block: decoded, cut, mixed and resampled with the memory of one block."""

import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import soundfile
import soxr

from lalia.errors import AudioError

__all__ = ["Recording", "read_blocks"]

_BLOCK_SECONDS = 30.0

_TRUSTED = 1 << 26
"""Samples for which memory is taken on the word of a header alone (256 MB)."""

_PREROLL_SECONDS = 1.0
"""An MP3 frame needs bits of those before it, so decoding starts this much before what is wanted."""

_MP3_SLACK = 1.0
"""Seconds by which an MP3's length tag may be too long: encoders count their padding in different ways."""

_UNKNOWN = 1 << 62
"""libsndfile gives about this many frames where the header does not say (a FLAC that was written to a pipe)."""


def read_blocks(
    path: str | os.PathLike[str] | IO[bytes],
    *,
    sample_rate: int | None = None,
    mono: bool = False,
    start: float = 0.0,
    seconds: float | None = None,
    channel: int | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
    """A recording as blocks of samples [C, n] float32 with their rate in Hz; the parameters are ``Audio.load``'s.

    :raises AudioError: the file is missing, not audio, or breaks off.
    """
    with Recording(
        path, sample_rate=sample_rate, mono=mono, start=start, seconds=seconds, channel=channel
    ) as recording:
        for block in recording.blocks():
            yield block.T, recording.sample_rate


class Recording:
    """A sound file that is open; the parameters are ``Audio.load``'s.

    :raises AudioError: the file is missing or not audio, or has no such channel or part.
    """

    name: str
    """What to call it in an error."""
    sample_rate: int
    """In Hz, of the samples that ``blocks`` gives."""
    channels: int
    """Of these samples."""
    file_rate: int
    """In Hz, of the file."""
    frames_read: int
    """So far, of the file."""

    def __init__(
        self,
        path: str | os.PathLike[str] | IO[bytes],
        *,
        sample_rate: int | None = None,
        mono: bool = False,
        start: float = 0.0,
        seconds: float | None = None,
        channel: int | None = None,
    ) -> None:
        self.name = _name(path)
        if not start >= 0 or (seconds is not None and not seconds > 0):
            raise AudioError(
                f"{self.name} is to be read from {start} s on for {seconds} s. Start at 0 or later, and read some."
            )
        if sample_rate is not None and sample_rate < 1:
            raise AudioError(f"{self.name} is to be read at {sample_rate} Hz. Give a rate of at least 1 Hz.")
        self._file = file = _open(path, self.name)
        self.file_rate = file.samplerate
        self._channel, self._mono = channel, mono
        self.sample_rate = sample_rate or file.samplerate
        self.channels = 1 if mono or channel is not None else file.channels
        self._first = round(start * file.samplerate)
        self._most = _UNKNOWN if seconds is None else max(round(seconds * file.samplerate), 1)
        self._length = file.frames
        self._slack = 0
        if file.format == "MP3":
            tagged = _has_length_tag(path)
            self._slack = round(_MP3_SLACK * file.samplerate) if tagged else _UNKNOWN
        self.frames_read = 0
        try:
            if channel is not None and not 0 <= channel < file.channels:
                raise AudioError(f"{self.name} has {file.channels} channels, not channel {channel}. Count from 0.")
            if self._first and self._first >= self._length:
                length = self._length / file.samplerate
                raise AudioError(f"{self.name} is {length:.2f} s long and has nothing at {start} s. Start earlier.")
        except AudioError:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self) -> np.ndarray:
        """All of it [N, C], in no more memory than it takes."""
        frames = min(self._length - self._first, self._most)
        expected = frames * self.sample_rate // self.file_rate + 1
        out = np.empty((min(expected, _TRUSTED // self.channels), self.channels), np.float32)
        n = 0
        for block in self.blocks():
            if n + len(block) > len(out):
                # In place; doubled, as far as the header goes.
                out.resize((max(n + len(block), min(2 * len(out), expected)), self.channels), refcheck=False)
            out[n : n + len(block)] = block
            n += len(block)
        out.resize((n, self.channels), refcheck=False)
        return out

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples [n, C] float32, once.

        :raises AudioError: the file breaks off or is damaged.
        """
        resampler = None
        if self.sample_rate != self.file_rate:
            resampler = soxr.ResampleStream(
                self.file_rate, self.sample_rate, self.channels, dtype="float32", quality="HQ"
            )
        try:
            self._skip()
            for block, last in self._raw():
                yield block if resampler is None else resampler.resample_chunk(block, last=last)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(f"{self.name} cannot be decoded ({_reason(error)}). Copy or export it again.") from None

    def _skip(self) -> None:
        """Go to where reading starts."""
        if not self._first:
            return
        preroll = round(_PREROLL_SECONDS * self.file_rate) if self._file.format in ("MP3", "OGG") else 0
        preroll = min(preroll, self._first)
        self._file.seek(self._first - preroll)
        self._file.read(preroll, dtype="float32")

    def _raw(self) -> Iterator[tuple[np.ndarray, bool]]:
        """Blocks [n, C] at the file's own rate, and whether each is the last."""
        left = min(self._length - self._first, self._most)
        size = round(_BLOCK_SECONDS * self.file_rate)
        done = left <= 0
        while not done:
            wanted = min(left, size)
            block = self._file.read(wanted, dtype="float32", always_2d=True)
            self.frames_read += len(block)
            left -= len(block)
            ended = len(block) < wanted
            if ended and left > self._slack and self._length < _UNKNOWN:
                raise AudioError(f"{self.name} breaks off before its end. Copy or export it again.")
            done = ended or left <= 0
            if self._channel is not None:
                block = block[:, self._channel : self._channel + 1]
            elif self._mono and block.shape[1] > 1:
                block = block.mean(axis=1, keepdims=True)
            yield np.ascontiguousarray(block), done


class _Sequential(soundfile.SoundFile):
    """A file that is read from front to back.

    Where it can, soundfile seeks after each read to where it is anyway. That costs an MP3 the bits that its
    frames borrow from those before them (a quarter of a second of noise at each block), and fails at the end of a
    FLAC of unknown length.
    """

    def seekable(self) -> bool:
        return False


def _name(path: str | os.PathLike[str] | IO[bytes]) -> str:
    if isinstance(path, str | os.PathLike):
        return "standard input" if path == "-" else str(path)
    name = getattr(path, "name", None)
    return name if isinstance(name, str) else "the recording"


def _reason(error: Exception) -> str:
    """What libsndfile says, without its own prefixes."""
    return str(error).rsplit(": ", 1)[-1].removeprefix("Error :").strip().rstrip(".")


def _open(path: str | os.PathLike[str] | IO[bytes], name: str) -> _Sequential:
    source: str | IO[bytes]
    if path == "-":
        source = _in_memory(sys.stdin.buffer, name)
    elif isinstance(path, str | os.PathLike):
        source = _checked(Path(path).expanduser(), name)
    else:
        source = path
    try:
        return _Sequential(source)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, OSError) as error:
        raise AudioError(f"{name} is not a sound file ({_reason(error)}). Convert it to WAV or FLAC.") from None


def _checked(file: Path, name: str) -> str | IO[bytes]:
    """What to open for a path.

    libsndfile says "System error" for whatever is wrong with one, so it is asked for nothing that is not there.
    """
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name} is a directory. Name a sound file.")
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise AudioError(f"{name} is a device. Name a sound file.")
        with open(file, "rb") as handle:
            if stat.S_ISFIFO(mode):
                return _in_memory(handle, name)
            if not handle.read(1):
                raise AudioError(f"{name} is empty. Give a recording with speech in it.")
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError(f"{name} does not exist. Check the path.") from None
    except PermissionError:
        raise AudioError(f"{name} may not be read. Check its permissions.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{name} cannot be opened ({reason}). Check the path.") from None
    return str(file)


def _in_memory(pipe: IO[bytes], name: str) -> IO[bytes]:
    """A pipe cannot be searched for a header, so it is read to its end first."""
    data = pipe.read()
    if not data:
        raise AudioError(f"{name} is empty. Pipe a recording into it.")
    return io.BytesIO(data)


def _has_length_tag(path: str | os.PathLike[str] | IO[bytes]) -> bool:
    """Whether an MP3 says how long it is (a Xing, Info or VBRI tag in its first frame).

    Without, libsndfile guesses from the first bit rate, and a wrong guess must not pass for a file cut short.
    """
    if not isinstance(path, str | os.PathLike) or path == "-":
        return False
    with open(Path(path).expanduser(), "rb") as file:
        head = file.read(10)
        size = 0
        if head[:3] == b"ID3":
            # Four bytes of seven bits each.
            size = 10 + sum((b & 0x7F) << shift for b, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        file.seek(size)
        frame = file.read(256)
    return any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))
