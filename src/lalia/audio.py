"""Audio: samples with their sample rate, from any file and at any rate.

One value for one recording and for a batch: ``samples`` is [B, C, N] with ``lengths`` [B], where a
channel C is a speaker's side of a conversation. Whatever is read from outside is checked here, once,
so that nothing behind this module has to.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from lalia.errors import AudioError
from lalia.files import atomic_write

__all__ = ["Audio", "AudioLike", "read_blocks"]

SILENCE_DBFS = -60.0
"""A recording whose peak stays under this (dB relative to full scale) counts as silent."""

SHORTEST_SECONDS = 0.05
"""Anything shorter holds no speech sound."""

_BLOCK_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class Audio:
    """Samples in [-1, 1] and their rate.

    ``samples`` [B, C, N] float32; ``lengths`` [B], the valid samples of each row.
    """

    samples: Tensor
    sample_rate: int
    lengths: Tensor

    def __init__(self, samples: Tensor | np.ndarray, sample_rate: int, lengths: Tensor | None = None) -> None:
        """
        :param samples: [N], [C, N] or [B, C, N].
        :param sample_rate: in Hz.
        :param lengths: [B] in samples; all N when not given.
        :raises AudioError: a shape or a rate that no audio has.
        """
        x = torch.as_tensor(samples)
        if x.ndim not in (1, 2, 3):
            raise AudioError(f"Audio has {x.ndim} dimensions. Give samples as [N], [C, N] or [B, C, N].")
        if not 1 <= int(sample_rate) <= 768_000:
            raise AudioError(f"Audio has a sample rate of {sample_rate} Hz. Give one between 1 and 768000.")
        if not x.is_floating_point():
            if x.dtype not in (torch.int16, torch.int32):
                raise AudioError(f"Audio has samples of type {x.dtype}. Give float, int16 or int32.")
            x = x.float() / (2.0 ** (15 if x.dtype == torch.int16 else 31))
        x = x.to(torch.float32).reshape(*([1] * (3 - x.ndim)), *x.shape)
        if lengths is None:
            lengths = torch.full((x.shape[0],), x.shape[-1], dtype=torch.long, device=x.device)
        object.__setattr__(self, "samples", x)
        object.__setattr__(self, "sample_rate", int(sample_rate))
        object.__setattr__(self, "lengths", lengths)

    def __repr__(self) -> str:
        b, c, _ = self.samples.shape
        return f"Audio({b} x {c} channels, {self.seconds:.2f} s at {self.sample_rate} Hz)"

    # -- making -------------------------------------------------------------------------------

    @classmethod
    def of(cls, source: "AudioLike") -> "Audio":
        """Audio from what a caller may hand over: a path, ``(samples, sample_rate)``, or an Audio."""
        if isinstance(source, Audio):
            return source
        if isinstance(source, str | Path):
            return cls.load(source)
        if isinstance(source, tuple) and len(source) == 2:
            audio = cls(source[0], source[1])
            audio.check("the given samples")
            return audio
        raise AudioError(f"{type(source).__name__} is not audio. Give a path, (samples, sample_rate) or an Audio.")

    @classmethod
    def load(
        cls,
        path: str | Path | IO[bytes],
        *,
        sample_rate: int | None = None,
        mono: bool = False,
        start: float = 0.0,
        seconds: float | None = None,
        channel: int | None = None,
        check: bool = True,
    ) -> "Audio":
        """Read a recording: any file that libsndfile reads, any rate; ``-`` is standard input.

        Decoded, mixed and resampled block by block, so memory is that of the result.

        :param sample_rate: resample to this rate (Hz).
        :param mono: average the channels.
        :param start: skip this many seconds.
        :param seconds: read at most this much.
        :param channel: keep this channel only (from 0).
        :param check: refuse a recording that is empty, too short, silent or not finite.
        :returns: samples [1, C, N].
        :raises AudioError: the file is missing, not audio, or fails the check.
        """
        blocks = list(
            read_blocks(path, sample_rate=sample_rate, mono=mono, start=start, seconds=seconds, channel=channel)
        )
        rate = blocks[0][1]
        audio = cls(torch.from_numpy(np.concatenate([b for b, _ in blocks], axis=-1)), rate)
        if check:
            audio.check(_name(path))
        return audio

    @classmethod
    def batch(cls, items: Sequence["Audio"]) -> "Audio":
        """One Audio of all rows, padded with zeros to the longest. Rates and channels must agree."""
        if not items:
            raise AudioError("A batch of no recordings. Give at least one.")
        rates, channels = {a.sample_rate for a in items}, {a.samples.shape[1] for a in items}
        if len(rates) > 1 or len(channels) > 1:
            raise AudioError(
                f"A batch mixes rates {sorted(rates)} Hz and channel counts {sorted(channels)}. Call .to() and .mono()."
            )
        longest = max(a.samples.shape[-1] for a in items)
        samples = torch.cat([torch.nn.functional.pad(a.samples, (0, longest - a.samples.shape[-1])) for a in items])
        return cls(samples, items[0].sample_rate, torch.cat([a.lengths for a in items]))

    # -- facts --------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Length of the longest row in seconds."""
        return float(self.lengths.max()) / self.sample_rate if self.lengths.numel() else 0.0

    def __len__(self) -> int:
        return self.samples.shape[0]

    def check(self, name: str = "the recording") -> None:
        """Refuse what holds no speech: nothing, too little, silence, NaN or infinity.

        :raises AudioError: names the recording and what is wrong.
        """
        for b in range(len(self)):
            n = int(self.lengths[b])
            row = self.samples[b, :, :n]
            if n == 0:
                raise AudioError(f"{name} is empty. Give a recording with speech in it.")
            if n < SHORTEST_SECONDS * self.sample_rate:
                raise AudioError(
                    f"{name} has only {n} sample{'s' if n > 1 else ''} ({1000 * n / self.sample_rate:.1f} ms). "
                    f"Give at least {1000 * SHORTEST_SECONDS:.0f} ms of speech."
                )
            if not bool(torch.isfinite(row).all()):
                raise AudioError(f"{name} contains NaN or infinite samples. Export it again.")
            if float(row.abs().max()) < 10.0 ** (SILENCE_DBFS / 20.0):
                raise AudioError(
                    f"{name} is silent (its peak is under {SILENCE_DBFS:.0f} dBFS). Check the microphone or the file."
                )

    # -- changing -----------------------------------------------------------------------------

    def row(self, b: int) -> "Audio":
        """Row ``b`` alone, without padding."""
        n = int(self.lengths[b])
        return Audio(self.samples[b : b + 1, :, :n], self.sample_rate)

    def channel(self, c: int) -> "Audio":
        """Channel ``c`` alone."""
        if not 0 <= c < self.samples.shape[1]:
            raise AudioError(f"The recording has {self.samples.shape[1]} channels, not channel {c}. Count from 0.")
        return Audio(self.samples[:, c : c + 1], self.sample_rate, self.lengths)

    def mono(self) -> "Audio":
        """The average of the channels."""
        if self.samples.shape[1] == 1:
            return self
        return Audio(self.samples.mean(dim=1, keepdim=True), self.sample_rate, self.lengths)

    def to(self, sample_rate: int) -> "Audio":
        """The same audio at another rate (soxr, high quality)."""
        if sample_rate == self.sample_rate:
            return self
        b, c, n = self.samples.shape
        flat = self.samples.reshape(b * c, n).T.contiguous().cpu().numpy()
        out = torch.from_numpy(soxr.resample(flat, self.sample_rate, sample_rate, quality="HQ").T.copy())
        lengths = torch.clamp(
            torch.round(self.lengths.double() * sample_rate / self.sample_rate).long(), max=out.shape[-1]
        )
        return Audio(out.reshape(b, c, -1).to(self.samples.device), sample_rate, lengths)

    def cut(self, start: float, seconds: float | None = None) -> "Audio":
        """From ``start`` on, at most ``seconds`` long."""
        first = round(start * self.sample_rate)
        last = None if seconds is None else first + round(seconds * self.sample_rate)
        samples = self.samples[..., first:last]
        return Audio(samples, self.sample_rate, (self.lengths - first).clamp(0, samples.shape[-1]))

    def save(self, path: str | Path) -> Path:
        """Write row 0; the format follows the suffix (WAV is 16 bit). Whole or not at all.

        :raises AudioError: a suffix that libsndfile cannot write, or a folder that does not exist.
        """
        target = Path(path)
        format_ = target.suffix.lstrip(".").upper() or "WAV"
        known = soundfile.available_formats()
        if format_ == "OPUS":
            format_, subtype = "OGG", "OPUS"
        else:
            subtype = "PCM_16" if format_ in ("WAV", "FLAC") else None
        if format_ not in known:
            raise AudioError(f"{target.name} has a suffix that cannot be written. Use .wav, .flac, .ogg or .mp3.")
        samples = self.row(0).samples[0].clamp(-1, 1).T.detach().cpu().numpy()
        with atomic_write(target) as temporary:
            soundfile.write(temporary, samples, self.sample_rate, format=format_, subtype=subtype)
        return target


