"""Moshi's layout twice, at about 100 million parameters: lalia's, and transformers' Moshi with the same weights.

Text and 8 codebooks of its own and 8 of the user's, all but the first of each a step late (arXiv:2410.00037 §3.4.4);
a depth Transformer with weights of its own for each codebook.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lalia.checkpoints import moshi
from lalia.layouts import Parallel
from lalia.lm import Depth, Linear, Lookup, SpeechLM
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence

__all__ = [
    "CODEBOOKS",
    "LAYOUT",
    "NO_CODE",
    "NO_WORD",
    "SPECS",
    "lalia_lm",
    "least_bytes",
    "least_work",
    "random_streams",
    "transformers_moshi",
]

_FRAME_RATE = 12.5
CODEBOOKS, CODES, WORDS = 8, 2048, 8000
NO_CODE, NO_WORD = CODES, WORDS
"""The ids that stand in transformers for what is not there."""

SPECS = {
    "text": StreamSpec(kind=Discrete(WORDS, end=0), frame_rate=_FRAME_RATE),
    "moshi": StreamSpec(kind=Discrete(CODES, CODEBOOKS), frame_rate=_FRAME_RATE),
    "user": StreamSpec(kind=Discrete(CODES, CODEBOOKS), frame_rate=_FRAME_RATE),
}

_DIM, _LAYERS, _HEADS, _HIDDEN = 512, 8, 8, 1408
_DEPTH_DIM, _DEPTH_LAYERS, _DEPTH_HEADS, _DEPTH_HIDDEN = 256, 6, 4, 704
LAYOUT = Parallel(("text", "moshi", "user"), delays=(0, *(0, 1, 1, 1, 1, 1, 1, 1) * 2), closed=False)

_PARAMETERS = (
    _LAYERS * (4 * _DIM**2 + 3 * _DIM * _HIDDEN)
    + WORDS * _DIM
    + CODEBOOKS * _DEPTH_LAYERS * (4 * _DEPTH_DIM**2 + 3 * _DEPTH_DIM * _DEPTH_HIDDEN)
    + CODEBOOKS * _DEPTH_DIM * (_DIM + CODES)
)
"""Those that every frame is multiplied with, each once: all but the tables of embeddings."""


def random_streams(rows: int, frames: int, seed: int = 0) -> Streams:
    """Words and codes that mean nothing."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int, codebooks: int) -> TokenSequence:
        values = torch.randint(size, (rows, codebooks, frames), generator=generator)
        return TokenSequence(values, torch.full((rows,), frames))

    return {"text": draw(WORDS, 1), "moshi": draw(CODES, CODEBOOKS), "user": draw(CODES, CODEBOOKS)}


def least_work(frames: int, context: float) -> int:
    """Floating-point operations to run the model forward over ``frames`` that each see ``context`` others."""
    depth = 4 * _DEPTH_LAYERS * _DEPTH_DIM * CODEBOOKS * (CODEBOOKS + 1) // 2
    return int(frames * (2 * _PARAMETERS + 4 * _LAYERS * _DIM * context + depth))


def least_bytes(context: int) -> int:
    """What one step of generation must read in float32: all weights, and the keys and values of all rows."""
    return 4 * (_PARAMETERS + 2 * _LAYERS * _DIM * context)


def lalia_lm() -> SpeechLM:
    """A SpeechLM on Moshi's streams, of weights that were converted from those of transformers."""
    found = moshi.from_transformers(_weights(), _CONFIG)
    backbone, depth = moshi.transformers_configs(_CONFIG)
    config = SpeechLM.Config(
        layout=LAYOUT,
        inputs={name: Lookup() for name in SPECS},
        backbone=backbone,
        heads={"text": Linear.Config(), "moshi": Depth.Config(depth, first="text")},
    )
    lm: SpeechLM = config.build(SPECS)
    text, codes = found.pop("text.embedding"), found.pop("codes.embedding")
    words, own, heard = (lm.tables[name].embedding.weight for name in SPECS)
    with torch.no_grad():
        words.copy_(text[:WORDS])
        for table, of in ((own, codes[:CODEBOOKS]), (heard, codes[CODEBOOKS:])):
            table.unflatten(0, (CODEBOOKS, -1))[:, :CODES].copy_(of[:, :CODES])
        # What enters before the first step: nothing of any stream.
        lm.start.copy_(text[NO_WORD] + codes[0, NO_CODE] + codes[CODEBOOKS, NO_CODE])
        lm.linear("text").weight.copy_(found.pop("text.head"))
        head = lm.head("moshi")
        assert isinstance(head, Depth)
        assert head.first is not None
        head.out[:, :CODES].copy_(found.pop("depth.out"))
        for table, of in ((head.codes, found.pop("depth.codes")), (head.first.weight, found.pop("depth.first"))):
            # lalia has a row for an end, too.
            table[..., : of.shape[-2] - 1, :].copy_(of[..., :-1, :])
            table[..., -1, :].copy_(of[..., -1, :])
    for prefix, part in (("backbone.", lm.backbone), ("depth.network.", head.network)):
        part.load_state_dict({n.removeprefix(prefix): found.pop(n) for n in list(found) if n.startswith(prefix)})
    assert not found, f"lalia has nothing like {', '.join(found)}"
    return lm


