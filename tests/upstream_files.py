"""Files as upstream writes them: Kyutai's names for the weights of transformers, and models of SentencePiece."""

import struct
from collections.abc import Mapping

import torch
from torch import Tensor

UNKNOWN, CONTROL, BYTE = 2, 3, 6

WORDS: Mapping[str, float] = {
    "▁": -4.0,
    "▁hel": -3.0,
    "lo": -3.5,
    "▁hello": -5.0,
    "▁world": -5.5,
    "s": -5.0,
    "h": -9.0,
    "e": -8.0,
    "l": -8.5,
    "o": -8.1,
    "w": -9.5,
    "r": -8.8,
    "d": -8.7,
    ",": -6.0,
    "</": -7.0,
    ">": -7.5,
    **dict.fromkeys("<0x41", -9.9),
}


def number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def field(at: int, value: float | bytes) -> bytes:
    match value:
        case int():
            return number(at << 3) + number(value)
        case float():
            return number(at << 3 | 5) + struct.pack("<f", value)
        case bytes():
            return number(at << 3 | 2) + number(len(value)) + value


def sentencepiece_model(
    words: Mapping[str, float] = WORDS, *, kind: int = 1, prefix: int = 1, thin: int = 0, byte_fallback: int = 1
) -> bytes:
    """A model as Kyutai's: ``<unk>``, ``<s>``, ``</s>``, ``<pad>``, 256 bytes, then words with their scores."""
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<pad>", 0.0, CONTROL)]
    pieces += [(f"<0x{i:02X}>", 0.0, BYTE) for i in range(256)] if byte_fallback else []
    pieces += [(word, score, 1) for word, score in words.items()]
    out = b"".join(
        field(1, field(1, text.encode()) + field(2, score) + (field(3, type_) if type_ != 1 else b""))
        for text, score, type_ in pieces
    )
    out += field(2, field(3, kind) + field(4, len(pieces)) + field(35, byte_fallback))
    return out + field(3, field(1, b"identity") + field(3, prefix) + field(4, thin))


