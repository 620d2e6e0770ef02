"""The published form of a judge, of a few thousand random parameters, against transformers' encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.errors import WeightsError
from lalia.evaluation.talking_turns import LABELS, TurnJudge

OURS = {
    "embed_positions.weight": "positional_embedding",
    "layer_norm.": "ln_post.",
    "layers.": "blocks.",
    ".self_attn.q_proj.": ".attn.query.",
    ".self_attn.k_proj.": ".attn.key.",
    ".self_attn.v_proj.": ".attn.value.",
    ".self_attn.out_proj.": ".attn.out.",
    ".self_attn_ln_post.": ".attn_ln.",
    ".fc1.": ".mlp.0.",
    ".fc2.": ".mlp.2.",
    ".final_ln_post.": ".mlp_ln.",
}
TOKENS = ["<blank>", "<unk>", *LABELS, "<sos/eos>"]


@pytest.fixture(scope="module")
def parts() -> tuple[nn.Module, nn.Sequential, dict[str, Tensor]]:
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=128,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=8,
        max_source_positions=50,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    encoder = WhisperModel(config).encoder.eval()
    head = nn.Sequential(nn.Tanh(), nn.Linear(128, 128), nn.Linear(128, 5))
    with torch.no_grad():
        for p in (*encoder.parameters(), *head.parameters()):
            p.add_(0.2 * torch.randn_like(p))
    tensors = {f"transform_mean.{n}": p for n, p in head[1].state_dict().items()}
    tensors |= {f"transform_linear.{n}": p for n, p in head[2].state_dict().items()}
    tensors["decoder.what"] = torch.zeros(1)
    for name, tensor in encoder.state_dict().items():
        for ours, theirs in OURS.items():
            name = name.replace(ours, theirs)
        tensors[f"encoder.encoders.{name}"] = tensor
    return encoder, head, tensors


def save(folder: Path, tensors: dict[str, torch.Tensor], tokens: object = TOKENS) -> Path:
    save_file({n: t.detach().clone() for n, t in tensors.items()}, folder / "judge.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump({"token_list": tokens}))
    return folder


def test_it_hears_what_the_published_one_does(parts, tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor

    encoder, head, tensors = parts
    judge = TurnJudge(save(tmp_path, tensors))
    sound = 0.1 * torch.randn(1, 2, 16_000, generator=torch.Generator().manual_seed(1))
    found = judge(Audio(sound, 16_000))
    assert found.shape == (20, 5)
    assert found.sum(1) == pytest.approx(np.ones(20))
    mel = WhisperFeatureExtractor(chunk_length=1)(sound[0].mean(0).numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        expected = head(encoder(mel.input_features).last_hidden_state[0, -1]).softmax(-1)
    assert found[-1] == pytest.approx(expected.numpy(), abs=1e-4)
    # It knows nothing of what is to come.
    assert judge(Audio(sound[..., :8_000], 16_000)) == pytest.approx(found[:7], abs=1e-6)
    assert judge(Audio(sound[..., :3_000], 16_000)).shape == (0, 5)
    assert (judge.name, len(judge.version)) == (tmp_path.name, 12)


def test_what_is_no_judge(parts, tmp_path: Path) -> None:
    tensors = parts[2]
    torch.save(tensors, tmp_path / "valid.loss.ave.pth")
    with pytest.raises(WeightsError, match=r"only valid.loss.ave.pth, and a pickle can run code"):
        TurnJudge(tmp_path)
    with pytest.raises(WeightsError, match="has the labels C, NA, I, T, BC, not C, NA, I, BC, T"):
        TurnJudge(save(tmp_path, tensors, ["C", "NA", "I", "T", "BC"]))
    with pytest.raises(WeightsError, match="is no judge of turns"):
        TurnJudge(save(tmp_path, {n: t for n, t in tensors.items() if "transform" not in n}))
    wide = {f"transform_linear.{n}": tensors[f"transform_mean.{n}"] for n in ("weight", "bias")}
    with pytest.raises(WeightsError, match="it tells 128 labels"):
        TurnJudge(save(tmp_path, {**tensors, **wide}))
    (tmp_path / "judge.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged"):
        TurnJudge(tmp_path)
    with pytest.raises(WeightsError, match="is no folder"):
        TurnJudge(tmp_path / "none")
