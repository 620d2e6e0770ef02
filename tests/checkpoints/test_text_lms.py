"""Text LMs of transformers as lalia's Transformer: the same logits, at once and step by step."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from lalia.checkpoints import text_lms
from lalia.errors import WeightsError
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
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
OPT = {
    "vocab_size": 23,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
FAMILIES: dict[str, Mapping[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES},
    "llama 3.1": {"model_type": "llama", **SIZES, "rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "llama, biases": {"model_type": "llama", **SIZES, "attention_bias": True, "mlp_bias": True},
    "qwen2": {"model_type": "qwen2", **SIZES},
    "qwen2, windows": {
        "model_type": "qwen2",
        **SIZES,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 0,
    },
    "qwen3": {"model_type": "qwen3", **SIZES, "head_dim": 16, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", **SIZES, "sliding_window": 5},
    "mistral, no window": {"model_type": "mistral", **SIZES, "sliding_window": None},
    "gemma": {"model_type": "gemma", **SIZES, "head_dim": 16},
    "helium": {"model_type": "helium", **SIZES, "head_dim": 8},
    "opt": {"model_type": "opt", **OPT},
    "gpt2": {"model_type": "gpt2", "vocab_size": 23, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
STEPS = 14


def upstream(architecture: Mapping[str, Any]) -> Any:
    """A small model of transformers with no weight where it began."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    fields = dict(architecture)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5.0) if p.ndim > 1 else p.add_(0.2 * torch.randn_like(p))
    return model


def own(model: Any) -> tuple[Transformer, Tensor, Tensor]:
    """lalia's network, its input table and its output table."""
    config = model.config.to_dict()
    found = text_lms.tensors(model.state_dict(), config)
    shape = text_lms.backbone_config(config)
    assert shape is not None
    backbone: Transformer = shape.build()
    embedding, head = found.pop("embedding"), found.pop("head", None)
    backbone.load_state_dict({name.removeprefix("backbone."): t for name, t in found.items()})
    return backbone.eval(), embedding, embedding if head is None else head


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return upstream(FAMILIES[request.param])


@torch.no_grad()
def test_logits_are_those_of_transformers(model: Any) -> None:
    backbone, embedding, head = own(model)
    words = torch.randint(2, 23, (2, STEPS), generator=torch.Generator().manual_seed(1))
    theirs = model(words, use_cache=False).logits
    ours = backbone(embedding[words]) @ head.T
    assert float(theirs.std()) > 0.05, "a model that says nothing shows nothing"
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_greedy_generation_is_that_of_transformers(model: Any) -> None:
    backbone, embedding, head = own(model)
    prompt = torch.randint(2, 23, (2, 4), generator=torch.Generator().manual_seed(2))
    theirs = model.generate(prompt, max_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=0)
    state, new, words = backbone.init_state(2, capacity=1), prompt, prompt
    for _ in range(STEPS):
        new = (backbone(embedding[new], state=state)[:, -1:] @ head.T).argmax(-1)
        words = torch.cat([words, new], dim=1)
    assert torch.equal(words, theirs)
    if backbone.config.window is not None:
        assert state.capacity == backbone.config.window


def test_a_conversion_leaves_its_input_alone(model: Any) -> None:
    state = model.state_dict()
    before = {name: t.clone() for name, t in state.items()}
    text_lms.tensors(state, model.config.to_dict())
    assert state.keys() == before.keys()
    assert all(torch.equal(t, before[name]) for name, t in state.items())


@pytest.mark.parametrize(
    "unlike",
    [
        {"model_type": "gpt_neox", **SIZES},
        {"model_type": "llama", **SIZES, "hidden_act": "gelu"},
        {"model_type": "llama", **SIZES, "attention_bias": True},
        {"model_type": "llama", **SIZES, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"model_type": "qwen2", **SIZES, "layer_types": ["full_attention", "sliding_attention"]},
        {"model_type": "opt", **OPT, "word_embed_proj_dim": 16},
        {"model_type": "opt", **OPT, "do_layer_norm_before": False},
    ],
)
def test_what_the_transformer_is_not_it_does_not_claim_to_be(unlike: Mapping[str, Any]) -> None:
    assert text_lms.backbone_config(unlike) is None
    with pytest.raises(WeightsError, match="native=False"):
        text_lms.tensors({}, unlike)


def test_other_weights_are_refused() -> None:
    model = upstream(FAMILIES["llama"])
    state, config = model.state_dict(), model.config.to_dict()
    with pytest.raises(WeightsError, match=r"have 'model\.layers\.9\.x', which lalia does not know"):
        text_lms.tensors({**state, "model.layers.9.x": torch.zeros(1)}, config)
    del state["model.norm.weight"]
    with pytest.raises(WeightsError, match=r"have no 'model\.norm\.weight'"):
        text_lms.tensors(state, config)
