"""Delivery: how something is said, beside what: how loud, how fast, how high, and whether with voice.

Shapes: T frames, N samples.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from lalia.audio import Audio
from lalia.encoders.pitch import PitchTracker
from lalia.encoders.windows import Windows, WindowState, encode_windows
from lalia.nn.spectral import hann
from lalia.streaming import State

__all__ = ["MEASURES", "Delivery", "DeliveryMeter", "DeliveryState"]

MEASURES = ("level", "rate", "pitch", "voicing", "harmonicity")

_FRAME_RATE = 25.0
"""Hz. Medians and means over an utterance need no more, and half the frames are half the work."""

_SPOKEN, _VOICED, _LOUD = -25.0, -18.0, -12.0
"""dB from the loudest: frames of speech, those that are mostly voiced, if any are, and its vowels."""

_NOISE, _PAUSES = -30.0, 0.1
"""dB from the loudest, and the quantile of the level that is under it in the pauses: noise nearer than this hides
whether what is said has voice.
"""

_UPPER = 800.0, 4000.0
"""Hz. Here breath is as loud as the harmonics of a breathy voice (Hillenbrand et al., JSHR 37, 1994)."""

_TOP = 0.95
"""The quantile of the level that counts as the loudest: a click is louder."""

_FAINT = -70.0
"""dBFS. What is fainter is no speech."""

_LEAST = 6
"""Frames of vowels, and of pitch, of which something can be told: a quarter of a second."""

_BEGIN, _LETTER = 0.32, 0.059
"""Seconds of so many letters: a constant, and more for each. Fitted, see ``runs/mini/manner.py``."""

_LOWEST, _HIGHEST = 60.0, 450.0
"""Hz, of the periods that harmonicity looks for."""

_REFERENCE = 100.0
"""Hz, from which semitones are counted."""

_TINIEST = 1e-12


@dataclass(frozen=True)
class Delivery:
    """What is measured of an utterance; NaN where it cannot be told.

    :param level: of speech, in dB below full scale.
    :param rate: the logarithm of how many times faster it is than so many letters usually are.
    :param pitch: the median of F0, in semitones over 100 Hz.
    :param voicing: the part of its frames that are voiced: of a whisper, few or none.
    :param harmonicity: of its vowels from 0.8 to 4 kHz: the height of the peak of their autocorrelation, 0 to 1.
    """

    level: float = math.nan
    rate: float = math.nan
    pitch: float = math.nan
    voicing: float = math.nan
    harmonicity: float = math.nan

    def paced(self, letters: int) -> "Delivery":
        """The same of a text of so many letters, where ``rate`` holds the logarithm of seconds."""
        return replace(self, rate=math.log(_BEGIN + _LETTER * letters) - self.rate if letters > 0 else math.nan)


@dataclass
class DeliveryState(State):
    """What each row has said so far: samples that wait for those behind them, and frames [T, 4]."""

    waiting: WindowState
    frames: list[Tensor]

    def select(self, rows: Tensor) -> "DeliveryState":
        return DeliveryState(self.waiting.select(rows), [self.frames[i] for i in rows.tolist()])

    def reset(self, fresh: "DeliveryState", rows: Tensor) -> "DeliveryState":
        frames = [(fresh if new else self).frames[b] for b, new in enumerate(rows.tolist())]
        return DeliveryState(self.waiting.reset(fresh.waiting, rows), frames)


class DeliveryMeter:
    """Audio to the deliveries of its rows, measured as it comes: little is left to do at the end.

    Pitch and voicing are those of ``PitchTracker``. The level is the mean power of what is within 25 dB of the loudest
    (in the manner of ITU-T P.56's active level); the rate comes of the time from the first to the last of that.
    """

    def __init__(self) -> None:
        config = PitchTracker.Config(frame_rate=_FRAME_RATE, windows=Windows(block=0.8, before=0.2, after=0.2))
        self._tracker: PitchTracker = config.build()
        self.sample_rate, self._hop = config.sample_rate, config.hop
        self._sizes = config.windows.sizes(config.sample_rate, config.hop)
        self._window, self._n_fft = hann(config.hop), 2 * config.hop
        frequencies = torch.linspace(0, config.sample_rate / 2, self._n_fft // 2 + 1)
        self._upper = (frequencies >= _UPPER[0]) & (frequencies < _UPPER[1])
        self._lags = slice(int(config.sample_rate / _HIGHEST), int(config.sample_rate / _LOWEST))
        scale = torch.fft.irfft(torch.fft.rfft(self._window, n=self._n_fft).abs() ** 2, n=self._n_fft)
        self._scale = scale[self._lags] / scale[0]

    def init_state(self, batch_size: int) -> DeliveryState:
        """An empty stream for each row."""
        return DeliveryState(WindowState.empty(batch_size), [torch.zeros(0, 4)] * batch_size)

    @torch.no_grad()
    def measure(self, audio: Audio, state: DeliveryState | None = None, *, final: bool = False) -> list[Delivery]:
        """The delivery of each row, of which ``rate`` is the logarithm of its seconds; see ``Delivery.paced``.

        Of a stream that goes on, nothing is told yet.

        :param audio: [B, 1, N] at ``sample_rate``.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows. The state is then that of new streams.
        """
        out = []
        for b in range(len(audio)):
            samples = audio.samples[b, 0, : int(audio.lengths[b])].cpu().nan_to_num(0.0, 0.0, 0.0)
            waiting = None if state is None else state.waiting
            over = state is None or final
            new = encode_windows(self._frames, self._sizes, self._hop, samples, waiting, b, final=over, each=_same)
            frames = torch.cat([torch.zeros(0, 4) if state is None else state.frames[b], *new])
            if state is not None:
                state.frames[b] = torch.zeros(0, 4) if final else frames
            out.append(_delivery(frames) if over else Delivery())
        return out

    def _frames(self, samples: Tensor) -> Tensor:
        """F0 in Hz, probability of voicing, power and harmonicity [T, 4]."""
        f0, voicing = self._tracker(samples[None])
        frames = functional.pad(samples - samples.mean(), (0, f0.shape[1] * self._hop - len(samples)))
        frames = frames.view(-1, self._hop)
        return torch.stack([f0[0], voicing[0], frames.square().mean(-1), self._harmonicity(frames)], dim=-1)

    def _harmonicity(self, frames: Tensor) -> Tensor:
        """Of frames [T, hop], the highest peak of the autocorrelation of their upper band [T]."""
        power = torch.fft.rfft(frames * self._window, n=self._n_fft).abs() ** 2
        r = torch.fft.irfft(power * self._upper, n=self._n_fft)
        r = r[:, self._lags] / r[:, :1].clamp(min=_TINIEST) / self._scale
        return r.amax(-1).clamp(0, 1)


def _delivery(frames: Tensor) -> Delivery:
    f0, _, power, harmonicity = frames.unbind(-1)
    level = 10 * power.clamp(min=_TINIEST).log10()
    top = float(level.quantile(_TOP)) if len(level) else -math.inf
    loud, spoken = level > top + _LOUD, (level > top + _SPOKEN).nonzero()[:, 0]
    if top < _FAINT or int(loud.sum()) < _LEAST:
        return Delivery()
    voiced = f0[loud & (f0 > 0)]
    clear = float(level.quantile(_PAUSES)) < top + _NOISE
    return Delivery(
        level=10 * math.log10(float(power[spoken].mean())),
        rate=math.log((int(spoken[-1]) - int(spoken[0]) + 1) / _FRAME_RATE),
        pitch=12 * math.log2(float(voiced.median()) / _REFERENCE) if len(voiced) >= _LEAST else math.nan,
        voicing=float((f0[level > top + _VOICED] > 0).float().mean()) if clear else math.nan,
        harmonicity=float(harmonicity[loud].mean()) if clear else math.nan,
    )


def _same(frames: Tensor) -> Tensor:
    return frames
