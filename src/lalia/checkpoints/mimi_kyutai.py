"""Mimi from Kyutai's own names and settings to those of Hugging Face transformers: pure conversions, dict to dict.

Sources: Défossez et al., arXiv:2410.00037 §3.3; the module names of ``moshi/models/compression.py`` and
``moshi/models/loaders.py`` (moshi 0.2).
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lalia.checkpoints.text_lms import deinterleave
from lalia.errors import WeightsError

__all__ = ["config", "tensors"]

_SEANET = {
    "hidden_size": "dimension",
    "num_filters": "n_filters",
    "num_residual_layers": "n_residual_layers",
    "upsampling_ratios": "ratios",
    "kernel_size": "kernel_size",
    "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size",
    "dilation_growth_rate": "dilation_base",
    "use_causal_conv": "causal",
    "pad_mode": "pad_mode",
    "compress": "compress",
}
_QUANTIZER = {
    "codebook_size": "bins",
    "vector_quantization_hidden_dimension": "dimension",
    "num_quantizers": "n_q",
    "num_semantic_quantizers": "n_q_semantic",
}
_TRANSFORMER = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_heads",
    "intermediate_size": "dim_feedforward",
    "sliding_window": "context",
    "rope_theta": "max_period",
}

_RENAMED = (
    (r"(en|de)coder\.model\.", r"\1coder.layers."),
    (r"(en|de)coder_transformer\.transformer\.", r"\1coder_transformer."),
    (r"\.self_attn\.out_proj(s\.0)?\.", ".self_attn.o_proj."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
    (r"\.layer_scale_1\.", ".self_attn_layer_scale."),
    (r"\.layer_scale_2\.", ".mlp_layer_scale."),
    (r"(\.conv(tr)?)+\.", ".conv."),
    (r"\.rvq_first\.", ".semantic_residual_vector_quantizer."),
    (r"\.rvq_rest\.", ".acoustic_residual_vector_quantizer."),
    (r"\.vq\.layers\.(\d+)\._codebook\.", r".layers.\1.codebook."),
    (r"\.embedding_sum$", ".embed_sum"),
    (r"\._initialized$", ".initialized"),
)
"""In this order; each where it fits."""

_QUERY_KEY_VALUE = re.compile(r"(.*\.self_attn)\.in_proj(?:_weight|\.weight|s\.0\.weight)")


def config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` of a ``MimiModel`` would say.

    :param sizes: Kyutai's own settings of a Mimi (``_mimi_config`` of its loaders).
    :raises WeightsError: a part of them is missing.
    """
    try:
        seanet, quantizer, transformer = (sizes[part] for part in ("seanet", "quantizer", "transformer"))
        facts = {
            "sampling_rate": int(sizes["sample_rate"]),
            "audio_channels": sizes["channels"],
            "frame_rate": sizes["frame_rate"],
            "use_conv_shortcut": not seanet.get("true_skip", True),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"The settings of Mimi lack {error}. Give those that Kyutai's code reads.") from None
    for names, part in ((_SEANET, seanet), (_QUANTIZER, quantizer), (_TRANSFORMER, transformer)):
        facts |= {ours: part[theirs] for ours, theirs in names.items() if theirs in part}
    return facts


def tensors(state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a ``MimiModel``, for ``lalia.checkpoints.mimi.state_dict``.

    :param state: of Kyutai's ``MimiModel``, such as ``tokenizer-e351c8d8-checkpoint125.safetensors``.
    :param facts: what ``config`` gave.
    """
    made: dict[str, Tensor] = {}
    head_dim = facts["hidden_size"] // facts["num_attention_heads"]
    for name, tensor in state.items():
        new = name
        for old, put in _RENAMED:
            new = re.sub(old, put, new)
        joined = _QUERY_KEY_VALUE.fullmatch(new)
        if joined is None:
            made[new] = tensor
            continue
        q, k, v = tensor.chunk(3)
        # Kyutai turns neighbouring pairs.
        for side, part in (("q", deinterleave(q, head_dim)), ("k", deinterleave(k, head_dim)), ("v", v)):
            made[f"{joined[1]}.{side}_proj.weight"] = part
    return made
