"""DistillMOS: how listeners would rate the sound of speech, from 1 to 5, without a reference (arXiv:2502.05356).

A small network of Microsoft (MIT), taught by one on top of XLS-R. The package ``distillmos`` asks for torchaudio, which
must not be here; its weights alone do not.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.errors import AudioError
from lalia.files import sha256
from lalia.nn.spectral import hann

__all__ = ["DistillMOS"]

_SAMPLE_RATE = 16_000
_SEGMENT, _HOP = 122_880, 16_000
"""Samples that are heard at once (7.68 s), and the most from one segment to the next."""

_N_FFT, _FRAME = 320, 160
_CHANNELS = (2, 64, 64, 128, 256, 256, 256)
_INPUT, _DIM, _HEADS, _LAYERS, _FRAMES = 1024, 200, 8, 7, 384


class DistillMOS:
    """The rating of each recording by the weights ``distillmos`` (variant 7), on the CPU in float32.

    :raises WeightsError: the weights cannot be had.
    """

    name = "distillmos"

    def __init__(self) -> None:
        file = fetch("distillmos") / "model.safetensors"
        self._network = _Network()
        # Upstream nests what is one network here.
        prefixes = ("cnn.", "transformer_pool_attn.transformer.transformer_", "transformer_pool_attn.")
        self._network.load_state_dict({_without(prefixes, name): t for name, t in load_file(file).items()})
        self._network.eval()
        self._window = hann(_N_FFT)
        self.version = f"weights {sha256(file)[:12]}"

    def __call__(self, recordings: Sequence[Audio]) -> list[float]:
        """The mean over segments of row 0, mixed to mono.

        :raises AudioError: there is nothing in a recording.
        """
        return [self._rate(audio) for audio in recordings]

    @torch.inference_mode()
    def _rate(self, audio: Audio) -> float:
        samples = audio.row(0).mono().to(_SAMPLE_RATE).samples[0, 0].detach().float().cpu()
        if not len(samples):
            raise AudioError("The recording is empty. Give one with speech in it.")
        samples = nn.functional.pad(samples, (0, max(_SEGMENT - len(samples), 0)))
        over = len(samples) - _SEGMENT
        hops = math.ceil(over / _HOP)
        starts = [int(share * over) for share in np.linspace(0, 1, hops + 1)]
        segments = torch.stack([samples[s : s + _SEGMENT] for s in starts])
        segments = segments / (segments.abs().amax(1, keepdim=True) + 1e-8)
        return 1 + 4 * float(self._network(self._spectrum(segments)).mean())

    def _spectrum(self, samples: Tensor) -> Tensor:
        """Real and imaginary parts [B, 2, F, T], with magnitudes to the power of 0.3."""
        edge = (_N_FFT - _FRAME) // 2
        padded = nn.functional.pad(samples, (edge, edge), mode="reflect")
        complex_ = torch.stft(padded, _N_FFT, _FRAME, window=self._window, center=False, return_complex=True)
        size = complex_.abs().clamp(min=1e-12)
        return torch.view_as_real(complex_ * size**-0.7).permute(0, 3, 1, 2)


class _Network(nn.Module):
    """Convolutions over the spectrum, a Transformer over time, and attention that pools it."""

    def __init__(self) -> None:
        super().__init__()
        last = len(_CHANNELS) - 2
        self.cnn = nn.Sequential()
        for i in range(last + 1):
            stride = (2 if i else 1, 2 if i == last else 1)
            self.cnn.append(nn.Conv2d(_CHANNELS[i], _CHANNELS[i + 1], 3, stride, padding=(0, 1)))
            self.cnn.append(nn.LeakyReLU(0.1))
        layer = nn.TransformerEncoderLayer(_DIM, _HEADS, 2 * _DIM, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, _LAYERS)
        self.norm_input, self.norm_trans = nn.BatchNorm1d(_INPUT), nn.BatchNorm1d(_DIM)
        self.transformer = nn.ModuleDict({"norm": nn.BatchNorm1d(_INPUT), "linear_proj": nn.Linear(_INPUT, _DIM)})
        self.transformer["position_encoding"] = _Positions()
        self.pool = nn.ModuleDict(
            {"linear1": nn.Linear(_DIM, 2 * _DIM), "linear2": nn.Linear(2 * _DIM, 1), "linear3": nn.Linear(_DIM, 1)}
        )

    def forward(self, spectrum: Tensor) -> Tensor:
        """[B, 2, 161, 768] -> [B], in (0, 1)."""
        x = self.cnn(spectrum).flatten(1, 2)
        x = self.transformer["norm"](self.norm_input(x)).transpose(1, 2)
        x = self.encoder(self.transformer["position_encoding"](self.transformer["linear_proj"](x)))
        x = self.norm_trans(x.transpose(1, 2)).transpose(1, 2)
        weight = self.pool["linear2"](self.pool["linear1"](x).relu()).softmax(1)
        return self.pool["linear3"]((weight * x).sum(1)).sigmoid()[:, 0]


class _Positions(nn.Module):
    """Adds what says where in the segment a frame is."""

    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, _FRAMES, _DIM))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe


def _without(prefixes: Sequence[str], name: str) -> str:
    return next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
