"""Moshi's weights (arXiv:2410.00037) for lalia's networks: pure conversions, dict to dict.

Both forms are read, that of ``transformers`` (``MoshiForConditionalGeneration``) and Kyutai's own
(``moshiko-pytorch-bf16``). The results have the same names, with V words or codes, D and E the dims of the two
Transformers, K codebooks of Moshi's own speech, and N streams of codes, its own before the user's:

- ``backbone.*``: Helium, for ``Transformer``;
- ``text.embedding`` [V + 1, D], ``text.head`` [V, D];
- ``codes.embedding`` [N, V + 1, D]; the last row of each table is that of no code yet;
- ``depth.network.*``, for ``DepthTransformer``;
- ``depth.first`` [V + 1, E]: the text token, ``depth.codes`` [K - 1, V + 1, E], ``depth.out`` [K, V, E].
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lalia.checkpoints import text_lms
from lalia.errors import WeightsError
from lalia.nn.depth import DepthTransformer
from lalia.nn.transformer import Transformer

__all__ = ["KYUTAI_7B", "from_kyutai", "from_transformers", "kyutai_configs", "transformers_configs"]

Configs = tuple[Transformer.Config, DepthTransformer.Config]

KYUTAI_7B: Mapping[str, Any] = {
    # What Kyutai's code assumes of a repository without a config.json (moshi/models/loaders.py).
    "dim": 4096,
    "num_heads": 32,
    "num_layers": 32,
    "hidden_scale": 4.125,
    "context": 3000,
    "max_period": 10000,
    "n_q": 16,
    "card": 2048,
    "text_card": 32000,
    "existing_text_padding_id": 3,
    "delays": (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1),
    "dep_q": 8,
    "depformer_dim": 1024,
    "depformer_dim_feedforward": 4224,
    "depformer_num_heads": 16,
    "depformer_num_layers": 6,
}


class _Left:
    """The tensors of a state dict that nobody has taken yet."""

    def __init__(self, state: Mapping[str, Tensor], ignore: str) -> None:
        self._left = {name: t for name, t in state.items() if not name.startswith(ignore)}

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, *names: str) -> Tensor:
        """The tensor by the first of the names that is there."""
        for name in names:
            if name in self._left:
                return self._left.pop(name)
        raise WeightsError(f"The weights of Moshi have no {names[0]!r}. Give a whole checkpoint of Moshi.")

    def stack(self, pattern: str) -> Tensor:
        """The tensors of a numbered name, ``{}`` for the number, side by side."""
        return torch.stack([self.take(name) for name in self._numbered(pattern)])

    def _numbered(self, pattern: str) -> list[str]:
        form = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
        count = sum(form.fullmatch(name) is not None for name in self._left)
        return [pattern.format(i) for i in range(max(count, 1))]

    def starting(self, prefix: str) -> dict[str, Tensor]:
        """All that begin with a prefix, without it."""
        names = [name for name in self._left if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._left.pop(name) for name in names}

    def finish(self) -> None:
        if self._left:
            raise WeightsError(
                f"The weights of Moshi have {min(self._left)!r}, which lalia does not know. Update lalia."
            )


def transformers_configs(config: Mapping[str, Any]) -> Configs:
    """The shapes of both networks, from the ``config.json`` of ``MoshiForConditionalGeneration``."""
    backbone, depth = text_lms.backbone_config({**config, "model_type": "moshi"}), config["depth_decoder_config"]
    if backbone is None or (depth.get("num_key_value_heads") or 0) not in (0, depth["num_attention_heads"]):
        raise WeightsError("This configuration is not one of Moshi's. Give that of a MoshiForConditionalGeneration.")
    return backbone, DepthTransformer.Config(
        num_layers=depth["num_hidden_layers"],
        num_heads=depth["num_attention_heads"],
        dim=depth["hidden_size"],
        ffn_dim=depth["ffn_dim"] // 2,
        norm_eps=depth.get("rms_norm_eps", 1e-8),
    )


def from_transformers(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a ``MoshiForConditionalGeneration``; those of its audio encoder are left out.

    :param config: its ``config.json``.
    :raises WeightsError: a tensor is missing or unknown.
    """
    _, depth = transformers_configs(config)
    left = _Left(state, ignore="audio_encoder.")
    text = text_lms.tensors(left.starting("decoder."), {**config, "model_type": "moshi"})
    out = {name: t for name, t in text.items() if name.startswith("backbone.")}
    out |= {"text.embedding": text["embedding"], "text.head": text["head"]}
    out["codes.embedding"] = left.stack("embed_tokens.{}.weight")
    out["depth.first"] = left.take("depth_decoder.text_embed_tokens.weight")
    out["depth.codes"] = left.stack("depth_decoder.embed_tokens.{}.weight")
    out["depth.out"] = left.take("depth_decoder.lm_heads.weight")
    out["depth.network.input.weight"] = left.take("depth_decoder.input_projections.weight")
    for i in range(depth.num_layers):
        source, target = f"depth_decoder.layers.{i}", f"depth.network.layers.{i}"
        qkv = [left.take(f"{source}.self_attn.{side}_proj.linear.weight") for side in "qkv"]
        out[f"{target}.qkv.weight"] = torch.cat(qkv, dim=1)
        out[f"{target}.out.weight"] = left.take(f"{source}.self_attn.o_proj.linear.weight")
        out[f"{target}.up.weight"] = left.take(f"{source}.mlp.fc1.weight")
        out[f"{target}.down.weight"] = left.take(f"{source}.mlp.fc2.weight")
        out[f"{target}.attention_norm.weight"] = left.take(f"{source}.input_layernorm.weight")
        out[f"{target}.feed_forward_norm.weight"] = left.take(f"{source}.post_attention_layernorm.weight")
    left.finish()
    return out


