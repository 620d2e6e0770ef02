"""The Audio value: one type for one recording and for a batch."""

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import soxr
import torch
from torch import Tensor

from lalia.audio.reading import Recording
from lalia.audio.writing import write
from lalia.errors import AudioError

__all__ = ["SHORTEST_SECONDS", "SILENCE_DBFS", "Audio", "AudioLike"]

SILENCE_DBFS = -60.0
"""A recording that never swings further than this (dB relative to full scale) counts as silent."""

SHORTEST_SECONDS = 0.05
"""Anything shorter holds no speech sound."""

_LOUDEST = 100.0
"""+40 dBFS. Floating-point files may pass 1, but beyond this the samples are integers that nobody scaled."""

_MOST_CHANNELS = 64


@dataclass(frozen=True, eq=False)
class Audio:
    """Samples in [-1, 1] and their rate.

    ``samples`` [B, C, N] float32, where a channel C is a speaker's side of a conversation; ``sample_rate`` in Hz;
    ``lengths`` [B], the valid samples of each row.
    """

    samples: Tensor
    sample_rate: int
    lengths: Tensor

    def __init__(self, samples: Any, sample_rate: int, lengths: Tensor | None = None) -> None:
        """
        :param samples: [N], [C, N] or [B, C, N]; float in [-1, 1], int16 or int32. See ``of`` for [N, C].
        :param sample_rate: in Hz.
        :param lengths: [B] in samples; all N when not given.
        :raises AudioError: a shape, a type or a rate that no audio has.
        """
        x, rate = _tensor(samples), _rate(sample_rate)
        if x.ndim not in (1, 2, 3):
            raise AudioError(f"Audio has {x.ndim} dimensions. Give samples as [N], [C, N] or [B, C, N].")
        if not x.is_floating_point():
            if x.dtype not in (torch.int16, torch.int32):
                raise AudioError(f"Audio has samples of type {x.dtype}. Give float, int16 or int32.")
            x = x.float() / (2.0 ** (15 if x.dtype == torch.int16 else 31))
        x = x.to(torch.float32).reshape(*([1] * (3 - x.ndim)), *x.shape)
        _, channels, n = x.shape
        if channels == 0 or (channels > _MOST_CHANNELS and channels > n):
            raise AudioError(f"Audio has {channels} channels of {n} samples. Give samples as [C, N], not [N, C].")
        if lengths is None:
            lengths = torch.full((x.shape[0],), x.shape[-1], dtype=torch.long, device=x.device)
        elif lengths.shape != (x.shape[0],):
            raise AudioError(f"Audio of {x.shape[0]} rows has lengths of shape {tuple(lengths.shape)}. Give one each.")
        object.__setattr__(self, "samples", x)
        object.__setattr__(self, "sample_rate", rate)
        object.__setattr__(self, "lengths", lengths)

    def __repr__(self) -> str:
        b, c, _ = self.samples.shape
        return f"Audio({b} x {c} channels, {self.seconds:.2f} s at {self.sample_rate} Hz)"

    # -- making -------------------------------------------------------------------------------

    @classmethod
    def of(cls, source: "AudioLike") -> "Audio":
        """Audio from what a caller may hand over: a path, ``(samples, sample_rate)``, or an Audio; checked.

        Samples in a pair are [N], or channels in either order, [C, N] or [N, C] (soundfile's): the shorter axis is
        that of the channels. Where that cannot be told, give an Audio, which takes [C, N] alone.

        :raises AudioError: it is none of these, or holds no speech (see ``check``).
        """
        match source:
            case Audio():
                audio = source
            case str() | os.PathLike():
                return cls.load(source)
            case (samples, rate):
                audio = cls(_channels_first(samples, rate), rate)
            case _:
                raise AudioError(
                    f"{type(source).__name__} is not audio. Give a path, (samples, sample_rate) or an Audio."
                )
        audio.check("the recording" if isinstance(source, Audio) else "the given samples")
        return audio

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | IO[bytes],
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
        :raises AudioError: the file is missing, not audio, breaks off, or fails the check.
        """
        with Recording(
            path, sample_rate=sample_rate, mono=mono, start=start, seconds=seconds, channel=channel
        ) as recording:
            samples = recording.read()
            audio = cls(torch.from_numpy(samples).T, recording.sample_rate)
            if check:
                # At the file's own rate: of a single sample, resampling may leave none.
                _check_length(recording.frames_read, recording.file_rate, recording.name)
                audio.check(recording.name)
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
            _check_length(n, self.sample_rate, name)
            low, high = torch.aminmax(self.samples[b, :, :n], dim=-1)  # NaN goes through
            if not bool(torch.isfinite(high - low).all()):
                raise AudioError(f"{name} contains NaN or infinite samples. Export it again.")
            peak = float(torch.maximum(high, -low).max())
            if peak > _LOUDEST:
                raise AudioError(f"{name} has samples up to {peak:.0f}. Scale them to [-1, 1].")
            if float((high - low).max()) / 2 < 10.0 ** (SILENCE_DBFS / 20.0):
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
        """The same audio at another rate (soxr, high quality); N samples become N * rate / old rate, rounded."""
        rate = _rate(sample_rate)
        if rate == self.sample_rate:
            return self
        b, c, n = self.samples.shape
        flat = self.samples.detach().reshape(b * c, n).T.contiguous().cpu().numpy()
        out = torch.from_numpy(soxr.resample(flat, self.sample_rate, rate, quality="HQ")).T
        # As soxr rounds, to the nearest and halves up: a row has the length that it has alone.
        lengths = (2 * self.lengths * rate + self.sample_rate) // (2 * self.sample_rate)
        return Audio(out.reshape(b, c, -1).to(self.samples.device), rate, lengths.clamp(max=out.shape[-1]))

    def cut(self, start: float, seconds: float | None = None) -> "Audio":
        """From ``start`` on, at most ``seconds`` long."""
        if not start >= 0 or (seconds is not None and not seconds >= 0):
            raise AudioError(f"A cut from {start} s on for {seconds} s was asked for. Give numbers of at least 0.")
        first = round(start * self.sample_rate)
        last = None if seconds is None else first + round(seconds * self.sample_rate)
        samples = self.samples[..., first:last]
        return Audio(samples, self.sample_rate, (self.lengths - first).clamp(0, samples.shape[-1]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write row 0; the format follows the suffix (.wav, .flac, .ogg, .opus, .mp3). Whole or not at all.

        Samples beyond [-1, 1] are clipped. WAV and FLAC are of 16 bits.

        :raises OutputError: a suffix that is not known, a folder that does not exist, or a rate or number of
            channels that the format does not have.
        :raises AudioError: samples that are NaN or infinite.
        """
        return write(Path(path), self.row(0).samples[0].detach().cpu().numpy(), self.sample_rate)


