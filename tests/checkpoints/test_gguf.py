"""GGUF: every kind of block beside a loop over its bits, and a whole small Llama beside transformers."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lalia.checkpoints import gguf
from lalia.checkpoints.convert import convert
from lalia.errors import WeightsError

SCALARS = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def fact(value: Any) -> bytes:
    """The type of a value, and the value."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, Sequence):
        kind = fact(value[0])[:4]
        return struct.pack("<I", 9) + kind + struct.pack("<Q", len(value)) + b"".join(fact(v)[4:] for v in value)
    kind, form = SCALARS[type(value)]
    return struct.pack("<I", kind) + struct.pack(form, value)


def write(path: Path, facts: Mapping[str, Any], tensors: Mapping[str, tuple[Sequence[int], int, bytes]]) -> Path:
    """A file of tensors given as (shape, kind, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    head += b"".join(text(name) + fact(value) for name, value in facts.items())
    data = b""
    for name, (shape, kind, raw) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def half(raw: bytes) -> float:
    return float(np.frombuffer(raw, np.float16)[0])


def q4_0(b: bytes) -> list[float]:
    return [half(b[:2]) * (((b[2 + i % 16] >> (4 * (i // 16))) & 15) - 8) for i in range(32)]


def q4_1(b: bytes) -> list[float]:
    return [half(b[:2]) * ((b[4 + i % 16] >> (4 * (i // 16))) & 15) + half(b[2:4]) for i in range(32)]


def q8_0(b: bytes) -> list[float]:
    return [half(b[:2]) * struct.unpack("<b", b[2 + i : 3 + i])[0] for i in range(32)]


def q6_k(b: bytes) -> list[float]:
    low, high, scales = b[:128], b[128:192], struct.unpack("<16b", b[192:208])
    out = [0.0] * 256
    for part in range(2):
        for i in range(32):
            for quarter in range(4):
                four = low[64 * part + 32 * (quarter % 2) + i] >> (4 * (quarter // 2)) & 15
                two = high[32 * part + i] >> (2 * quarter) & 3
                at = 128 * part + 32 * quarter + i
                out[at] = half(b[208:210]) * scales[at // 16] * ((four | two << 4) - 32)
    return out


@pytest.mark.parametrize(("kind", "size", "read"), [(2, 18, q4_0), (3, 20, q4_1), (8, 34, q8_0), (14, 210, q6_k)])
def test_blocks(kind: int, size: int, read: Any, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    raw = bytearray(chance.integers(0, 256, 6 * size, dtype=np.uint8).tobytes())
    for block in range(6):
        # Scales that are numbers, wherever they stand.
        at = block * size + (208 if kind == 14 else 0)
        raw[at : at + (4 if kind == 3 else 2)] = (
            chance.standard_normal(2 if kind == 3 else 1).astype(np.float16).tobytes()
        )
    wanted = [v for i in range(6) for v in read(bytes(raw[i * size : (i + 1) * size]))]
    path = write(tmp_path / "x.gguf", {"a": 1}, {"t": ((3, len(wanted) // 3), kind, bytes(raw))})
    np.testing.assert_allclose(gguf.read(path).tensors["t"], np.reshape(wanted, (3, -1)), rtol=1e-6)


def test_plain_numbers_and_facts(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    bf16 = (x.view(np.uint32) >> 16).astype(np.uint16)
    facts = {"name": "a \u00e9", "count": 7, "rate": 0.5, "yes": True, "list": ["b", "c"], "numbers": [1, 2]}
    tensors = {
        "f32": ((3, 5), 0, x.tobytes()),
        "f16": ((3, 5), 1, x.astype(np.float16).tobytes()),
        "bf16": ((3, 5), 30, bf16.tobytes()),
    }
    found = gguf.read(write(tmp_path / "x.gguf", facts, tensors))
    assert found.facts == facts
    assert np.array_equal(found.tensors["f32"], x)
    assert np.array_equal(found.tensors["f16"], x.astype(np.float16))
    assert np.array_equal(
        found.tensors["bf16"], torch.from_numpy(x).view(torch.int32).bitwise_and(-65536).view(torch.float32)
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no GGUF that can be read"),
        (b"PK\x03\x04" + bytes(60), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60), "a string of"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 9), "can be read"),
    ],
)
def test_damaged_files(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match=message) as error:
        gguf.read(path)
    assert str(path) in str(error.value)


def test_unknown_kinds_and_cut_files(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", {"a": 1}, {"t": ((32,), 99, bytes(32))})
    with pytest.raises(WeightsError, match="'t' has quantisation 99"):
        gguf.read(path)
    path = write(tmp_path / "x.gguf", {"a": 1}, {"t": ((64,), 0, bytes(256))})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="cut short"):
        gguf.read(path)


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_theta=5000.0,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            # Large enough for positions to matter, and exact in float16.
            p.copy_((torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.1) + (p.ndim == 1)).half().float())
    return model


def as_gguf(model: Any, path: Path, **more: Any) -> Path:
    """As llama.cpp writes it: rows of queries and keys in the order of neighbouring pairs."""
    from tokenizers import pre_tokenizers

    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
    }
    tensors = {}
    for name, t in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        stem = name.removesuffix(".weight")
        block = f"blk.{stem.split('.')[2]}." if stem.startswith("model.layers.") else ""
        inner = names[".".join(stem.split(".")[3:]) if block else stem]
        if inner in {"attn_q", "attn_k"}:
            order = [h * 8 + half_ * 4 + i for h in range(len(t) // 8) for i in range(4) for half_ in range(2)]
            t = t[order]
        tensors[f"{block}{inner}.weight"] = (tuple(t.shape), 0, t.numpy().tobytes())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|end|>", "<|im_start|>", *alphabet, "he", "hel"]
    facts = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 64,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 48,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.freq_base": 5000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(tokens) - 2)],
        "tokenizer.ggml.merges": ["h e", "he l"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.chat_template": "{{ messages }}",
    }
    return write(path, facts | more, tensors)


@torch.inference_mode()
def test_a_llama(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = llama()
    as_gguf(model, tmp_path / "model.gguf")
    (out := tmp_path / "out").mkdir()
    convert("gguf-llama", tmp_path, out)
    found = AutoModelForCausalLM.from_pretrained(out).float().eval()
    ids = torch.randint(260, (2, 20))
    assert (found(ids).logits - model(ids).logits).abs().max() < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("<|im_start|>hello 12").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|im_start|>", "hel", "l", "o", "\u0120", "1", "2"]
    assert tokenizer.decode(ids[1:]) == "hello 12"
    assert tokenizer.chat_template == "{{ messages }}"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|end|>")


def test_what_is_no_llama(tmp_path: Path) -> None:
    model = llama()
    for changed, message in (
        ({"general.architecture": "mamba"}, "of kind 'mamba', not llama"),
        ({"tokenizer.ggml.model": "bert"}, "of kind 'bert', not gpt2"),
    ):
        as_gguf(model, tmp_path / "model.gguf", **changed)
        with pytest.raises(WeightsError, match=message):
            convert("gguf-llama", tmp_path, tmp_path)
