"""From a Llama in GGUF to the names and files of the Hugging Face layout."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lalia.checkpoints.gguf import GGUF
from lalia.errors import WeightsError

__all__ = ["model_config", "state_dict", "tokenizer", "tokenizer_config"]

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL, _USER_DEFINED = 3, 4
"""Kinds of tokens that no text is split into."""

_DIGITS = {"smollm"}
"""Pre-tokenizers that split numbers into digits before anything else."""


def state_dict(model: GGUF) -> dict[str, np.ndarray]:
    """Its weights as float16 under the names of ``LlamaForCausalLM``.

    llama.cpp turns pairs of neighbouring values where Hugging Face turns those half a head apart, and has the rows of
    queries and keys in the order for that; they are put back.

    :raises WeightsError: there is a tensor that Llama does not have.
    """
    heads = {"attn_q": int(_fact(model, "attention.head_count"))}
    heads["attn_k"] = int(_fact(model, "attention.head_count_kv"))
    out = {}
    for name, tensor in model.tensors.items():
        *block, part, kind = name.split(".")
        if part in heads:
            rows, width = tensor.shape
            tensor = tensor.reshape(heads[part], rows // heads[part] // 2, 2, width).swapaxes(1, 2).reshape(rows, width)
        if len(block) == 2 and part in _INNER:
            target = f"model.layers.{block[1]}.{_INNER[part]}.{kind}"
        elif not block and part in _OUTER:
            target = f"{_OUTER[part]}.{kind}"
        else:
            raise WeightsError(f"The GGUF has a tensor {name!r}, which no Llama has. Give the GGUF of a Llama.")
        out[target] = np.ascontiguousarray(tensor).astype(np.float16)
    return out


def model_config(model: GGUF) -> dict[str, Any]:
    """``config.json``.

    :raises WeightsError: it is no Llama, or does not say of what size.
    """
    if model.facts.get("general.architecture") != "llama":
        kind = model.facts.get("general.architecture")
        raise WeightsError(f"The GGUF holds a model of kind {kind!r}, not llama. Give the GGUF of a Llama.")
    heads, dim = int(_fact(model, "attention.head_count")), int(_fact(model, "embedding_length"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": model.facts["tokenizer.ggml.bos_token_id"],
        "dtype": "float16",
        "eos_token_id": model.facts["tokenizer.ggml.eos_token_id"],
        "head_dim": int(model.facts.get("llama.rope.dimension_count", dim // heads)),
        "hidden_act": "silu",
        "hidden_size": dim,
        "intermediate_size": int(_fact(model, "feed_forward_length")),
        "max_position_embeddings": int(_fact(model, "context_length")),
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": int(_fact(model, "block_count")),
        "num_key_value_heads": int(_fact(model, "attention.head_count_kv")),
        "pad_token_id": model.facts.get("tokenizer.ggml.padding_token_id"),
        # As its float32 says, without the digits that float64 would add.
        "rms_norm_eps": float(f"{_fact(model, 'attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(_fact(model, "rope.freq_base")),
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "vocab_size": len(model.facts["tokenizer.ggml.tokens"]),
    }


def tokenizer(model: GGUF) -> str:
    """``tokenizer.json``: byte-level BPE.

    :raises WeightsError: its tokenizer is of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    facts = model.facts
    if facts.get("tokenizer.ggml.model") != "gpt2":
        kind = facts.get("tokenizer.ggml.model")
        raise WeightsError(f"The GGUF has a tokenizer of kind {kind!r}, not gpt2. Take the model from the hub.")
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    split = [pre_tokenizers.Digits(individual_digits=True)] if facts.get("tokenizer.ggml.pre") in _DIGITS else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    kinds = facts["tokenizer.ggml.token_type"]
    made.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, kinds, strict=True)
            if kind in {_CONTROL, _USER_DEFINED}
        ]
    )
    return json.dumps(json.loads(made.to_str()), ensure_ascii=False, indent=1)


def tokenizer_config(model: GGUF) -> dict[str, Any]:
    """``tokenizer_config.json``, with the chat template."""
    tokens, facts = model.facts["tokenizer.ggml.tokens"], model.facts
    named: Mapping[str, str] = {
        f"{name}_token": tokens[facts[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in facts
    }
    return {
        "add_prefix_space": False,
        **named,
        "chat_template": facts.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(_fact(model, "context_length")),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _fact(model: GGUF, name: str) -> Any:
    try:
        return model.facts[f"llama.{name}"]
    except KeyError:
        raise WeightsError(f"The GGUF does not say its llama.{name}. Give the GGUF of a Llama.") from None
