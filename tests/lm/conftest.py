"""Small language models of every kind of backbone, without downloads."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from lalia.layouts import Layout
from lalia.lm import HF, Linear, Lookup, Project, SpeechLM, Transformer
from lalia.streams import StreamSpec

_LLAMA = {
    "vocab_size": 11,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_ARCHITECTURES: dict[str, Mapping[str, Any]] = {
    "llama": {"model_type": "llama", **_LLAMA},
    "qwen2": {"model_type": "qwen2", **_LLAMA},
    "opt": {
        "model_type": "opt",
        "vocab_size": 11,
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
    "gpt_neox": {**{k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"}, "model_type": "gpt_neox"},
    "mistral": {"model_type": "mistral", **_LLAMA, "sliding_window": 4},
}

BACKBONES: dict[str, Transformer.Config | HF.Config] = {
    "own": Transformer.Config(num_layers=2, num_heads=4, dim=32, ffn_dim=64, num_kv_heads=2),
    "learned": Transformer.Config(
        num_layers=2, num_heads=4, dim=32, positions="learned", context=64, norm="layer", activation="gelu", bias=True
    ),
    **{
        name: HF.Config(name, pretrained=False, new_vocabulary=True, architecture=architecture)
        for name, architecture in _ARCHITECTURES.items()
    },
}

Build = Callable[..., SpeechLM]


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> Transformer.Config | HF.Config:
    """Each backbone."""
    return BACKBONES[request.param]


@pytest.fixture(params=["own", "llama"])
def one_of_each(request: pytest.FixtureRequest) -> Transformer.Config | HF.Config:
    """One backbone of lalia's own, one of Hugging Face's."""
    return BACKBONES[request.param]


@pytest.fixture
def build() -> Build:
    """Build a model in double precision whose predictions are far from uniform, so that nothing hangs on rounding."""

    def make(
        layout: Layout,
        specs: Mapping[str, StreamSpec],
        inputs: Mapping[str, Lookup | Project.Config],
        *,
        heads: tuple[str, ...] = (),
        tied: bool = False,
        backbone: Transformer.Config | HF.Config = BACKBONES["own"],
        **more: Any,
    ) -> SpeechLM:
        torch.manual_seed(0)
        config = SpeechLM.Config(
            layout=layout,
            backbone=backbone,
            inputs=inputs,
            heads={name: Linear.Config(tied=tied) for name in heads or inputs},
            **more,
        )
        lm: SpeechLM = config.build(specs)
        with torch.no_grad():
            lm.start.normal_()
            for p in lm.parameters():
                if p.ndim > 1:
                    p.mul_(8.0)
        return lm.double().eval()

    return make
