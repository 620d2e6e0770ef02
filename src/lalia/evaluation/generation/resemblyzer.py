"""Whose voice it is, by Resemblyzer: the network of GE2E (Wan et al., arXiv:1710.10467) as trained by Resemble AI."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.errors import AudioError, MissingDependency
from lalia.files import sha256
from lalia.nn.spectral import hann, mel_filters

__all__ = ["Resemblyzer"]

_SAMPLE_RATE = 16_000
_N_FFT, _HOP, _BINS = 400, 160, 40
_DIM, _LAYERS = 256, 3
_FRAMES, _STEP = 160, 77
"""Of a part that is heard at once, and from one to the next: 1.3 a second."""

_COVERED = 0.75
"""The share of the last part that must be there; else it is left out."""

_DBFS = -30.0
_WINDOW, _STRICT = 480, 3
"""Samples (30 ms) that are speech or not, and how sure WebRTC's detector must be, from 0 to 3."""

_AVERAGED, _LONGEST_SILENCE = 8, 6
"""Windows over which that is averaged, and how many of silence are left."""


class Resemblyzer:
    """Embeddings [256] of length 1, by the weights ``resemblyzer``; what is no speech is cut out before.

    Its components are not negative, so the cosine of any two is from 0 to 1: the same voice is around 0.9 in clean
    speech, another below 0.7 or so. The network and what is done before it are those of Resemblyzer 0.1.4, whose
    package need not be installed.

    :raises MissingDependency: webrtcvad is not installed.
    :raises WeightsError: the weights cannot be had.
    """

    name = "resemblyzer"

    def __init__(self) -> None:
        try:
            import webrtcvad
        except ImportError:
            raise MissingDependency("webrtcvad-wheels", "eval") from None
        # It learns what is noise as it hears, so each recording has its own.
        self._detector: Callable[[], Any] = lambda: webrtcvad.Vad(_STRICT)
        file = fetch("resemblyzer") / "model.safetensors"
        state = load_file(file)
        self._lstm = nn.LSTM(_BINS, _DIM, _LAYERS, batch_first=True)
        self._linear = nn.Linear(_DIM, _DIM)
        for part, module in (("lstm.", self._lstm), ("linear.", self._linear)):
            module.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})
        self._hann, self._filters = hann(_N_FFT), mel_filters(_SAMPLE_RATE, _N_FFT, _BINS)
        self.version = f"weights {sha256(file)[:12]}, WebRTC voice activity {_STRICT}"

    def __call__(self, recordings: Sequence[Audio]) -> list[Tensor]:
        """The embedding of row 0 of each, mixed to mono.

        :raises AudioError: there is no speech in one.
        """
        return [self._embed(audio) for audio in recordings]

    @torch.inference_mode()
    def _embed(self, audio: Audio) -> Tensor:
        samples = audio.row(0).mono().to(_SAMPLE_RATE).samples[0, 0].detach().float().cpu()
        power = float(samples.square().mean()) if len(samples) else 0.0
        if power == 0:
            raise AudioError("The recording is silent. Give one with speech in it.")
        speech = self._speech(samples * max(10 ** (_DBFS / 20) / power**0.5, 1.0))
        if not len(speech):
            raise AudioError("No speech is found in the recording. Give one with more.")
        starts = _starts(len(speech))
        needed = (starts[-1] + _FRAMES) * _HOP
        mel = self._mel(nn.functional.pad(speech, (0, max(needed - len(speech), 0))))
        _, (hidden, _) = self._lstm(torch.stack([mel[i : i + _FRAMES] for i in starts]))
        parts = nn.functional.normalize(self._linear(hidden[-1]).relu(), dim=1, eps=0)
        return nn.functional.normalize(parts.mean(0), dim=0)

    def _speech(self, samples: Tensor) -> Tensor:
        """What is left where silences are cut to 0.18 s."""
        windows = samples[: len(samples) // _WINDOW * _WINDOW].view(-1, _WINDOW)
        pcm = (windows * 32767).round().clamp(-32768, 32767).to(torch.int16).numpy()
        detector = self._detector()
        flags = [float(detector.is_speech(window.tobytes(), _SAMPLE_RATE)) for window in pcm]
        before = (_AVERAGED - 1) // 2
        padded = nn.functional.pad(torch.tensor(flags), (before, _AVERAGED - 1 - before))
        # One half is no speech.
        spoken = padded.unfold(0, _AVERAGED, 1).mean(1) > 0.5 if flags else torch.zeros(0, dtype=torch.bool)
        reach = _LONGEST_SILENCE // 2
        near = nn.functional.max_pool1d(spoken.float()[None], 2 * reach + 1, 1, reach)[0] if flags else spoken
        return windows[near.bool()].flatten()

    def _mel(self, samples: Tensor) -> Tensor:
        """Power in mel bands [T, 40]; not its logarithm."""
        spectrum = torch.stft(
            samples, _N_FFT, _HOP, window=self._hann, center=True, pad_mode="constant", return_complex=True
        )
        return (self._filters @ spectrum.abs().square()).T


def _starts(samples: int) -> list[int]:
    """The first frames of the parts that are heard."""
    frames = (samples + _HOP) // _HOP
    starts = list(range(0, max(1, frames - _FRAMES + _STEP + 1), _STEP))
    if len(starts) > 1 and (samples - starts[-1] * _HOP) / (_FRAMES * _HOP) < _COVERED:
        starts.pop()
    return starts
