"""The fundamental frequency of speech: autocorrelation candidates, and the best path through them.

The method is Boersma's ("Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of
a sampled sound", IFA Proceedings 17, 1993): the autocorrelation of a windowed frame over that of the window has its
peaks at the multiples of the period; each frame offers several of them and "unvoiced"; dynamic programming chooses
among them, so that jumps by an octave and flickering voicing have their price.
"""

import math
from dataclasses import KW_ONLY, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.encoders.windows import Windows, WindowState, encode_windows
from lalia.errors import ConfigError
from lalia.nn.spectral import hann
from lalia.streams import Continuous, StreamSpec, TokenSequence, pad_batch

__all__ = ["PitchTracker", "best_path"]

_PERIODS = 3
"""Of the lowest frequency, in a window."""

_HUM = 40.0, 160.0
"""Hz. Below, mains and rooms hum; a voice as low as that shows its period in its harmonics."""

_BREATH = 1500.0, 3000.0
"""Hz. Above, breath is louder than the harmonics, and those of a voice that glides are smeared."""

_OVERSAMPLING = 2
"""Of the autocorrelation, so that a parabola fits its peaks."""

_SILENCE = 1e-6

_NEVER = -1e3
"""The strength of what is no candidate."""

_NEAR = 0.25
"""Octaves, for the same peak."""

_SLOPE = 10.0
"""Of the probability of voicing, over strength."""

_STEP = 0.01
"""Seconds between frames for which the costs of transitions are meant."""