AudioLike: TypeAlias = "Audio | str | os.PathLike[str] | tuple[Any, int]"
"""What every audio argument takes."""


def _check_length(n: int, sample_rate: int, name: str) -> None:
    if n == 0:
        raise AudioError(f"{name} is empty. Give a recording with speech in it.")
    if n < SHORTEST_SECONDS * sample_rate:
        raise AudioError(
            f"{name} has only {n} sample{'s' if n > 1 else ''} ({1000 * n / sample_rate:.1f} ms). "
            f"Give at least {1000 * SHORTEST_SECONDS:.0f} ms of speech."
        )


def _rate(value: Any) -> int:
    try:
        rate = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except TypeError:
        shown = value if isinstance(value, str | float) else type(value).__name__
        raise AudioError(
            f"Audio has a sample rate of {shown!r}. Give (samples, sample_rate), the rate in Hz."
        ) from None
    if not 1 <= rate <= 768_000:
        raise AudioError(f"Audio has a sample rate of {rate} Hz. Give one between 1 and 768000.")
    return rate


def _tensor(samples: Any) -> Tensor:
    """A tensor of whatever holds numbers; NumPy arrays of any byte order, stride and ownership."""
    if isinstance(samples, Tensor):
        return samples
    try:
        x = np.asarray(samples)
        x = np.ascontiguousarray(x, x.dtype.newbyteorder("="))
        return torch.from_numpy(x if x.flags.writeable else x.copy())
    except (TypeError, ValueError):
        raise AudioError(f"{type(samples).__name__} holds no samples. Give numbers: float, int16 or int32.") from None


def _channels_first(samples: Any, sample_rate: Any) -> Tensor:
    """[C, N] of what may be [N, C]."""
    rate, x = _rate(sample_rate), _tensor(samples)
    if x.ndim != 2:
        return x
    rows, columns = x.shape
    if rows == columns or min(rows, columns) > _MOST_CHANNELS:
        raise AudioError(
            f"Samples of shape {(rows, columns)} may be [C, N] or [N, C]. Give Audio(x, {rate}), which takes [C, N]."
        )
    return x if rows < columns else x.T
