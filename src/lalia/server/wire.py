"""Sound on the wire: bytes to sound and back, piece by piece (ITU-T G.711 for telephones)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
import torch

from lalia.audio import Audio

__all__ = ["PCM", "Decoder", "Encoder", "WireFormat", "pcm16"]

Kind = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]


@dataclass(frozen=True)
class WireFormat:
    """One channel of 16-bit samples, little-endian; or of 8 bits at 8 kHz, by the mu-law or the A-law.

    :param rate: in Hz.
    """

    kind: Kind = "audio/pcm"
    rate: int = 24_000

    @property
    def width(self) -> int:
        """Bytes of a sample."""
        return 2 if self.kind == "audio/pcm" else 1

    def to_json(self) -> dict[str, object]:
        """As the OpenAI Realtime protocol writes it."""
        return {"type": self.kind, "rate": self.rate} if self.kind == "audio/pcm" else {"type": self.kind}


PCM = WireFormat()


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Samples between -1 and 1 as 16-bit integers."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")


def _mu_law() -> np.ndarray:
    """Of each byte, the 14-bit value that it stands for, as one of 16 bits (G.711, table 2a)."""
    byte = ~np.arange(256) & 255
    exponent, mantissa = byte >> 4 & 7, byte & 15
    size = ((2 * mantissa + 33) << exponent) - 33
    return (np.where(byte & 128, -size, size) * 4).astype(np.int16)


def _a_law() -> np.ndarray:
    """Of each byte, the 13-bit value that it stands for, as one of 16 bits (G.711, table 1a)."""
    byte = np.arange(256) ^ 0x55
    exponent, mantissa = byte >> 4 & 7, byte & 15
    size = np.where(exponent == 0, 2 * mantissa + 1, (2 * mantissa + 33) << np.maximum(exponent - 1, 0))
    return (np.where(byte & 128, size, -size) * 8).astype(np.int16)


_LAWS = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}


def _nearest(law: np.ndarray) -> np.ndarray:
    """Of each 16-bit value, the byte that comes nearest [65536]."""
    order = np.argsort(law, kind="stable")
    values = law[order].astype(np.int32)
    middle = (values[1:] + values[:-1] + 1) // 2
    return order[np.searchsorted(middle, np.arange(-32768, 32768), side="right")].astype(np.uint8)


_BYTES = {kind: _nearest(law) for kind, law in _LAWS.items()}


class Decoder:
    """Bytes that come piece by piece, cut anywhere, to sound."""

    def __init__(self, format_: WireFormat) -> None:
        self.format = format_
        self._rest = b""

    def __call__(self, data: bytes) -> Audio:
        """The samples [1, 1, N] that are whole by now."""
        data = self._rest + data
        whole = len(data) // self.format.width * self.format.width
        data, self._rest = data[:whole], data[whole:]
        if self.format.kind == "audio/pcm":
            values = np.frombuffer(data, "<i2")
        else:
            values = _LAWS[self.format.kind][np.frombuffer(data, np.uint8)]
        return Audio(torch.from_numpy(values.astype(np.float32) / 32768)[None, None], self.format.rate)


class Encoder:
    """Sound that comes piece by piece to bytes.

    :param sample_rate: in Hz, of the sound.
    """

    def __init__(self, format_: WireFormat, sample_rate: int) -> None:
        self.format = format_
        self._resampler = (
            None if format_.rate == sample_rate else soxr.ResampleStream(sample_rate, format_.rate, 1, dtype=np.float32)
        )

    def __call__(self, audio: Audio | None, *, final: bool = False) -> bytes:
        """Of a piece [1, 1, N], what is certain by now; of none, what is left at the end."""
        samples = np.zeros(0, np.float32) if audio is None else audio.samples[0, 0].float().numpy()
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=final)
        values = pcm16(samples)
        if self.format.kind == "audio/pcm":
            return values.tobytes()
        return _BYTES[self.format.kind][values.astype(np.int32) + 32768].tobytes()