AudioLike: TypeAlias = "Audio | str | Path | tuple[Any, int]"
"""What every audio argument takes."""


def _name(path: str | Path | IO[bytes]) -> str:
    return "standard input" if path == "-" or not isinstance(path, str | Path) else str(path)


def _open(path: str | Path | IO[bytes]) -> soundfile.SoundFile:
    name = _name(path)
    if path == "-":
        data = sys.stdin.buffer.read()
        if not data:
            raise AudioError("standard input is empty. Pipe a recording into it.")
        path = io.BytesIO(data)
    elif isinstance(path, str | Path):
        file = Path(path)
        if file.is_dir():
            raise AudioError(f"{name} is a directory. Name a sound file.")
        if not file.exists():
            raise AudioError(f"{name} does not exist. Check the path.")
        if file.stat().st_size == 0:
            raise AudioError(f"{name} is empty. Give a recording with speech in it.")
    try:
        return soundfile.SoundFile(path)
    except PermissionError:
        raise AudioError(f"{name} may not be read. Check its permissions.") from None
    except (soundfile.LibsndfileError, RuntimeError, TypeError, OSError) as error:
        reason = str(error).rsplit(":", 1)[-1].strip().rstrip(".")
        raise AudioError(f"{name} is not a sound file ({reason}). Convert it to WAV or FLAC.") from None


