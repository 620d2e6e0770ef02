"""Mimi from the names of Hugging Face transformers to those of ``lalia.tokenizers.Codec``; dictionaries in and out.

Nothing is computed but what joins: queries, keys and values become one matrix, and a codebook its running sums divided
by their counts.

Sources: Défossez et al., arXiv:2410.00037 §3.3; the names of ``MimiModel`` (transformers 4.45 to 5).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lalia.checkpoints import kyutai, mimi_kyutai
from lalia.checkpoints.tensors import Tensors, read_config, weight_files
from lalia.errors import WeightsError

__all__ = ["PUBLISHED", "config", "state_dict", "tensors"]

PUBLISHED: Mapping[str, Any] = {
    "sampling_rate": 24000,
    "audio_channels": 1,
    "hidden_size": 512,
    "num_filters": 64,
    "num_residual_layers": 1,
    "upsampling_ratios": (8, 6, 5, 4),
    "kernel_size": 7,
    "last_kernel_size": 3,
    "residual_kernel_size": 3,
    "dilation_growth_rate": 2,
    "use_causal_conv": True,
    "pad_mode": "constant",
    "compress": 2,
    "trim_right_ratio": 1.0,
    "codebook_size": 2048,
    "vector_quantization_hidden_dimension": 256,
    "num_quantizers": 32,
    "num_semantic_quantizers": 1,
    "use_conv_shortcut": False,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": None,
    "intermediate_size": 2048,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "sliding_window": 250,
    "rope_theta": 10000.0,
    "frame_rate": None,
}
"""kyutai/mimi; also what ``MimiConfig`` of transformers says where a configuration is silent."""

_MOVED = {
    "encoder.encoder_seanet.": "encoder.",
    "encoder.encoder_transformer.": "encoder_transformer.",
    "encoder.downsample.": "downsample.",
    "decoder.decoder_seanet.": "decoder.",
    "decoder.decoder_transformer.": "decoder_transformer.",
    "decoder.upsample.": "upsample.",
}
"""Names since transformers 5, and those before."""

_TRANSFORMER = {
    "self_attn.o_proj.weight": "out.weight",
    "self_attn_layer_scale.scale": "attention_scale",
    "mlp_layer_scale.scale": "feed_forward_scale",
    "mlp.fc1.weight": "feed_forward.up.weight",
    "mlp.fc2.weight": "feed_forward.down.weight",
    "input_layernorm.weight": "attention_norm.weight",
    "input_layernorm.bias": "attention_norm.bias",
    "post_attention_layernorm.weight": "feed_forward_norm.weight",
    "post_attention_layernorm.bias": "feed_forward_norm.bias",
}

_LEAST_USE = 1e-5
"""Counts of codes are at least this (``MimiEuclideanCodebook.epsilon``)."""


def config(folder: Path) -> Mapping[str, Any] | None:
    """What ``config.json`` says of the Mimi in a folder, alone or beside the language model that speaks with it.

    :returns: None where there is none.
    :raises WeightsError: there is one, but it is damaged or incomplete.
    """
    repository = kyutai.find(folder)
    if repository is not None:
        return PUBLISHED if repository.mimi_config is None else mimi_kyutai.config(repository.mimi_config)
    if not (folder / "config.json").is_file():
        return None
    said = read_config(folder)
    match said.get("model_type"):
        case "mimi":
            return said
        case "moshi":
            inner: Mapping[str, Any] = said.get("audio_encoder_config") or {}
            return inner
        case _:
            return None


def tensors(folder: Path) -> Mapping[str, Tensor]:
    """The weights of the Mimi in a folder for which there is a ``config``, by the names of ``MimiModel``.

    :raises WeightsError: they are damaged or incomplete.
    """
    repository = kyutai.find(folder)
    if repository is not None:
        return mimi_kyutai.tensors(Tensors([repository.mimi]), {**PUBLISHED, **(config(folder) or {})})
    inner = read_config(folder).get("model_type") == "moshi"
    return Tensors(weight_files(folder), prefix="audio_encoder." if inner else "")


def state_dict(state: Mapping[str, Tensor], *, num_semantic: int, num_codebooks: int) -> dict[str, Tensor]:
    """The weights of a ``Codec``.

    :param state: of a ``MimiModel`` by name.
    :param num_semantic: codebooks of the first quantiser.
    :param num_codebooks: how many to keep, of both.
    :raises WeightsError: a tensor is missing, or one is there that Mimi does not have.
    """
    rest = {_renamed(name): t for name, t in state.items()}
    made: dict[str, Tensor] = {}

    def take(name: str) -> Tensor:
        if name not in rest:
            raise WeightsError(f"The checkpoint has no {name!r}. Give a Mimi model.")
        return rest.pop(name)

    ends = _count(rest, r"encoder\.layers\.(\d+)\."), int("upsample.conv.weight" in rest)
    transformers = {"encoder": ends[0], "decoder": ends[1]}
    for side, place in transformers.items():
        for i in range(_count(rest, rf"{side}_transformer\.layers\.(\d+)\.")):
            old, new = f"{side}_transformer.layers.{i}.", f"{side}.layers.{place}.layers.{i}."
            made[f"{new}qkv.weight"] = torch.cat([take(f"{old}self_attn.{x}_proj.weight") for x in "qkv"])
            for theirs, ours in _TRANSFORMER.items():
                made[new + ours] = take(old + theirs)
    if ends[1]:
        made["decoder.layers.0.conv.weight"] = take("upsample.conv.weight")
        made[f"encoder.layers.{ends[0] + 1}.conv.weight"] = take("downsample.conv.weight")
    for side, shift in (("encoder", 0), ("decoder", ends[1] + 1)):
        for name in [n for n in rest if n.startswith(f"{side}.layers.")]:
            index, tail = name.removeprefix(f"{side}.layers.").split(".", 1)
            made[f"{side}.layers.{int(index) + shift}.{tail.replace('block.', 'layers.')}"] = take(name)
    for part, count in (("semantic", num_semantic), ("acoustic", num_codebooks - num_semantic)):
        old, new = f"quantizer.{part}_residual_vector_quantizer.", f"quantizer.{part}."
        if f"{old}input_proj.weight" in rest:
            made[f"{new}before.weight"] = take(f"{old}input_proj.weight").squeeze(-1)
            made[f"{new}after.weight"] = take(f"{old}output_proj.weight").squeeze(-1)
        for k in range(_count(rest, rf"{re.escape(old)}layers\.(\d+)\.")):
            book = f"{old}layers.{k}.codebook."
            sums, counts = take(f"{book}embed_sum"), take(f"{book}cluster_usage")
            rest.pop(f"{book}initialized", None)
            if k < count:
                made[f"{new}layers.{k}.vectors"] = sums / counts.clamp(min=_LEAST_USE)[:, None]
                made[f"{new}layers.{k}.counts"] = counts.clone()
    if rest:
        raise WeightsError(f"The checkpoint has {min(rest)!r}, which Mimi does not have. Give a Mimi model.")
    return made


def _renamed(name: str) -> str:
    for old, new in _MOVED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _count(names: Mapping[str, Tensor], pattern: str) -> int:
    found = [int(m.group(1)) for m in (re.match(pattern, name) for name in names) if m]
    return max(found, default=-1) + 1
