"""A text LM as a backbone: on lalia's Transformer it gives what it gives in transformers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lalia.errors import ConfigError, WeightsError
from lalia.lm import HF, hf
from lalia.nn.transformer import Transformer

SIZES = {
    "vocab_size": 23,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
ARCHITECTURES: dict[str, Mapping[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES},
    "mistral": {"model_type": "mistral", **SIZES, "sliding_window": 4},
    "gemma": {"model_type": "gemma", **SIZES, "head_dim": 16},
    "gpt2": {"model_type": "gpt2", "vocab_size": 23, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "opt": {
        "model_type": "opt",
        "vocab_size": 23,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
}


def build(architecture: Mapping[str, Any], **more: Any) -> HF:
    torch.manual_seed(0)
    config = HF.Config("small", pretrained=False, architecture=architecture, **more)
    backbone: HF = config.build()
    return backbone.eval()


@pytest.fixture(params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest) -> tuple[HF, HF]:
    """The same weights on lalia's Transformer and in transformers."""
    own, theirs = (build(ARCHITECTURES[request.param], native=native) for native in (True, False))
    assert isinstance(own.model, Transformer)
    assert not isinstance(theirs.model, Transformer)
    return own, theirs


def inputs(steps: int = 11) -> torch.Tensor:
    return torch.randn(3, steps, 32, generator=torch.Generator().manual_seed(steps))


@torch.no_grad()
def test_hidden_states_are_those_of_transformers(pair: tuple[HF, HF]) -> None:
    own, theirs = pair
    assert torch.allclose(own(inputs()), theirs(inputs()), atol=1e-5)
    assert own.context == theirs.context == 64


@torch.no_grad()
def test_rows_go_on_as_they_do_in_transformers(pair: tuple[HF, HF]) -> None:
    if pair[0].model.config.window is not None:
        # In transformers a window counts columns of its cache, also those that are not there for a row.
        return
    states = [backbone.init_state(3) for backbone in pair]
    for steps in ([5, 3, 1], [1, 1, 1], [2, 0, 1], [1, 1, 1]):
        x, lengths = inputs(max(steps)), torch.tensor(steps)
        a, b = (backbone(x, lengths, state) for backbone, state in zip(pair, states, strict=True))
        for row, n in enumerate(steps):
            assert torch.allclose(a[row, :n], b[row, :n], atol=1e-5)


def test_tables_are_those_of_transformers(pair: tuple[HF, HF]) -> None:
    own, theirs = pair
    assert own.text_embedding is not None
    assert theirs.text_embedding is not None
    assert torch.equal(own.text_embedding, theirs.text_embedding)
    assert (own.text_head is None) == (theirs.text_head is None)
    if own.text_head is not None and theirs.text_head is not None:
        assert torch.equal(own.text_head, theirs.text_head)


def test_gradients_are_those_of_transformers() -> None:
    own, theirs = (build(ARCHITECTURES["llama"], native=native).train() for native in (True, False))
    for backbone in (own, theirs):
        backbone(inputs()).square().mean().backward()
    q, k, v = own.model.layers[1].attention.qkv.weight.grad.split([32, 16, 16])
    attention = theirs.model.layers[1].self_attn
    for ours, projection in ((q, attention.q_proj), (k, attention.k_proj), (v, attention.v_proj)):
        assert torch.allclose(ours, projection.weight.grad, atol=1e-6)
    assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
def test_a_text_lm_may_see_in_pairs() -> None:
    backbone = build(ARCHITECTURES["llama"], mask="pair")
    x = inputs(8)
    before = backbone(x)
    x[:, 4] += 1
    moved = (backbone(x) != before).any(-1)
    assert moved[0].tolist() == [False] * 4 + [True, False, True, True]


def test_a_model_of_transformers_has_only_its_own_mask() -> None:
    other = {"model_type": "gpt_neox", **SIZES}
    assert not isinstance(build(other).model, Transformer)
    with pytest.raises(ConfigError, match="mask='causal'"):
        build(other, mask="pair")
    with pytest.raises(ConfigError, match="mask='causal'"):
        build(ARCHITECTURES["llama"], mask="pair", native=False)


def test_it_is_built_without_memory() -> None:
    with torch.device("meta"):
        backbone = build(ARCHITECTURES["llama"])
    assert all(p.is_meta for p in backbone.parameters())
    assert replace(backbone.config, mask="pair").tiny().mask == "pair"


def test_known_weights_are_named_as_they_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = LlamaForCausalLM(LlamaConfig(**SIZES))
    source.save_pretrained(tmp_path)
    monkeypatch.setattr(hf, "fetch", {"smollm2-135m-instruct": tmp_path}.__getitem__)
    backbone: HF = HF.Config("smollm2-135m-instruct").build()
    assert torch.equal(backbone.text_embedding, source.get_input_embeddings().weight)  # type: ignore[arg-type]


def test_the_shape_of_known_weights_needs_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "fetch", None)
    with torch.device("meta"):
        backbone: HF = HF.Config("smollm2-135m-instruct").build()
    assert (backbone.model.config.num_layers, backbone.model.config.rope_theta) == (30, 100000.0)


@torch.no_grad()
def test_known_weights_are_read_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)).half().save_pretrained(tmp_path)
    theirs: HF = HF.Config(str(tmp_path)).build()
    monkeypatch.setattr(hf, "KNOWN", {"small": None})
    monkeypatch.setattr(hf, "fetch", lambda name: tmp_path)
    monkeypatch.setattr(hf, "_open", lambda config: pytest.fail("transformers is asked"))
    own: HF = HF.Config("small").build()
    assert own.text_embedding is not None
    assert theirs.text_embedding is not None
    assert torch.equal(own.text_embedding, theirs.text_embedding)
    assert own.text_head is theirs.text_head is None
    assert (own.start_id, own.dim) == (theirs.start_id, theirs.dim)
    assert {p.dtype for p in own.parameters()} == {torch.float32}
    assert torch.equal(own(inputs()), theirs(inputs()))


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_the_first_layers_of_a_text_lm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = dict(ARCHITECTURES[name])
    whole = AutoModelForCausalLM.from_config(AutoConfig.for_model(facts.pop("model_type"), **facts)).eval()
    whole.save_pretrained(tmp_path)
    monkeypatch.setattr(hf, "KNOWN", {"small": None})
    monkeypatch.setattr(hf, "fetch", lambda name: tmp_path)
    read: HF = HF.Config("small", num_layers=1).build()
    opened: HF = HF.Config(str(tmp_path), num_layers=1, native=False).build()
    blank: HF = HF.Config("small", num_layers=1, pretrained=False, architecture=ARCHITECTURES[name]).build()
    decoder = whole.get_decoder() if hasattr(whole, "get_decoder") else whole.base_model
    layers = next(m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList))
    del layers[1:]
    whole.config.num_hidden_layers = 1
    wanted = decoder(inputs_embeds=inputs()).last_hidden_state
    for backbone in (read.eval(), opened.eval()):
        torch.testing.assert_close(backbone(inputs()), wanted, atol=1e-5, rtol=1e-5)
    assert len(blank.model.layers) == 1
    for broken in (HF.Config("small", num_layers=3), HF.Config(str(tmp_path), num_layers=3, native=False)):
        with pytest.raises((ConfigError, WeightsError), match="layers"):
            broken.build()
