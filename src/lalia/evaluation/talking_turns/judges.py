"""The published judge of turns: Whisper's encoder and two layers on its last frame (ESPnet, pull request 5948).

``espnet/Turn_taking_prediction_SWBD`` (CC BY 4.0; 1.2 GB, not here) is a folder with ``config.yaml`` and
``valid.loss.ave.pth``, a pickle, which lalia does not open: whoever trusts it writes its tensors as safetensors. Every
40 ms it hears what came so far, at most 30 s, and says what comes next. The names of its parameters are those of
``espnet2``; they were not checked against the published file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.checkpoints.tensors import read_tensors, weight_files
from lalia.errors import WeightsError
from lalia.evaluation.talking_turns.turns import FIRST, HOP, LABELS
from lalia.files import sha256
from lalia.nn.whisper import Whisper, WhisperMel

__all__ = ["TurnJudge"]

_RATE, _CONTEXT = 16_000, 30.0
_HEAD_DIM = 64
"""Of each of Whisper's heads."""

_SPECIAL = ("<blank>", "<unk>", "<sos/eos>")
_ENCODER = "encoder.encoders."
_NAMES = {
    "positional_embedding": "embed_positions.weight",
    "ln_post.": "layer_norm.",
    "blocks.": "layers.",
    ".attn.query.": ".self_attn.q_proj.",
    ".attn.key.": ".self_attn.k_proj.",
    ".attn.value.": ".self_attn.v_proj.",
    ".attn.out.": ".self_attn.out_proj.",
    ".attn_ln.": ".self_attn_layer_norm.",
    ".mlp.0.": ".fc1.",
    ".mlp.2.": ".fc2.",
    ".mlp_ln.": ".final_layer_norm.",
}
"""OpenAI's names of the parts of an encoder, and ours."""


class TurnJudge:
    """A judge in a folder, on the CPU in float32.

    :param weights: a folder with the weights as safetensors under the names of ``espnet2``, and ``config.yaml``.
    :raises WeightsError: there are none, or they are no such judge.
    """

    def __init__(self, weights: str | Path) -> None:
        folder = Path(weights)
        if not folder.is_dir():
            raise WeightsError(f"{folder} is no folder. Fetch espnet/Turn_taking_prediction_SWBD, and name its place.")
        tensors = read_tensors(folder)
        _check_labels(folder / "config.yaml")
        self.name, self.version = folder.name, sha256(weight_files(folder)[0])[:12]
        try:
            self._encoder, self._head = _encoder(tensors), _head(tensors)
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0][:120]
            raise WeightsError(f"{folder} is no judge of turns ({reason}). Name ESPnet's.") from None
        self._mel = WhisperMel(self._encoder.conv1.in_channels)

    @torch.inference_mode()
    def __call__(self, audio: Audio) -> np.ndarray:
        """Likelihoods [T, 5] in the order of `LABELS`, the first for 0.2 to 0.24 s, of a dialogue mixed to mono."""
        samples = audio.mono().to(_RATE).samples[0, 0].detach().float().cpu()
        first, hop, context = (round(seconds * _RATE) for seconds in (FIRST, HOP, _CONTEXT))
        found = []
        for end in range(first + hop, len(samples) + 1, hop):
            heard = self._encoder(self._mel(samples[max(end - context, 0) : end])[None])[0, -1]
            found.append(self._head(heard).softmax(-1).numpy())
        return np.stack(found) if found else np.zeros((0, len(LABELS)))


def _check_labels(config: Path) -> None:
    """Labels in another order would be another judge."""
    if not config.is_file():
        return
    try:
        told = yaml.safe_load(config.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WeightsError(f"{config} cannot be read ({str(error).splitlines()[0]}). Fetch it again.") from None
    tokens = told.get("token_list") if isinstance(told, Mapping) else None
    labels = tuple(str(t) for t in tokens or () if t not in _SPECIAL)
    if labels != LABELS:
        raise WeightsError(f"{config} has the labels {', '.join(labels) or 'of nothing'}, not {', '.join(LABELS)}.")


def _encoder(tensors: Mapping[str, Tensor]) -> Any:
    own = {}
    for name, tensor in tensors.items():
        if name.startswith(_ENCODER):
            plain = name.removeprefix(_ENCODER)
            for theirs, ours in _NAMES.items():
                plain = plain.replace(theirs, ours)
            own[plain] = tensor.float()
    dim, bins, _ = own["conv1.weight"].shape
    config = Whisper.Config(
        dim=dim,
        encoder_layers=len({name.split(".")[1] for name in own if name.startswith("layers.")}),
        decoder_layers=0,
        num_heads=max(dim // _HEAD_DIM, 1),
        ffn_dim=own["layers.0.fc1.weight"].shape[0],
        vocabulary_size=1,
        num_mel_bins=bins,
        source_positions=own["embed_positions.weight"].shape[0],
        target_positions=1,
    )
    encoder = Whisper(config).encoder
    encoder.load_state_dict(own)
    return encoder.eval()


def _head(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    layers = []
    for part in ("transform_mean", "transform_linear"):
        weight = tensors[f"{part}.weight"]
        layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
        layers[-1].load_state_dict({n: tensors[f"{part}.{n}"].float() for n in ("weight", "bias")})
    if layers[-1].out_features != len(LABELS):
        raise KeyError(f"it tells {layers[-1].out_features} labels, not {len(LABELS)}")
    return nn.Sequential(nn.Tanh(), *layers).eval()