class PitchTracker(Configurable, nn.Module):
    """Audio to F0 [B, T, 2]: in Hz, 0 where unvoiced, and the probability of voicing.

    Frame ``t`` is centred on sample ``(t + 1/2) * sample_rate / frame_rate``: T = ceil(N * frame_rate / sample_rate),
    as for the encoders of units. Nothing is learned. Costs and thresholds are Boersma's (and Praat's); the
    probability is a logistic function of by how much voicing wins within the frame.

    :param frame_rate: in Hz.
    :param sample_rate: of the sound that is analysed, in Hz; ``encode`` resamples.
    :param fmin: lowest frequency in Hz, ``fmax`` the highest.
    :param candidates: peaks of each frame among which the path chooses.
    :param voicing_threshold: the autocorrelation, relative to that at lag 0, from which a frame counts as voiced.
    :param silence_threshold: the amplitude, relative to the loudest of the window, under which it does less and less.
    :param octave_cost: what a candidate loses for every octave that it is lower: the period wins over its multiples.
    :param jump_cost: of a change by an octave within 10 ms.
    :param voicing_cost: of a change between voiced and unvoiced.
    :param windows: how long audio is cut; each piece has a path of its own, so that a stream equals the whole.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        frame_rate: float = 50.0
        sample_rate: int = 16000
        fmin: float = 50.0
        fmax: float = 550.0
        candidates: int = 8
        voicing_threshold: float = 0.45
        silence_threshold: float = 0.03
        octave_cost: float = 0.01
        jump_cost: float = 0.35
        voicing_cost: float = 0.14
        windows: Windows = field(default_factory=lambda: Windows(block=4.0, before=0.5, after=0.5))

        def __post_init__(self) -> None:
            if not 0 < self.fmin < self.fmax < self.sample_rate / 4:
                raise ConfigError(
                    f"A pitch tracker looks from {self.fmin:g} to {self.fmax:g} Hz in sound at {self.sample_rate} Hz. "
                    f"Keep 0 < fmin < fmax < {self.sample_rate / 4:g}."
                )
            if self.frame_rate <= 0 or self.sample_rate % self.frame_rate:
                raise ConfigError(
                    f"Frames at {self.frame_rate:g} Hz are no whole number of samples at {self.sample_rate} Hz. "
                    "Choose another frame_rate or sample_rate."
                )
            if self.candidates < 1:
                raise ConfigError(f"A pitch tracker chooses among {self.candidates} candidates. Give at least 1.")

        def tiny(self) -> "PitchTracker.Config":
            return replace(self)

        @property
        def hop(self) -> int:
            """Samples per frame."""
            return int(self.sample_rate / self.frame_rate)

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Continuous(2), frame_rate=self.frame_rate)

    window: Tensor
    scale: Tensor
    voice: Tensor
    loud: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec, self.sample_rate, self._hop = config.spec, config.sample_rate, config.hop
        self._sizes = config.windows.sizes(config.sample_rate, config.hop)
        size = round(_PERIODS * config.sample_rate / config.fmin)
        size += (size - config.hop) % 2  # centred on a frame
        window = hann(size)
        self._n_fft = 2 ** math.ceil(math.log2(size + config.sample_rate / config.fmin + 2))
        frequencies = torch.linspace(0, config.sample_rate / 2, self._n_fft // 2 + 1, device="cpu")
        voice = (frequencies > config.fmin / 2) * (1 - _rise(frequencies, *_BREATH))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("voice", voice, persistent=False)
        self.register_buffer("loud", voice * _rise(frequencies, *_HUM), persistent=False)
        self._rate = _OVERSAMPLING * config.sample_rate
        self._first = math.floor(self._rate / config.fmax) - 1
        self._last = math.ceil(self._rate / config.fmin) + 1
        scale = torch.fft.irfft(torch.fft.rfft(window, n=self._n_fft).abs() ** 2, n=_OVERSAMPLING * self._n_fft)
        self.register_buffer("scale", scale[self._first : self._last + 1] / scale[0], persistent=False)

    # -- streaming ----------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> WindowState:
        """An empty stream for each row."""
        return WindowState.empty(batch_size)

    @torch.no_grad()
    def encode(self, audio: Audio, state: WindowState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N], channels are averaged; at any rate when whole, at ``sample_rate`` when streaming.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows.
        :returns: F0 in Hz and probability of voicing [B, T, 2].
        """
        audio = audio.mono()
        if state is None:
            audio = audio.to(self.sample_rate)
        elif audio.sample_rate != self.sample_rate:
            raise ConfigError(
                f"A stream came at {audio.sample_rate} Hz. Resample it to {self.sample_rate} Hz as it comes."
            )
        rows = []
        for b in range(len(audio)):
            samples = audio.samples[b, 0, : int(audio.lengths[b])].to(self.window.device)
            pieces = encode_windows(
                self._encode, self._sizes, self._hop, samples, state, b, final=state is None or final, each=_same
            )
            frames = torch.cat([samples.new_zeros(0, 2), *pieces])
            rows.append(TokenSequence(frames[None], torch.tensor([len(frames)])))
        return pad_batch(rows)

    def _encode(self, samples: Tensor) -> Tensor:
        f0, voicing = self(samples[None])
        return torch.stack([f0[0], voicing[0]], dim=-1)

    # -- analysis -----------------------------------------------------------------------------------

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Samples [B, N] to F0 in Hz, 0 where unvoiced, and the probability of voicing, both [B, ceil(N / hop)]."""
        c = self.config
        power = self._power(samples)
        unvoiced = self._unvoiced(power)
        lag, height = self._peaks(self._correlation(power * self.loud))
        # The shortest lag gains most, so that a period wins over its multiples.
        strength = height - c.octave_cost * torch.log2(c.fmin * lag)
        strength, place = strength.topk(min(c.candidates, strength.shape[-1]), dim=-1)
        lag = lag.gather(-1, place)
        path = best_path(
            -torch.log2(lag).cpu().numpy(),
            strength.cpu().numpy(),
            unvoiced.cpu().numpy(),
            jump_cost=c.jump_cost * _STEP * c.frame_rate,
            voicing_cost=c.voicing_cost * _STEP * c.frame_rate,
        )
        chosen = torch.from_numpy(path).to(samples.device)
        lag = lag.gather(-1, (chosen - 1).clamp(min=0)[..., None])[..., 0]
        lag = self._refine(lag, self._correlation(power * self.voice))
        f0 = torch.where(chosen > 0, (1 / lag).clamp(c.fmin, c.fmax), 0.0)
        return f0, torch.sigmoid(_SLOPE * (strength.amax(-1) - unvoiced))

    def _power(self, samples: Tensor) -> Tensor:
        """Power spectra [B, T, n_fft // 2 + 1] of windows around the frames."""
        size = self.window.shape[0]
        count = -(-samples.shape[-1] // self._hop)
        room = (size - self._hop) // 2
        padded = F.pad(samples.float(), (room, count * self._hop - samples.shape[-1] + room))
        frames = padded.unfold(-1, size, self._hop)
        spectrum = torch.fft.rfft((frames - frames.mean(-1, keepdim=True)) * self.window, n=self._n_fft)
        return spectrum.real**2 + spectrum.imag**2

    def _unvoiced(self, power: Tensor) -> Tensor:
        """The strength [B, T] of being unvoiced, which is larger in what is quiet."""
        level = (power @ self.loud).sqrt()
        level = level / level.amax(-1, keepdim=True).clamp(min=_SILENCE)
        threshold = self.config.voicing_threshold
        return threshold + (2 - level * (1 + threshold) / self.config.silence_threshold).clamp(min=0)

    def _correlation(self, power: Tensor) -> Tensor:
        """Autocorrelation over that of the window [B, T, lags], from ``_first`` to ``_last``."""
        r = torch.fft.irfft(power, n=_OVERSAMPLING * self._n_fft)
        return r[..., self._first : self._last + 1] / (r[..., :1].clamp(min=_SILENCE**2) * self.scale)

    def _peaks(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Lags in seconds and heights [B, T, lags - 2] of the parabolas through peaks; ``_NEVER`` elsewhere."""
        before, here, after = r[..., :-2], r[..., 1:-1], r[..., 2:]
        shift = (before - after) / (2 * (before - 2 * here + after).clamp(max=-1e-9))
        lag = (torch.arange(here.shape[-1], device=r.device) + self._first + 1 + shift.clamp(-1, 1)) / self._rate
        peak = (here > before) & (here >= after) & (here > 0)
        peak &= (lag >= 1 / self.config.fmax) & (lag <= 1 / self.config.fmin)
        return lag, torch.where(peak, (here - (before - after) * shift / 4).clamp(max=1), _NEVER)

    def _refine(self, lag: Tensor, r: Tensor) -> Tensor:
        """The lags [B, T] of the highest peaks of another autocorrelation near these; themselves where it has none."""
        lags, heights = self._peaks(r)
        near = (lags / lag[..., None]).log2().abs() < _NEAR
        height, place = torch.where(near, heights, _NEVER).max(-1, keepdim=True)
        return torch.where(height[..., 0] > 0, lags.gather(-1, place)[..., 0], lag)


def best_path(
    octaves: np.ndarray, strength: np.ndarray, unvoiced: np.ndarray, *, jump_cost: float, voicing_cost: float
) -> np.ndarray:
    """The path of most strength through the candidates of all frames, less the costs of its transitions.

    :param octaves: where the voiced candidates lie [B, T, C].
    :param strength: theirs [B, T, C].
    :param unvoiced: that of the unvoiced candidate [B, T].
    :param jump_cost: for each octave between voiced neighbours.
    :param voicing_cost: of a change between voiced and unvoiced.
    :returns: the chosen candidate [B, T], from 1; 0 where unvoiced.
    """
    batch, length, count = octaves.shape
    chosen = np.zeros((batch, length), np.int64)
    if length == 0:
        return chosen
    scores = np.concatenate([unvoiced[..., None], strength], axis=-1)
    cost = np.full((batch, count + 1, count + 1), voicing_cost, np.float32)
    cost[:, 0, 0] = 0
    came = np.zeros((length, batch, count + 1), np.int64)
    total = scores[:, 0]
    for t in range(1, length):
        cost[:, 1:, 1:] = jump_cost * np.abs(octaves[:, t - 1, :, None] - octaves[:, t, None, :])
        reached = total[:, :, None] - cost
        came[t] = reached.argmax(1)
        total = np.take_along_axis(reached, came[t][:, None], 1)[:, 0] + scores[:, t]
    state, rows = total.argmax(1), np.arange(batch)
    for t in range(length - 1, -1, -1):
        chosen[:, t] = state
        state = came[t, rows, state]
    return chosen


def _rise(frequencies: Tensor, low: float, high: float) -> Tensor:
    """Half a cosine from 0 at ``low`` to 1 at ``high``."""
    return 0.5 - 0.5 * torch.cos(math.pi * ((frequencies - low) / (high - low)).clamp(0, 1))


def _same(frames: Tensor) -> Tensor:
    return frames