def transformers_moshi() -> Any:
    """A MoshiForConditionalGeneration; its audio encoder, which nothing here uses, is as small as can be."""
    from transformers import MimiConfig, MoshiConfig, MoshiForConditionalGeneration

    encoder = MimiConfig(
        num_filters=2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=8,
        codebook_size=CODES,
        codebook_dim=4,
        vector_quantization_hidden_dimension=4,
        num_quantizers=CODEBOOKS,
        num_semantic_quantizers=1,
        upsample_groups=16,
    )
    model = MoshiForConditionalGeneration(MoshiConfig(**_CONFIG, audio_encoder_config=encoder.to_dict())).float()
    missing, unknown = model.load_state_dict(_weights(), strict=False)
    assert not unknown
    assert all(name.startswith("audio_encoder.") for name in missing), missing
    return model


_CONFIG: Mapping[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": _DIM,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "ffn_dim": 2 * _HIDDEN,
    "audio_vocab_size": CODES,
    "num_codebooks": CODEBOOKS,
    "max_position_embeddings": 3000,
    "sliding_window": 3000,
    "rms_norm_eps": 1e-8,
    "pad_token_id": None,
    "depth_decoder_config": {
        "hidden_size": _DEPTH_DIM,
        "num_hidden_layers": _DEPTH_LAYERS,
        "num_attention_heads": _DEPTH_HEADS,
        "num_key_value_heads": _DEPTH_HEADS,
        "ffn_dim": 2 * _DEPTH_HIDDEN,
    },
}
"""The ``config.json`` of transformers."""


def _weights() -> dict[str, Tensor]:
    """The tensors of transformers' form, of their names alone, so that two processes agree without a file."""
    state = {name: _draw(name, shape) for name, shape in _shapes()}
    for k in range(2 * CODEBOOKS):
        if k % CODEBOOKS:
            # transformers adds this to the first frame for each codebook that is late; lalia adds nothing.
            state[f"embed_tokens.{k}.weight"][NO_CODE] = 0.0
    return state


def _draw(name: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * 0.02


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "decoder.model.embed_tokens.weight", (WORDS + 1, _DIM)
    yield "decoder.lm_head.weight", (WORDS, _DIM)
    yield "decoder.model.norm.weight", (_DIM,)
    yield "depth_decoder.text_embed_tokens.weight", (WORDS + 1, _DEPTH_DIM)
    yield "depth_decoder.input_projections.weight", (CODEBOOKS, _DEPTH_DIM, _DIM)
    yield "depth_decoder.lm_heads.weight", (CODEBOOKS, CODES, _DEPTH_DIM)
    for k in range(2 * CODEBOOKS):
        yield f"embed_tokens.{k}.weight", (CODES + 1, _DIM)
    for k in range(CODEBOOKS - 1):
        yield f"depth_decoder.embed_tokens.{k}.weight", (CODES + 1, _DEPTH_DIM)
    stacks = (
        ("decoder.model.layers", _LAYERS, _DIM, _HIDDEN, ()),
        ("depth_decoder.layers", _DEPTH_LAYERS, _DEPTH_DIM, _DEPTH_HIDDEN, (CODEBOOKS,)),
    )
    for name, layers, dim, hidden, each in stacks:
        for i in range(layers):
            for side in "qkvo":
                yield f"{name}.{i}.self_attn.{side}_proj.linear.weight", (*each, dim, dim)
            yield f"{name}.{i}.mlp.fc1.weight", (*each, 2 * hidden, dim)
            yield f"{name}.{i}.mlp.fc2.weight", (*each, dim, hidden)
            yield f"{name}.{i}.input_layernorm.weight", (dim,)
            yield f"{name}.{i}.post_attention_layernorm.weight", (dim,)
