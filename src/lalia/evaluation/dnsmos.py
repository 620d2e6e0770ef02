"""DNSMOS: how listeners would rate the sound of speech, from 1 to 5, without a reference.

Two small networks of Microsoft (MIT): one after ITU-T P.835 (Reddy et al., arXiv:2110.01763), which tells the quality
of the speech (SIG), of what is behind it (BAK) and of both (OVRL); one after P.808 (Reddy et al., arXiv:2010.15258).
They were trained on noise suppression: a clean voice that says nonsense has a high score.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.errors import AudioError, MissingDependency
from lalia.files import sha256
from lalia.nn.spectral import hann, mel_filters

__all__ = ["DNSMOS", "Quality"]

_SAMPLE_RATE = 16_000
_SECONDS, _SEGMENT = 9.01, 144_160
"""What is heard at once, in seconds and in samples; each time begins one second later."""

_N_FFT, _HOP, _BINS = 321, 160, 120
_RANGE_DB = 80.0
_FIT = {"ovrl": (0.04602535, 1.11546468, -0.06766283), "sig": (0.0052439, 1.22083953, -0.08397278)}
_FIT |= {"bak": (-0.39604546, 1.60915514, -0.13166888)}
"""From what the network says to ratings: coefficients of 1, x and x², as published with the weights."""


@dataclass(frozen=True)
class Quality:
    """Ratings from 1 (bad) to 5 (excellent)."""

    ovrl: float
    sig: float
    bak: float
    p808: float


class DNSMOS:
    """The rating of one recording at a time, by the weights ``dnsmos`` in onnxruntime on one CPU thread.

    :raises MissingDependency: onnxruntime is not installed.
    :raises WeightsError: the weights cannot be had.
    """

    name = "dnsmos"

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependency("onnxruntime", "eval") from None
        files = [fetch("dnsmos") / name for name in ("sig_bak_ovr.onnx", "model_v8.onnx")]
        weights = "+".join(sha256(file)[:12] for file in files)
        self.version = f"weights {weights}, onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        # More threads add up in another order, and last digits would differ from run to run.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._p835, self._p808 = (
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in files
        )
        self._window, self._filters = hann(_N_FFT), mel_filters(_SAMPLE_RATE, _N_FFT, _BINS)

    def __call__(self, audio: Audio) -> Quality:
        """The mean over all segments; a recording that is shorter than one is heard again and again.

        :param audio: row 0, mixed to mono.
        :raises AudioError: there is nothing in it.
        """
        samples = audio.row(0).mono().to(_SAMPLE_RATE).samples[0, 0].detach().cpu().clamp(-1, 1)
        if not len(samples):
            raise AudioError("The recording is empty. Give one with speech in it.")
        while len(samples) < _SEGMENT:
            # Doubled, and not just filled: longer than one segment it makes several.
            samples = torch.cat([samples, samples])
        # As many as upstream hears: of whole seconds, so that the last part of one is left out.
        count = max(len(samples) // _SAMPLE_RATE - _SEGMENT // _SAMPLE_RATE, 1)
        # Upstream computes ends in floating point, and passes over segments that come out one sample short: so must
        # we, for ratings to compare with published ones.
        starts = [i * _SAMPLE_RATE for i in range(count) if int((i + _SECONDS) * _SAMPLE_RATE) % _SAMPLE_RATE == 160]
        rated = np.mean([self._segment(samples[start : start + _SEGMENT]) for start in starts], axis=0)
        return Quality(*map(float, rated))

    def _segment(self, samples: Tensor) -> list[float]:
        """OVRL, SIG, BAK and P.808 of 9.01 s."""
        sig, bak, ovrl = _run(self._p835, samples)
        said = {"ovrl": ovrl, "sig": sig, "bak": bak}
        fitted = [sum(c * said[name] ** i for i, c in enumerate(fit)) for name, fit in _FIT.items()]
        return [*fitted, _run(self._p808, self._bands(samples[:-_HOP]))[0]]

    def _bands(self, samples: Tensor) -> Tensor:
        """Mel bands [T, 120] in dB under the loudest, scaled so that -40 dB is 0 and 0 dB is 1."""
        spectrum = torch.stft(
            samples, _N_FFT, _HOP, window=self._window, center=True, pad_mode="constant", return_complex=True
        )
        power = self._filters @ spectrum.abs().square()
        decibels = 10 * torch.log10(power.clamp(min=1e-10))
        decibels = decibels - decibels.max()
        return (decibels.clamp(min=-_RANGE_DB) / 40 + 1).T


def _run(session: Any, x: Tensor) -> list[float]:
    """The numbers that a network says of one input."""
    (name,) = (i.name for i in session.get_inputs())
    return [float(v) for v in session.run(None, {name: x[None].numpy().astype(np.float32)})[0][0]]
