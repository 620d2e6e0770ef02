"""The shapes of text LMs that recipes begin from, as their own ``config.json`` has them: to build without a hub."""

from collections.abc import Mapping
from typing import Any

__all__ = ["ARCHITECTURES"]

_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _llama(dim: int, ffn: int, layers: int, heads: int, kv_heads: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": dim,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        **more,
    }


def _opt(dim: int, ffn: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "hidden_size": dim,
        "ffn_dim": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
        "word_embed_proj_dim": dim,
        **more,
    }


def _qwen2(dim: int, ffn: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    base = _llama(dim, ffn, layers, heads, kv_heads, vocabulary)
    return {**base, "model_type": "qwen2", "tie_word_embeddings": tied, "rms_norm_eps": 1e-6}


ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "facebook/opt-350m": _opt(1024, 4096, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "facebook/opt-1.3b": _opt(2048, 8192, 24, 32),
    "meta-llama/Llama-2-7b-hf": _llama(4096, 11008, 32, 32, 32, 32000),
    "meta-llama/Llama-3.1-8B-Instruct": _llama(
        4096, 14336, 32, 32, 8, 128256, rope_parameters=_LLAMA_3_ROPE, max_position_embeddings=131072
    ),
    "Qwen/Qwen2-0.5B-Instruct": _qwen2(896, 4864, 24, 14, 2, 151936, True),
    "Qwen/Qwen2-0.5B": _qwen2(896, 4864, 24, 14, 2, 151936, True),
    "Qwen/Qwen2-1.5B-Instruct": _qwen2(1536, 8960, 28, 12, 2, 151936, True),
    "Qwen/Qwen2-7B-Instruct": _qwen2(3584, 18944, 28, 28, 4, 152064, False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _llama(
        576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True, rope_theta=100000.0, max_position_embeddings=8192
    ),
}
