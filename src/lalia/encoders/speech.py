"""Any Hugging Face speech encoder, at any layer: HuBERT, wav2vec 2.0, WavLM, XLS-R, w2v-BERT, Whisper, ...

Only the layers up to the one that is read are kept and run.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.config import Configurable
from lalia.encoders.windows import Windows, WindowState, encode_windows
from lalia.errors import ConfigError, WeightsError
from lalia.nn.spectral import mel_filters
from lalia.streams import Continuous, StreamSpec, TokenSequence, pad_batch

__all__ = ["SpeechEncoder"]

_SAMPLE_RATE = 16000
_HOP = 320
"""Every encoder of this family has 50 frames a second."""


class SpeechEncoder(Configurable, nn.Module):
    """Audio to the hidden states of one layer [B, T, D] at 50 Hz, optionally averaged to a lower rate."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: known weights, a directory, or a hub id.
        :param layer: hidden states after this layer, counted from 1; the last, with its final norm, when not given.
        :param pool: average this many frames (2: 25 Hz).
        :param windows: how long audio is cut.
        :param pretrained: load the weights; otherwise the architecture with random ones.
        :param architecture: the model's ``config.json`` as a mapping, for building it without weights.
        """

        name: str
        _: KW_ONLY
        layer: int | None = None
        pool: int = 1
        windows: Windows = field(default_factory=Windows)
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = _SAMPLE_RATE
        model, self._normalize = _load(config)
        self.family = "whisper" if model.config.model_type == "whisper" else "bert" if _is_bert(model) else "wave"
        self.model = model.get_encoder() if self.family == "whisper" else model
        layers = self._layers()
        self.layer = len(layers) if config.layer is None else config.layer
        if not 1 <= self.layer <= len(layers):
            raise ConfigError(f"{config.name!r} has {len(layers)} layers, not layer {self.layer}. Count from 1.")
        if config.pool < 1:
            raise ConfigError(f"SpeechEncoder has pool {config.pool}. Give at least 1.")
        self._last = self.layer == len(layers)
        del layers[self.layer :]
        limit = getattr(self.model.config, "max_source_positions", None) if self.family == "whisper" else None
        if limit is not None and config.windows.seconds * 50 > limit:
            raise ConfigError(
                f"{config.name!r} hears at most {limit / 50:g} s at once, but the windows are "
                f"{config.windows.seconds:g} s. Shorten windows.block."
            )
        self.dim: int = self.model.config.hidden_size if self.family != "whisper" else self.model.config.d_model
        self.spec = StreamSpec(kind=Continuous(self.dim), frame_rate=50 / config.pool)
        if self.family == "whisper":
            bins = self.model.config.num_mel_bins
            self.register_buffer("filters", mel_filters(_SAMPLE_RATE, 400, bins, 0.0, 8000.0), persistent=False)
            self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.requires_grad_(False).eval()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights that are used."""
        digest = hashlib.sha256(f"{self.family}:{self.layer}".encode())
        for name, t in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(t.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def init_state(self, batch_size: int) -> WindowState:
        """An empty stream for each row."""
        return WindowState([torch.zeros(0) for _ in range(batch_size)], [0] * batch_size, [0] * batch_size)

    @torch.inference_mode()
    def encode(self, audio: Audio, state: WindowState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N] at any rate when whole; at 16 kHz when streaming.
        :returns: features [B, T, D]; offline T = ceil(samples / 320 / pool).
        """
        audio = audio.mono()
        if state is None:
            audio = audio.to(_SAMPLE_RATE)
        elif audio.sample_rate != _SAMPLE_RATE:
            raise ConfigError(f"A stream came at {audio.sample_rate} Hz. Resample it to {_SAMPLE_RATE} Hz as it comes.")
        rows = []
        for b in range(len(audio)):
            samples = audio.samples[b, 0, : int(audio.lengths[b])].to(self._device)
            kept = None if state is None else (state.samples[b].to(samples), state.origin[b], state.done[b])
            # A row at a time: padding would change what encoders with a norm over time give for it.
            pieces, after = encode_windows(
                self._window,
                self.config.windows,
                _SAMPLE_RATE,
                _HOP * self.config.pool,
                samples,
                kept,
                state is None or final,
            )
            if state is not None:
                state.samples[b], state.origin[b], state.done[b] = after
            frames = torch.cat(pieces) if pieces else samples.new_zeros((0, self.dim))
            rows.append(TokenSequence(frames[None], torch.tensor([len(frames)])))
        return pad_batch(rows)

    def forward(self, samples: Tensor) -> Tensor:
        """One window of samples [N] at 16 kHz to hidden states [T, D], T = ceil(N / 320)."""
        # A whole number of frames; what is added is silence.
        samples = F.pad(samples, (0, -len(samples) % _HOP))
        if self.family == "whisper":
            return self._whisper(samples)
        if self._normalize:
            samples = (samples - samples.mean()) / torch.sqrt(samples.var(unbiased=False) + 1e-7)
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            kept.append(output[0] if isinstance(output, tuple) else output)

        hook = self._layers()[-1].register_forward_hook(keep)
        try:
            if self.family == "bert":
                last = self.model(input_features=_fbank_pairs(samples)[None]).last_hidden_state
            else:
                # The convolutions reach 80 samples past a frame: without them the last frame would be missing.
                last = self.model(F.pad(samples, (0, 80))[None]).last_hidden_state
        finally:
            hook.remove()
        return (last if self._last else kept[0])[0]

    def _window(self, samples: Tensor) -> Tensor:
        if self.config.pool == 1:
            return self(samples)
        frames = self(F.pad(samples, (0, -len(samples) % (_HOP * self.config.pool))))
        return frames.unflatten(0, (-1, self.config.pool)).mean(dim=1)

    def _whisper(self, samples: Tensor) -> Tensor:
        """Whisper's encoder on the real length, not on a window of 30 s padded with silence."""
        encoder = self.model
        x = F.gelu(encoder.conv1(self._whisper_mel(samples)[None]))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        for layer in encoder.layers:
            x = layer(x, None)
            x = x[0] if isinstance(x, tuple) else x
        return (encoder.layer_norm(x) if self._last else x)[0]

    def _whisper_mel(self, samples: Tensor) -> Tensor:
        """Whisper's log-mel [80, N / 160] (arXiv:2212.04356 §2.2), with the dynamic range of this window."""
        spectrum = torch.stft(samples, 400, 160, window=self.window, return_complex=True)[:, :-1].abs() ** 2
        mel = torch.log10((self.filters @ spectrum).clamp(min=1e-10))
        return (torch.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0

    def _layers(self) -> nn.ModuleList:
        return self.model.layers if self.family == "whisper" else self.model.encoder.layers

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def _is_bert(model: Any) -> bool:
    return model.config.model_type == "wav2vec2-bert"


def _load(config: SpeechEncoder.Config) -> tuple[Any, bool]:
    """The model, and whether its input is normalised to zero mean and unit variance."""
    from transformers import AutoConfig, AutoModel

    if not config.pretrained:
        if config.architecture is None or "model_type" not in config.architecture:
            raise ConfigError(f"{config.name!r} without weights needs its architecture with 'model_type'. Give it.")
        settings = dict(config.architecture)
        return AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)), True
    path = fetch(config.name)
    try:
        model = AutoModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise WeightsError(f"{config.name!r} is not a speech encoder ({reason}). Name another.") from None
    file = path / "preprocessor_config.json"
    normalize = True
    if file.exists():
        import json

        normalize = bool(json.loads(file.read_text()).get("do_normalize", True))
    return model, normalize


def _fbank_pairs(samples: Tensor) -> Tensor:
    """w2v-BERT's input [T, 160]: 80 Kaldi filter banks at 100 Hz, normalised per bin, two frames stacked."""
    from transformers import SeamlessM4TFeatureExtractor

    extractor = SeamlessM4TFeatureExtractor()
    padded = F.pad(samples, (0, 240)).cpu().numpy()
    out = extractor(padded, sampling_rate=_SAMPLE_RATE, return_tensors="pt", padding=False)
    return out["input_features"][0].to(samples)
