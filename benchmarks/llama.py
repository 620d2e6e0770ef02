"""One language model twice: lalia's, and transformers' Llama with the same weights.

Both have 500 units and one more id, which closes a sequence and, in Llama, also opens it.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.layouts import Flat
from lalia.lm import Linear, Lookup, SpeechLM, Transformer
from lalia.streams import Discrete, StreamSpec, TokenSequence

__all__ = [
    "END",
    "UNITS",
    "check_of_lalia",
    "check_of_llama",
    "lalia_lm",
    "least_bytes",
    "least_work",
    "llama",
    "random_units",
]

UNITS = 500
END = 500
_LAYERS, _HEADS, _DIM, _HIDDEN = 8, 6, 384, 1024
_PARAMETERS = _LAYERS * (4 * _DIM**2 + 3 * _DIM * _HIDDEN) + (UNITS + 1) * _DIM
"""Those that every token is multiplied with."""


def random_units(*shape: int, seed: int = 0) -> Tensor:
    """Units that mean nothing."""
    return torch.randint(UNITS, shape, generator=torch.Generator().manual_seed(seed))


def lalia_lm() -> SpeechLM:
    """A SpeechLM on one flat stream of units."""
    config = SpeechLM.Config(
        layout=Flat("units"),
        inputs={"units": Lookup()},
        backbone=Transformer.Config(num_layers=_LAYERS, num_heads=_HEADS, dim=_DIM, ffn_dim=_HIDDEN),
        heads={"units": Linear.Config()},
    )
    lm: SpeechLM = config.build({"units": StreamSpec(kind=Discrete(UNITS), frame_rate=None)})
    with torch.no_grad():
        for name, views in _views(lm):
            drawn = _draw(name, (sum(len(v) for v in views), *views[0].shape[1:]))
            for view, part in zip(views, drawn.split([len(v) for v in views]), strict=True):
                view.copy_(part)
    return lm


def llama() -> Any:
    """A LlamaForCausalLM of the same shape, with the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=UNITS + 1,
        hidden_size=_DIM,
        intermediate_size=_HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=3072,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=END,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(_draw(name, tuple(p.shape)))
    return model


def _draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value of a parameter: of its name alone, so that two processes agree without a file between them."""
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * 0.02


def _views(lm: SpeechLM) -> Iterator[tuple[str, list[Tensor]]]:
    """For each parameter of Llama, the rows of lalia's that are to be the same."""
    own = dict(lm.named_parameters())
    (table,) = (own.pop(n) for n in list(own) if n.startswith("tables."))
    yield "model.embed_tokens.weight", [table[:UNITS], own.pop("start")[None]]
    yield "lm_head.weight", [own.pop("heads.units.weight")]
    yield "model.norm.weight", [own.pop("backbone.norm.weight")]
    for i in range(_LAYERS):
        here, there = f"backbone.layers.{i}", f"model.layers.{i}"
        qkv = own.pop(f"{here}.attention.qkv.weight").split(_DIM)
        for part, view in zip("qkv", qkv, strict=True):
            yield f"{there}.self_attn.{part}_proj.weight", [view]
        yield f"{there}.self_attn.o_proj.weight", [own.pop(f"{here}.attention.out.weight")]
        gate, up = own.pop(f"{here}.feed_forward.up.weight").split(_HIDDEN)
        yield f"{there}.mlp.gate_proj.weight", [gate]
        yield f"{there}.mlp.up_proj.weight", [up]
        yield f"{there}.mlp.down_proj.weight", [own.pop(f"{here}.feed_forward.down.weight")]
        yield f"{there}.input_layernorm.weight", [own.pop(f"{here}.attention_norm.weight")]
        yield f"{there}.post_attention_layernorm.weight", [own.pop(f"{here}.feed_forward_norm.weight")]
    assert not own, f"Llama has nothing like {', '.join(own)}"


def check_of_lalia(lm: SpeechLM) -> float:
    """The mean loss on some units, which both models must agree on."""
    units = random_units(2, 1, 64, seed=1)
    with torch.no_grad():
        return float(lm.loss(lm.pack({"units": TokenSequence(units, torch.tensor([64, 64]))}))["total"])


def check_of_llama(model: Any) -> float:
    """The same number from Llama."""
    units = F.pad(random_units(2, 1, 64, seed=1)[:, 0], (1, 1), value=END)
    targets = units[:, 1:].contiguous()
    with torch.no_grad():
        return float(model(input_ids=units[:, :-1], shift_labels=targets, labels=targets).loss)


def least_work(tokens: int, context: float) -> int:
    """Floating-point operations to run the model forward over ``tokens`` that each see ``context`` others."""
    return int(tokens * (2 * _PARAMETERS + 4 * _LAYERS * _DIM * context))


def least_bytes(context: int) -> int:
    """What one step of generation must read in float32: all weights, and the keys and values of all rows."""
    return 4 * (_PARAMETERS + 2 * _LAYERS * _DIM * context)
