"""Speech encoders of every architecture, with random weights and small enough to be built in a moment."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.checkpoints.quiet import quiet

WAVE = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "hubert": {"model_type": "hubert", **WAVE},
    "hubert-large": {"model_type": "hubert", **WAVE, **LAYER_NORM},
    "wav2vec2": {"model_type": "wav2vec2", **WAVE},
    "wav2vec2-large": {"model_type": "wav2vec2", **WAVE, **LAYER_NORM},
    "wavlm": {"model_type": "wavlm", **WAVE},
    "wavlm-large": {"model_type": "wavlm", **WAVE, **LAYER_NORM},
    "data2vec": {"model_type": "data2vec-audio", **WAVE, "conv_pos_kernel_size": 3},
    "unispeech": {"model_type": "unispeech", **WAVE},
    "unispeech-sat": {"model_type": "unispeech-sat", **WAVE},
    "conformer": {"model_type": "wav2vec2-conformer", **WAVE},
    "wav2vec2-adapter": {"model_type": "wav2vec2", **WAVE, "add_adapter": True, "output_hidden_size": 16},
    "w2v-bert": {
        "model_type": "wav2vec2-bert",
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "whisper": {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 3,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32,
        "max_source_positions": 300,
        "vocab_size": 60,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "decoder_start_token_id": 4,
    },
}

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The folder of an encoder by its name in ``ARCHITECTURES``, as ``save_pretrained`` writes it."""
    from transformers import AutoConfig, AutoModel

    made: dict[str, Path] = {}

    def make(name: str, *, normalize: bool | None = None, seed: int = 0, **settings: Any) -> Path:
        key = repr((name, normalize, seed, sorted(settings.items())))
        if key not in made:
            architecture = {**ARCHITECTURES[name], **settings}
            path = tmp_path_factory.mktemp(name)
            with torch.random.fork_rng(), quiet():
                torch.manual_seed(seed)
                model = AutoModel.from_config(AutoConfig.for_model(architecture.pop("model_type"), **architecture))
                for p in model.parameters():
                    # As they are drawn, most layers hardly change what goes through them.
                    p.data.add_(0.1 * torch.randn_like(p))
                model.save_pretrained(path)
            if normalize is not None:
                (path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalize}))
            made[key] = path
        return made[key]

    return make


@pytest.fixture(scope="session")
def architectures() -> dict[str, dict[str, Any]]:
    return ARCHITECTURES


@pytest.fixture(scope="session")
def speech() -> Callable[..., torch.Tensor]:
    """``speech(n, seed=0)``: samples [n] at 16 kHz that rise and fall in level and pitch."""

    def speech(n: int, seed: int = 0) -> torch.Tensor:
        t = torch.arange(n) / 16000
        envelope = 0.2 + 0.8 * torch.sin(2 * torch.pi * (0.7 + seed) * t).square()
        tone = torch.sin(2 * torch.pi * (150 * t + 30 * torch.sin(2 * torch.pi * 0.9 * t)))
        return 0.3 * envelope * (tone + 0.3 * torch.randn(n, generator=torch.Generator().manual_seed(seed)))

    return speech
