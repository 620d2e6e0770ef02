"""The text language models of ``transformers`` as lalia's own Transformer: pure conversions, dict to dict.

Shapes: V words, D dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lalia.errors import WeightsError
from lalia.nn.positions import RopeScaling
from lalia.nn.transformer import Transformer

__all__ = ["backbone_config", "deinterleave", "first_layers", "layers", "tensors"]

Config = Mapping[str, Any]
"""The ``config.json`` of a model, or ``to_dict()`` of its configuration, which has the defaults too."""


@dataclass(frozen=True)
class _Names:
    """Where a family keeps what; names of a layer come after ``layer``, with their number in between.

    ``qkv`` and ``up`` are one name where upstream keeps several matrices side by side.
    """

    embedding: str = "model.embed_tokens"
    positions: str | None = None
    norm: str = "model.norm"
    layer: str = "model.layers"
    attention_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    feed_forward_norm: str = "post_attention_layernorm"
    up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    head: str = "lm_head"


_LLAMA = _Names()
_OPT = _Names(
    embedding="model.decoder.embed_tokens",
    positions="model.decoder.embed_positions",
    norm="model.decoder.final_layer_norm",
    layer="model.decoder.layers",
    attention_norm="self_attn_layer_norm",
    out="self_attn.out_proj",
    feed_forward_norm="final_layer_norm",
    up=("fc1",),
    down="fc2",
)
_GPT2 = _Names(
    embedding="transformer.wte",
    positions="transformer.wpe",
    norm="transformer.ln_f",
    layer="transformer.h",
    attention_norm="ln_1",
    qkv=("attn.c_attn",),
    out="attn.c_proj",
    feed_forward_norm="ln_2",
    up=("mlp.c_fc",),
    down="mlp.c_proj",
)
_MOSHI = _Names(
    qkv=("self_attn.q_proj.linear", "self_attn.k_proj.linear", "self_attn.v_proj.linear"),
    out="self_attn.o_proj.linear",
    up=("mlp.fc1",),
    down="mlp.fc2",
)

_NAMES = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma", "helium"), _LLAMA),
    "opt": _OPT,
    "gpt2": _GPT2,
    "moshi": _MOSHI,
}
_SIZES = {"gpt2": "n_layer"}
"""What a family calls the number of its layers, where that is not ``num_hidden_layers``."""
_OPT_OFFSET = 2
"""The first rows of OPT's positions are those of padding, as in fairseq."""

