"""Discriminators of waveforms: by period, by scale, by spectrum.

Each is a bank of networks; ``forward(samples [B, N])`` returns, for every network of the bank, the
outputs of its layers, the last of which are its scores.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.nn.conv import weight_norm
from lalia.nn.spectral import hann, magnitude, stft

__all__ = ["Bank", "MultiPeriod", "MultiResolution", "MultiScale", "MultiSpectrum"]

_SLOPE = 0.1


class _Stack(nn.Module):
    """Convolutions with leaky rectifiers between them; returns what each of them makes."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        made = []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), _SLOPE)
            made.append(x)
        made.append(self.layers[-1](x))
        return made


class Bank(Configurable, nn.Module):
    """Several networks that look at the same samples in different ways."""

    networks: nn.ModuleList

    def view(self, samples: Tensor, index: int) -> Tensor:
        """What network ``index`` looks at."""
        return samples[:, None]

    def forward(self, samples: Tensor) -> list[list[Tensor]]:
        """Samples [B, N] to the layer outputs of each network; the last of each are scores."""
        return [network(self.view(samples, i)) for i, network in enumerate(self.networks)]


class MultiPeriod(Bank):
    """Samples folded into pictures of different periods (HiFi-GAN, arXiv:2010.05646 §2.3).

    :param periods: in samples; primes, so that they overlap little.
    :param channels: of the strided convolutions; the last one has stride 1.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        periods: tuple[int, ...] = (2, 3, 5, 7, 11)
        channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
        kernel_size: int = 5
        stride: int = 3

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(self._network() for _ in config.periods)

    def _network(self) -> _Stack:
        c, layers, last = self.config, [], 1
        for i, channels in enumerate(c.channels):
            stride = c.stride if i < len(c.channels) - 1 else 1
            layers.append(
                weight_norm(nn.Conv2d(last, channels, (c.kernel_size, 1), (stride, 1), (c.kernel_size // 2, 0)))
            )
            last = channels
        return _Stack([*layers, weight_norm(nn.Conv2d(last, 1, (3, 1), padding=(1, 0)))])

    def view(self, samples: Tensor, index: int) -> Tensor:
        period = self.config.periods[index]
        room = -samples.shape[-1] % period
        padded = F.pad(samples[:, None], (0, room), mode="reflect")
        return padded.reshape(len(samples), 1, -1, period)


class MultiScale(Bank):
    """Samples at several rates, each half of the one before (MelGAN, arXiv:1910.06711 §2.2; HiFi-GAN §2.3).

    :param channels: of the convolutions before the score; the defaults are HiFi-GAN's.
    :param kernels: their widths.
    :param strides: their strides.
    :param groups: their groups.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        num_scales: int = 3
        channels: tuple[int, ...] = (128, 128, 256, 512, 1024, 1024, 1024)
        kernels: tuple[int, ...] = (15, 41, 41, 41, 41, 41, 5)
        strides: tuple[int, ...] = (1, 2, 2, 4, 4, 1, 1)
        groups: tuple[int, ...] = (1, 4, 16, 16, 16, 16, 1)

    def __init__(self, config: Config) -> None:
        super().__init__()
        counts = {len(x) for x in (config.channels, config.kernels, config.strides, config.groups)}
        if len(counts) != 1:
            raise ConfigError(
                f"MultiScale has lists of {sorted(counts)} layers. Give channels, kernels, strides and groups alike."
            )
        self.config = config
        # Only the network of the original rate has spectral norm (HiFi-GAN §2.3).
        self.networks = nn.ModuleList(
            self._network(parametrizations.spectral_norm if i == 0 else weight_norm) for i in range(config.num_scales)
        )

    def _network(self, norm: Callable[[nn.Module], nn.Module]) -> _Stack:
        c, layers, last = self.config, [], 1
        for channels, kernel, stride, groups in zip(c.channels, c.kernels, c.strides, c.groups, strict=True):
            layers.append(norm(nn.Conv1d(last, channels, kernel, stride, kernel // 2, groups=groups)))
            last = channels
        return _Stack([*layers, norm(nn.Conv1d(last, 1, 3, padding=1))])

    def view(self, samples: Tensor, index: int) -> Tensor:
        x = samples[:, None]
        for _ in range(index):
            x = F.avg_pool1d(x, 4, 2, padding=2)
        return x


class MultiResolution(Bank):
    """Magnitude spectra of several window lengths (UnivNet, arXiv:2106.07889).

    :param sizes: window lengths in samples, multiples of 4; the hop is a quarter.
    :param channels: of every convolution.
    :param num_strided: convolutions that halve the frequency axis.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        sizes: tuple[int, ...] = (512, 1024, 2048)
        channels: int = 32
        num_strided: int = 3

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(self._network() for _ in config.sizes)
        for n_fft in config.sizes:
            self.register_buffer(f"window_{n_fft}", hann(n_fft), persistent=False)

    def _network(self) -> _Stack:
        channels = self.config.channels
        return _Stack(
            [
                weight_norm(nn.Conv2d(1, channels, (9, 3), padding=(4, 1))),
                *(
                    weight_norm(nn.Conv2d(channels, channels, (9, 3), (2, 1), (4, 1)))
                    for _ in range(self.config.num_strided)
                ),
                weight_norm(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1))),
                weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1))),
            ]
        )

    def view(self, samples: Tensor, index: int) -> Tensor:
        n_fft = self.config.sizes[index]
        return magnitude(samples, n_fft, n_fft // 4, getattr(self, f"window_{n_fft}"))[:, None]


class MultiSpectrum(Bank):
    """Complex spectra of several window lengths (EnCodec, arXiv:2210.13438 §3.4 and figure 2).

    :param sizes: window lengths in samples, multiples of 4; the hop is a quarter.
    :param channels: of every convolution.
    :param dilations: over time, of the convolutions that halve the frequency axis.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        sizes: tuple[int, ...] = (128, 256, 512, 1024, 2048)
        channels: int = 32
        dilations: tuple[int, ...] = (1, 2, 4)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(self._network() for _ in config.sizes)
        for n_fft in config.sizes:
            self.register_buffer(f"window_{n_fft}", hann(n_fft), persistent=False)

    def _network(self) -> _Stack:
        channels = self.config.channels
        return _Stack(
            [
                weight_norm(nn.Conv2d(2, channels, (9, 3), padding=(4, 1))),
                *(
                    weight_norm(nn.Conv2d(channels, channels, (9, 3), (2, 1), (4, d), (1, d)))
                    for d in self.config.dilations
                ),
                weight_norm(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1))),
                weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1))),
            ]
        )

    def view(self, samples: Tensor, index: int) -> Tensor:
        n_fft = self.config.sizes[index]
        window = getattr(self, f"window_{n_fft}")
        spectrum = stft(samples, n_fft, n_fft // 4, window) / window.square().sum().sqrt()
        return torch.view_as_real(spectrum).movedim(-1, 1)
