"""Short-time spectra: Fourier transform and inverse on one frame grid, mel filter bank, log-mel.

The grid is that of the neural vocoders: frame ``t`` is centred on sample ``t * hop + hop / 2``, so
N = T * hop samples have exactly T frames, and cutting both at a frame boundary keeps them aligned.
Everything is differentiable and computed in float32, also under autocast.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configurable
from lalia.errors import ConfigError

__all__ = ["LogMel", "hann", "istft", "magnitude", "mel_filters", "spectral_distance", "stft"]

_FLOOR = 1e-5
"""Magnitudes under this are noise; the logarithm is taken of at least this much."""


def _check_grid(n_fft: int, hop: int) -> None:
    if hop < 1 or n_fft < hop or (n_fft - hop) % 2:
        raise ConfigError(
            f"n_fft {n_fft} and hop {hop} cannot share a frame grid. Make n_fft - hop even and not negative."
        )


def stft(samples: Tensor, n_fft: int, hop: int, window: Tensor) -> Tensor:
    """The complex spectrum on the grid of this module.

    :param samples: [..., N].
    :param window: [n_fft].
    :returns: [..., n_fft // 2 + 1, N // hop], complex.
    """
    _check_grid(n_fft, hop)
    flat = samples.float().reshape(-1, 1, samples.shape[-1])
    room = (n_fft - hop) // 2
    # Reflection needs more samples than it mirrors; something shorter is continued by silence.
    flat = F.pad(flat, (room, room), mode="reflect" if samples.shape[-1] > room else "constant")[:, 0]
    with torch.autocast(flat.device.type, enabled=False):
        spectrum = torch.stft(
            flat, n_fft, hop, window=window.to(flat), center=False, return_complex=True, normalized=False
        )
    return spectrum.reshape(*samples.shape[:-1], *spectrum.shape[-2:])


def istft(spectrum: Tensor, hop: int, window: Tensor) -> Tensor:
    """Samples from a complex spectrum on the grid of this module: overlap-add, divided by the window's energy.

    A sample of frame ``t`` depends on the frames within ``(n_fft / hop - 1) / 2`` of it, rounded up.

    :param spectrum: [..., n_fft // 2 + 1, T], complex.
    :param window: [n_fft]; n_fft must be a multiple of ``hop``.
    :returns: [..., T * hop].
    """
    n_fft = window.shape[0]
    _check_grid(n_fft, hop)
    if n_fft % hop:
        raise ConfigError(f"n_fft {n_fft} is no multiple of hop {hop}. Overlap-add needs whole steps.")
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    window = window.to(flat.device, torch.float32)
    with torch.autocast(flat.device.type, enabled=False):
        frames = torch.fft.irfft(flat.transpose(-1, -2), n=n_fft) * window
        energy = (window**2).expand(1, flat.shape[-1], n_fft)
        summed = _overlap_add(frames, hop) / _overlap_add(energy, hop).clamp(min=1e-8)
    return summed.reshape(*spectrum.shape[:-2], -1)


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """[R, T, n_fft] -> [R, T * hop], cut to the grid."""
    rows, count, n_fft = frames.shape
    steps = n_fft // hop
    parts = frames.view(rows, count, steps, hop)
    total = sum(F.pad(parts[:, :, i], (0, 0, i, steps - 1 - i)) for i in range(steps))
    assert isinstance(total, Tensor)
    start = (n_fft - hop) // 2
    return total.reshape(rows, -1)[:, start : start + count * hop]


def magnitude(samples: Tensor, n_fft: int, hop: int, window: Tensor) -> Tensor:
    """|STFT| with a gradient at zero: [..., N] -> [..., n_fft // 2 + 1, N // hop]."""
    spectrum = stft(samples, n_fft, hop, window)
    return torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)


def hann(size: int) -> Tensor:
    """Hann's window [size], on the CPU also where modules are built without memory: it is not in a checkpoint."""
    return torch.hann_window(size, device="cpu")


def _hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    linear = hz * 3 / 200
    log = 15 + torch.log(hz.clamp(min=1e-3) / 1000) * 27 / math.log(6.4)
    return torch.where(hz < 1000, linear, log)


def _mel_to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


def mel_filters(sample_rate: int, n_fft: int, bins: int, fmin: float = 0.0, fmax: float | None = None) -> Tensor:
    """Triangles of equal area, evenly spaced on Slaney's mel scale.

    :param fmin: lower edge in Hz.
    :param fmax: upper edge in Hz; half the sample rate when None.
    :returns: [bins, n_fft // 2 + 1].
    """
    top = sample_rate / 2 if fmax is None else fmax
    if not 0 <= fmin < top <= sample_rate / 2:
        raise ConfigError(
            f"Mel bands from {fmin} to {top} Hz do not fit a sample rate of {sample_rate} Hz. "
            f"Keep 0 <= fmin < fmax <= {sample_rate / 2:g}."
        )
    with torch.device("cpu"):
        ends = _hz_to_mel(torch.tensor([fmin, top], dtype=torch.float64))
        edges = _mel_to_hz(torch.linspace(float(ends[0]), float(ends[1]), bins + 2, dtype=torch.float64))
        # The last one is half the rate where n_fft is even, and below it where it is odd.
        top_bin = sample_rate * (n_fft // 2) / n_fft
        frequencies = torch.linspace(0, top_bin, n_fft // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


class LogMel(Configurable, nn.Module):
    """Natural logarithm of the mel spectrum, as HiFi-GAN (arXiv:2010.05646) computes it.

    :param sample_rate: of the samples, in Hz.
    :param n_fft: window length in samples.
    :param hop: samples per frame.
    :param bins: mel bands.
    :param fmin: lowest frequency in Hz.
    :param fmax: highest frequency in Hz; half the sample rate when None.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        sample_rate: int
        _: KW_ONLY
        n_fft: int = 1024
        hop: int = 256
        bins: int = 80
        fmin: float = 0.0
        fmax: float | None = None

    window: Tensor
    filters: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        _check_grid(config.n_fft, config.hop)
        self.config = config
        self.register_buffer("window", hann(config.n_fft), persistent=False)
        filters = mel_filters(config.sample_rate, config.n_fft, config.bins, config.fmin, config.fmax)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """[..., N] -> [..., bins, N // hop]."""
        spectrum = magnitude(samples, self.config.n_fft, self.config.hop, self.window)
        with torch.autocast(spectrum.device.type, enabled=False):
            return torch.log((self.filters.float() @ spectrum).clamp(min=_FLOOR))


def spectral_distance(made: Tensor, real: Tensor, sizes: Sequence[int]) -> Tensor:
    """Multi-resolution STFT distance of each row (Parallel WaveGAN, arXiv:1910.11480).

    Spectral convergence plus the mean absolute difference of log magnitudes, averaged over resolutions.

    :param made: [B, N]; ``real``: [B, N].
    :param sizes: window lengths in samples, multiples of 4; the hop is a quarter.
    :returns: [B].
    """
    total = torch.zeros(made.shape[0], device=made.device)
    for n_fft in sizes:
        window = hann(n_fft)
        a, b = (magnitude(x, n_fft, n_fft // 4, window) for x in (made, real))
        convergence = (a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1).clamp(min=_FLOOR)
        log = (a.clamp(min=_FLOOR).log() - b.clamp(min=_FLOOR).log()).abs().flatten(1).mean(1)
        total = total + convergence + log
    return total / len(sizes)