_GATED: Mapping[str, Literal["swiglu", "geglu"]] = {
    "silu": "swiglu",
    "gelu_pytorch_tanh": "geglu",
    "gelu_new": "geglu",
}
_PLAIN: Mapping[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""What older versions of transformers saved beside the weights."""


def backbone_config(config: Config) -> Transformer.Config | None:
    """The Transformer that computes what the model of a configuration does; None where there is none."""
    match config.get("model_type"):
        case "llama" | "qwen2" | "qwen3" | "mistral" | "gemma" | "helium" | "moshi":
            return _llama(config)
        case "opt":
            return _opt(config)
        case "gpt2":
            return _gpt2(config)
        case _:
            return None


def _llama(config: Config) -> Transformer.Config | None:
    kind, heads, dim = config["model_type"], config["num_attention_heads"], config["hidden_size"]
    activation = _GATED.get(config.get("hidden_act", "silu"))
    if kind == "gemma" and config.get("hidden_act") == "gelu":
        # The first release said so, and meant the approximation by tanh.
        activation = "geglu"
    layers = set(config.get("layer_types") or ())
    # Moshi's attention never looks further back than its context (Kyutai's ``context``).
    windowed = kind in ("mistral", "moshi") or layers == {"sliding_attention"}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    bias, scaling = bool(config.get("attention_bias")), _rope_scaling(rope)
    if (
        activation is None
        or len(layers) > 1
        or scaling is False
        or rope.get("partial_rotary_factor", 1.0) != 1.0
        or bias != bool(config.get("mlp_bias"))
        or (bias and kind != "llama")
        or config.get("use_bidirectional_attention")
    ):
        return None
    return Transformer.Config(
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        dim=dim,
        ffn_dim=config["ffn_dim"] // 2 if kind == "moshi" else config["intermediate_size"],
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or dim // heads,
        context=config["max_position_embeddings"],
        window=config.get("sliding_window") if windowed else None,
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        rope_scaling=scaling or None,
        norm_eps=config.get("rms_norm_eps", 1e-6),
        activation=activation,
        bias=bias,
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
        attention_dropout=config.get("attention_dropout") or 0.0,
    )


def _rope_scaling(rope: Config) -> RopeScaling | Literal[False] | None:
    """How RoPE is stretched; False where it is so in a way that the Transformer has not."""
    match rope.get("rope_type") or rope.get("type") or "default":
        case "default":
            return None
        case "llama3":
            return RopeScaling(
                factor=float(rope["factor"]),
                low_freq_factor=float(rope["low_freq_factor"]),
                high_freq_factor=float(rope["high_freq_factor"]),
                original_context=rope["original_max_position_embeddings"],
            )
        case _:
            return False


def _opt(config: Config) -> Transformer.Config | None:
    activation, dim = _PLAIN.get(config.get("activation_function", "relu")), config["hidden_size"]
    ordinary = (
        config.get("do_layer_norm_before", True)
        and not config.get("_remove_final_layer_norm")
        and config.get("enable_bias", True)
        and config.get("layer_norm_elementwise_affine", True)
        and (config.get("word_embed_proj_dim") or dim) == dim
    )
    if activation is None or not ordinary:
        return None
    return Transformer.Config(
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        dim=dim,
        ffn_dim=config["ffn_dim"],
        context=config["max_position_embeddings"],
        positions="learned",
        norm="layer",
        activation=activation,
        bias=True,
        dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout") or 0.0,
    )


def _gpt2(config: Config) -> Transformer.Config | None:
    activation = _PLAIN.get(config.get("activation_function", "gelu_new"))
    if (
        activation is None
        or config.get("scale_attn_by_inverse_layer_idx")
        or not config.get("scale_attn_weights", True)
    ):
        return None
    return Transformer.Config(
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        dim=config["n_embd"],
        ffn_dim=config.get("n_inner") or 4 * config["n_embd"],
        context=config["n_positions"],
        positions="learned",
        norm="layer",
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        activation=activation,
        bias=True,
        dropout=config.get("resid_pdrop", 0.1),
        attention_dropout=config.get("attn_pdrop", 0.1),
    )


def tensors(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The weights of a causal LM of ``transformers`` under lalia's names.

    :param state: its state dict.
    :returns: ``backbone.*``, what ``backbone_config(config).build()`` loads; ``embedding`` [V, D], as it enters the
        first layer; ``head`` [V, D] where the output is not the embedding.
    :raises WeightsError: the model is none that the Transformer can express, or a tensor is missing or unknown.
    """
    at = _Conversion(state, config)
    kind, names = at.kind, at.names
    for i in range(at.shape.num_layers):
        at.layer(f"{names.layer}.{i}", f"backbone.layers.{i}")
    at.norm(names.norm, "backbone.norm")
    if names.positions is not None:
        rows = at.take(f"{names.positions}.weight")
        at.out["backbone.position_embedding.weight"] = rows[_OPT_OFFSET:].clone() if kind == "opt" else rows
    embedding = at.take(f"{names.embedding}.weight")
    head = at.left.pop(f"{names.head}.weight", embedding)
    at.out["embedding"] = embedding * at.shape.dim**0.5 if kind == "gemma" else embedding
    if kind == "gemma" or not config.get("tie_word_embeddings", kind in ("opt", "gpt2")):
        # Gemma scales its embedding where it enters, and not where it predicts.
        at.out["head"] = head
    return at.finish()


def first_layers(state: Mapping[str, Tensor], config: Config, count: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A text LM without the layers behind its first ones.

    :param state: its state dict.
    :returns: the state dict and the configuration of what remains.
    :raises WeightsError: it has not so many.
    """
    size = _SIZES.get(str(config.get("model_type")), "num_hidden_layers")
    there = config[size]
    if not 1 <= count <= there:
        raise WeightsError(f"A text LM of {there} layers has no first {count}. Take 1 to {there}.")
    prefix = _NAMES[config["model_type"]].layer + "."
    kept = {
        name: state[name]
        for name in state
        if not name.startswith(prefix) or int(name.removeprefix(prefix).split(".")[0]) < count
    }
    facts = {**config, size: count}
    if config.get("layer_types"):
        facts["layer_types"] = list(config["layer_types"])[:count]
    return kept, facts


def layers(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The weights of the layers of a text LM, where they are built into another model.

    :param state: of a list of its layers: ``0.self_attn.q_proj.weight``, ...
    :param config: with the sizes of the layers.
    :returns: ``layers.*`` of ``backbone_config(config)``.
    :raises WeightsError: see ``tensors``.
    """
    at = _Conversion(state, config)
    for i in range(at.shape.num_layers):
        at.layer(str(i), f"layers.{i}")
    return at.finish()


class _Conversion:
    """From a state dict, of which ``left`` is what nobody has taken yet, to ``out``."""

    def __init__(self, state: Mapping[str, Tensor], config: Config) -> None:
        shape = backbone_config(config)
        if shape is None:
            raise WeightsError(
                f"A text LM of model_type {config.get('model_type')!r} with these settings is not one that lalia's "
                f"Transformer can be. Give one of {', '.join(_NAMES)}, or use it through transformers (native=False)."
            )
        self.shape, self.kind = shape, str(config["model_type"])
        self.names = _NAMES[self.kind]
        self.left = {name: t for name, t in state.items() if not name.endswith(_BUFFERS)}
        self.out: dict[str, Tensor] = {}

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise WeightsError(f"The weights of a {self.kind} model have no {name!r}. Give a causal LM of that kind.")
        return self.left.pop(name)

    def norm(self, source: str, target: str) -> None:
        weight = self.take(f"{source}.weight")
        # Gemma's norms multiply by 1 + weight.
        self.out[f"{target}.weight"] = weight + 1 if self.kind == "gemma" else weight
        if self.shape.norm == "layer":
            self.out[f"{target}.bias"] = self.take(f"{source}.bias")

    def linear(self, sources: list[str], target: str, *, bias: bool) -> None:
        weights = [self.take(f"{source}.weight") for source in sources]
        if self.kind == "gpt2":
            weights = [w.T for w in weights]
        if self.kind == "helium" and target.endswith("qkv"):
            weights[:2] = [deinterleave(w, self.shape.size_of_head) for w in weights[:2]]
        self.out[f"{target}.weight"] = torch.cat(weights).contiguous() if len(weights) > 1 else weights[0].contiguous()
        if bias:
            self.out[f"{target}.bias"] = torch.cat([self.take(f"{source}.bias") for source in sources])

    def layer(self, source: str, target: str) -> None:
        names, shape = self.names, self.shape
        self.norm(f"{source}.{names.attention_norm}", f"{target}.attention_norm")
        qkv = [f"{source}.{name}" for name in names.qkv]
        self.linear(qkv, f"{target}.attention.qkv", bias=shape.bias or shape.qkv_bias)
        if shape.qk_norm:
            for side in ("q_norm", "k_norm"):
                self.out[f"{target}.attention.{side}.weight"] = self.take(f"{source}.self_attn.{side}.weight")
        self.linear([f"{source}.{names.out}"], f"{target}.attention.out", bias=shape.bias)
        self.norm(f"{source}.{names.feed_forward_norm}", f"{target}.feed_forward_norm")
        self.linear([f"{source}.{name}" for name in names.up], f"{target}.feed_forward.up", bias=shape.bias)
        self.linear([f"{source}.{names.down}"], f"{target}.feed_forward.down", bias=shape.bias)

    def finish(self) -> dict[str, Tensor]:
        if self.left:
            raise WeightsError(
                f"The weights of a {self.kind} model have {min(self.left)!r}, which lalia does not know. "
                "Give a plain causal LM."
            )
        return self.out


def deinterleave(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of queries or keys [H x D_head, ...] for RoPE on halves, from those for RoPE on neighbouring pairs.

    RoPE turns pairs of numbers; whether these are neighbours (Moshi, Helium) or half a head apart (Llama) is
    the order of the rows alone, as queries and keys change together.

    :raises WeightsError: the rows are not those of whole heads.
    """
    if len(weight) % head_dim:
        raise WeightsError(
            f"Queries of {len(weight)} rows are no heads of {head_dim}. Give the config.json of the weights."
        )
    order = torch.cat([torch.arange(0, head_dim, 2), torch.arange(1, head_dim, 2)])
    return weight.unflatten(0, (-1, head_dim))[:, order].flatten(0, 1)
