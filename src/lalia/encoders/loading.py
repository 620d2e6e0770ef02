"""Speech encoders of ``transformers``: the part that is used, and nothing on the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.errors import ConfigError, WeightsError

__all__ = ["Family", "Loaded", "load"]

Family = Literal["whisper", "wave", "filterbank"]
"""What an encoder hears: Whisper's log-mel, the samples themselves, or w2v-BERT's filter bank."""

_FAMILIES: Mapping[str, Family] = {
    "data2vec-audio": "wave",
    "hubert": "wave",
    "unispeech": "wave",
    "unispeech-sat": "wave",
    "wav2vec2": "wave",
    "wav2vec2-bert": "filterbank",
    "wav2vec2-conformer": "wave",
    "wavlm": "wave",
    "whisper": "whisper",
}

_UNUSED = ("masked_spec_embed",)
"""Weights that only training needs, and that some checkpoints leave out."""

_FACTS = (
    "conv_stride",
    "do_stable_layer_norm",
    "feat_extract_activation",
    "feat_extract_norm",
    "hidden_act",
    "layer_norm_eps",
    "left_max_position_embeddings",
    "max_bucket_distance",
    "num_attention_heads",
    "num_conv_pos_embedding_groups",
    "position_embeddings_type",
    "right_max_position_embeddings",
    "rotary_embedding_base",
)
"""What the weights of the wav2vec 2.0 family do not show and its output depends on."""


@dataclass(frozen=True)
class Loaded:
    """An encoder cut off after the layer that is read.

    :param layer: that layer, from 1.
    :param last: it is the last of the whole model, whose final norm then counts.
    :param normalize: samples are to have zero mean and unit variance.
    :param dim: of the hidden states.
    :param reach: samples past a frame that it is made of.
    :param facts: what decides the output beside the weights.
    """

    model: Any
    family: Family
    layer: int
    last: bool
    normalize: bool
    dim: int
    reach: int
    facts: str


def _grid(strides: Sequence[int], kernels: Sequence[int]) -> tuple[int, int]:
    """Samples of a frame of convolutions one after another, and how many past it a frame is made of."""
    hop, span = 1, 1
    for stride, kernel in zip(strides, kernels, strict=True):
        span += (kernel - 1) * hop
        hop *= stride
    return hop, max(span - hop, 0)


def load(name: str, layer: int | None, architecture: Mapping[str, Any] | None, *, hop: int) -> Loaded:
    """The encoder ``name`` up to ``layer``, or one of ``architecture`` with random weights.

    These are the same each time, so that tokens made with them can be made again.

    :raises WeightsError: there is none by that name, it is no speech encoder, or it is incomplete.
    :raises ConfigError: it has no such layer, or the architecture is not one.
    """
    path = fetch(name) if architecture is None else None
    config = _config(name, path, architecture)
    family = _FAMILIES.get(config.model_type)
    if family is None:
        raise WeightsError(
            f"{name!r} is a {config.model_type} and no speech encoder. Name one of {', '.join(_FAMILIES)}."
        )
    reach = 0
    if family == "wave":
        own, reach = _grid(config.conv_stride, config.conv_kernel)
        if own != hop:
            raise WeightsError(
                f"{name!r} has frames of {own} samples, not of {hop}. Give its config.json as architecture."
            )
    count = "encoder_layers" if family == "whisper" else "num_hidden_layers"
    total = getattr(config, count)
    if layer is not None and not 1 <= layer <= total:
        raise ConfigError(f"{name!r} has {total} layers, not layer {layer}. Count from 1.")
    kept = layer or total
    setattr(config, count, kept)
    # It would come after the last layer and change the frame rate.
    config.add_adapter = False
    model = _random(config, family) if path is None else _pretrained(name, path, config, family)
    if kept < total and (getattr(config, "do_stable_layer_norm", False) or config.model_type == "wav2vec2-conformer"):
        # The norm after the last layer. (The others have one of that name before the first.)
        model.encoder.layer_norm = nn.Identity()
    normalize = family == "wave" and _normalizes(name, path)
    # Whisper is one architecture, of which the weights show everything.
    facts = {f: getattr(config, f, None) for f in _FACTS} if family != "whisper" else {}
    return Loaded(
        model=model,
        family=family,
        layer=kept,
        reach=reach,
        last=kept == total,
        normalize=normalize,
        dim=config.d_model if family == "whisper" else config.hidden_size,
        facts=json.dumps(facts | {"model": config.model_type, "normalize": normalize}) if facts else "",
    )


def _config(name: str, path: Path | None, architecture: Mapping[str, Any] | None) -> Any:
    from transformers import AutoConfig

    try:
        if path is not None:
            return AutoConfig.from_pretrained(path)
        settings = dict(architecture or {})
        if "model_type" not in settings:
            raise ConfigError(f"{name!r} without weights needs its architecture with 'model_type'. Give it.")
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    except (OSError, ValueError, TypeError) as error:
        wrong = f"{name!r} has a configuration that cannot be used ({_first_line(error)}). Mend it or name another."
        raise (ConfigError if path is None else WeightsError)(wrong) from None


def _random(config: Any, family: Family) -> Any:
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
    return model.get_encoder() if family == "whisper" else model


def _pretrained(name: str, path: Path, config: Any, family: Family) -> Any:
    from transformers import AutoModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        with quiet():
            if family == "whisper":
                # Its decoder is the greater half, and never read.
                names = {r"^(model\.)?encoder\.": ""}
                model, info = WhisperEncoder.from_pretrained(path, config=config, key_mapping=names, **options)
            else:
                model, info = AutoModel.from_pretrained(path, config=config, **options)
    except Exception as error:  # noqa: BLE001  what a damaged checkpoint can raise is not part of any interface
        raise WeightsError(
            f"{name!r} cannot be loaded ({_first_line(error)}). Fetch it again or name another."
        ) from None
    missing = sorted(n for n in info["missing_keys"] if not n.endswith(_UNUSED))
    if missing:
        raise WeightsError(f"{name!r} lacks {len(missing)} weights, {missing[0]!r} among them. Fetch it again.")
    return model


def _normalizes(name: str, path: Path | None) -> bool:
    file = path / "preprocessor_config.json" if path is not None else None
    if file is None or not file.exists():
        return True
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("do_normalize", True))
    except (OSError, ValueError, AttributeError):
        raise WeightsError(f"{name!r} has a damaged {file.name}. Fetch it again.") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