def kyutai_configs(config: Mapping[str, Any] | None = None) -> Configs:
    """The shapes of both networks, from the ``config.json`` of a repository of Kyutai; Moshi 7B without one."""
    known = {**KYUTAI_7B, **(config or {})}
    schedule = known.get("depformer_weights_per_step_schedule")
    depth = DepthTransformer.Config(
        num_layers=known["depformer_num_layers"],
        num_heads=known["depformer_num_heads"],
        dim=known["depformer_dim"],
        ffn_dim=_gated(known["depformer_dim"], known["depformer_dim_feedforward"]),
        schedule=None if schedule is None else tuple(schedule),
    )
    backbone = Transformer.Config(
        num_layers=known["num_layers"],
        num_heads=known["num_heads"],
        dim=known["dim"],
        ffn_dim=_gated(known["dim"], int(known["hidden_scale"] * known["dim"])),
        context=known["context"],
        window=known["context"],
        rope_theta=float(known["max_period"]),
        norm_eps=1e-8,
    )
    return backbone, depth


def _gated(dim: int, feed_forward: int) -> int:
    """Kyutai's hidden size of a gated network that is to have the parameters of a plain one."""
    return 21 * dim // 8 if feed_forward == 4 * dim else 2 * feed_forward // 3


def from_kyutai(state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The weights of Kyutai's ``LMModel``, such as ``model.safetensors`` of ``kyutai/moshiko-pytorch-bf16``.

    :param config: the repository's ``config.json``; Moshi 7B without one.
    :raises WeightsError: a tensor is missing or unknown.
    """
    backbone, depth = kyutai_configs(config)
    left = _Left(state, ignore="condition_provider.")
    out = {
        "text.embedding": left.take("text_emb.weight"),
        "text.head": left.take("text_linear.weight"),
        "codes.embedding": left.stack("emb.{}.weight"),
        "backbone.norm.weight": left.take("out_norm.alpha").flatten(),
        "depth.first": left.take("depformer_text_emb.weight"),
        "depth.codes": left.stack("depformer_emb.{}.weight"),
        "depth.out": left.stack("linears.{}.weight"),
        "depth.network.input.weight": left.stack("depformer_in.{}.weight"),
    }

    def projection(source: str, side: str, num_weights: int) -> Tensor:
        """A projection of attention [W, D_out, D_in], of all steps under one name, or each under its own."""
        for name in (f"{source}.{side}_proj_weight", f"{source}.{side}_proj.weight"):
            if left.has(name):
                return left.take(name).unflatten(0, (num_weights, -1))
        return left.stack(f"{source}.{side}_projs.{{}}.weight")

    for i in range(backbone.num_layers):
        source, target = f"transformer.layers.{i}", f"backbone.layers.{i}"
        q, k, v = projection(f"{source}.self_attn", "in", 1)[0].chunk(3)
        # Kyutai turns neighbouring pairs.
        turned = [text_lms.deinterleave(x, backbone.size_of_head) for x in (q, k)]
        out[f"{target}.attention.qkv.weight"] = torch.cat([*turned, v])
        out[f"{target}.attention.out.weight"] = projection(f"{source}.self_attn", "out", 1)[0]
        out[f"{target}.feed_forward.up.weight"] = left.take(f"{source}.gating.linear_in.weight")
        out[f"{target}.feed_forward.down.weight"] = left.take(f"{source}.gating.linear_out.weight")
        out[f"{target}.attention_norm.weight"] = left.take(f"{source}.norm1.alpha").flatten()
        out[f"{target}.feed_forward_norm.weight"] = left.take(f"{source}.norm2.alpha").flatten()
    num_weights = len(out["depth.network.input.weight"])
    for i in range(depth.num_layers):
        source, target = f"depformer.layers.{i}", f"depth.network.layers.{i}"
        out[f"{target}.qkv.weight"] = projection(f"{source}.self_attn", "in", num_weights)
        out[f"{target}.out.weight"] = projection(f"{source}.self_attn", "out", num_weights)
        out[f"{target}.up.weight"] = left.stack(f"{source}.gating.{{}}.linear_in.weight")
        out[f"{target}.down.weight"] = left.stack(f"{source}.gating.{{}}.linear_out.weight")
        out[f"{target}.attention_norm.weight"] = left.take(f"{source}.norm1.alpha").flatten()
        out[f"{target}.feed_forward_norm.weight"] = left.take(f"{source}.norm2.alpha").flatten()
    left.finish()
    return out