def read_blocks(
    path: str | Path | IO[bytes],
    *,
    sample_rate: int | None = None,
    mono: bool = False,
    start: float = 0.0,
    seconds: float | None = None,
    channel: int | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
    """A recording as blocks of samples [C, n] float32 with their rate; at least one block.

    :raises AudioError: the file is missing, not audio, or breaks off.
    """
    with _open(path) as file:
        rate = sample_rate or file.samplerate
        channels = 1 if mono or channel is not None else file.channels
        if channel is not None and not 0 <= channel < file.channels:
            raise AudioError(f"{_name(path)} has {file.channels} channels, not channel {channel}. Count from 0.")
        first = round(start * file.samplerate)
        left = file.frames - first if seconds is None else min(round(seconds * file.samplerate), file.frames - first)
        resampler = (
            None
            if rate == file.samplerate
            else soxr.ResampleStream(file.samplerate, rate, channels, dtype="float32", quality="HQ")
        )
        if left <= 0:
            yield np.zeros((channels, 0), np.float32), rate
            return
        try:
            if first:
                file.seek(first)
            while left > 0:
                block = file.read(min(left, round(_BLOCK_SECONDS * file.samplerate)), dtype="float32", always_2d=True)
                if not len(block):
                    raise AudioError(f"{_name(path)} breaks off before its end. Copy or export it again.")
                left -= len(block)
                if channel is not None:
                    block = block[:, channel : channel + 1]
                elif mono and block.shape[1] > 1:
                    block = block.mean(axis=1, keepdims=True)
                if resampler is not None:
                    block = resampler.resample_chunk(np.ascontiguousarray(block), last=left <= 0)
                yield np.ascontiguousarray(block.reshape(-1, channels).T), rate
        except (soundfile.LibsndfileError, RuntimeError) as error:
            reason = str(error).rsplit(":", 1)[-1].strip().rstrip(".")
            raise AudioError(f"{_name(path)} cannot be decoded ({reason}). Copy or export it again.") from None