def interleave(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys for RoPE on neighbouring pairs, from those for RoPE on halves."""
    halves = weight.view(heads, 2, len(weight) // heads // 2, -1)
    return halves.transpose(1, 2).reshape(weight.shape)


def moshi_as_kyutai(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """A ``MoshiForConditionalGeneration`` without its Mimi, as Kyutai's ``LMModel``."""
    books = sum(name.startswith("embed_tokens.") for name in state)
    depth = len(state["depth_decoder.lm_heads.weight"])
    out = {
        "text_emb.weight": state["decoder.model.embed_tokens.weight"],
        "text_linear.weight": state["decoder.lm_head.weight"],
        "out_norm.alpha": state["decoder.model.norm.weight"][None, None],
        "depformer_text_emb.weight": state["depth_decoder.text_embed_tokens.weight"],
    }
    out |= {f"emb.{i}.weight": state[f"embed_tokens.{i}.weight"] for i in range(books)}
    out |= {f"depformer_emb.{i}.weight": state[f"depth_decoder.embed_tokens.{i}.weight"] for i in range(depth - 1)}
    for k in range(depth):
        out[f"depformer_in.{k}.weight"] = state["depth_decoder.input_projections.weight"][k]
        out[f"linears.{k}.weight"] = state["depth_decoder.lm_heads.weight"][k]
    for name in [n for n in state if n.endswith("input_layernorm.weight") and not n.startswith("audio_encoder.")]:
        source = name.removesuffix(".input_layernorm.weight")
        number = source.split(".")[-1]
        q, k, v, o = (state[f"{source}.self_attn.{side}_proj.linear.weight"] for side in "qkvo")
        if source.startswith("decoder."):
            target = f"transformer.layers.{number}"
            out[f"{target}.self_attn.in_proj_weight"] = torch.cat([interleave(q, heads), interleave(k, heads), v])
            out[f"{target}.gating.linear_in.weight"] = state[f"{source}.mlp.fc1.weight"]
            out[f"{target}.gating.linear_out.weight"] = state[f"{source}.mlp.fc2.weight"]
        else:
            target = f"depformer.layers.{number}"
            out[f"{target}.self_attn.in_proj_weight"] = torch.cat([q, k, v], dim=1).flatten(0, 1)
            for step in range(depth):
                out[f"{target}.gating.{step}.linear_in.weight"] = state[f"{source}.mlp.fc1.weight"][step]
                out[f"{target}.gating.{step}.linear_out.weight"] = state[f"{source}.mlp.fc2.weight"][step]
        out[f"{target}.self_attn.out_proj.weight"] = o.flatten(0, -2)
        out[f"{target}.norm1.alpha"] = state[f"{source}.input_layernorm.weight"][None, None]
        out[f"{target}.norm2.alpha"] = state[f"{source}.post_attention_layernorm.weight"][None, None]
    return out


_MIMI = {
    "encoder.encoder_seanet.layers.": "encoder.model.",
    "decoder.decoder_seanet.layers.": "decoder.model.",
    "encoder.encoder_transformer.layers.": "encoder_transformer.transformer.layers.",
    "decoder.decoder_transformer.layers.": "decoder_transformer.transformer.layers.",
    "encoder.downsample.conv.": "downsample.conv.conv.conv.",
    "decoder.upsample.conv.": "upsample.convtr.convtr.convtr.",
    "quantizer.semantic_residual_vector_quantizer.": "quantizer.rvq_first.",
    "quantizer.acoustic_residual_vector_quantizer.": "quantizer.rvq_rest.",
}
_MIMI_LAYER = {
    "self_attn.o_proj.weight": "self_attn.out_proj.weight",
    "mlp.fc1.weight": "linear1.weight",
    "mlp.fc2.weight": "linear2.weight",
    "input_layernorm.weight": "norm1.weight",
    "input_layernorm.bias": "norm1.bias",
    "post_attention_layernorm.weight": "norm2.weight",
    "post_attention_layernorm.bias": "norm2.bias",
    "self_attn_layer_scale.scale": "layer_scale_1.scale",
    "mlp_layer_scale.scale": "layer_scale_2.scale",
}


def mimi_as_kyutai(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """A ``MimiModel`` (transformers 5), as Kyutai's."""
    out = {}
    for name, tensor in state.items():
        old, new = next((o, n) for o, n in _MIMI.items() if name.startswith(o))
        tail = name.removeprefix(old)
        if "seanet" in old:
            index, rest = tail.split(".", 1)
            every = {int(n.removeprefix(old).split(".")[0]) for n in state if n.startswith(old)}
            # Convolutions of the decoder that are neither the first, the last nor in a block make more frames of few.
            transposed = (
                new.startswith("decoder") and "block" not in rest and int(index) not in (min(every), max(every))
            )
            out[new + index + "." + rest.replace("conv.", "convtr.convtr." if transposed else "conv.conv.")] = tensor
        elif "transformer" in old:
            number, rest = tail.split(".", 1)
            layer = f"{new}{number}."
            if rest in _MIMI_LAYER:
                out[layer + _MIMI_LAYER[rest]] = tensor
            elif rest == "self_attn.q_proj.weight":
                k, v = (state[name.replace("q_proj", f"{side}_proj")] for side in "kv")
                turned = [interleave(tensor, heads), interleave(k, heads)]
                out[f"{layer}self_attn.in_proj_weight"] = torch.cat([*turned, v])
        elif "quantizer" in old:
            tail = tail.replace("layers.", "vq.layers.").replace(".codebook.", "._codebook.")
            out[new + tail.replace("embed_sum", "embedding_sum").replace(".initialized", "._initialized")] = tensor
        else:
            out[new + tail] = tensor
    return out
