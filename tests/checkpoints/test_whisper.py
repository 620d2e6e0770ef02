import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.checkpoints.convert import convert
from lalia.checkpoints.whisper import generation_config, model_config, state_dict
from lalia.errors import WeightsError


@pytest.fixture(scope="module")
def converted(ct2: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    convert("ctranslate2-whisper", ct2.write_whisper(source), target)
    return target


class Reference:
    """Whisper as the paper draws it, one head at a time, straight from CTranslate2's variables."""

    def __init__(self, variables: Mapping[str, np.ndarray]) -> None:
        self.v = {name: torch.from_numpy(np.array(value)).double() for name, value in variables.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.v[f"{name}/weight"].T + self.v[f"{name}/bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
        return x * self.v[f"{name}/layer_norm/gamma"] + self.v[f"{name}/layer_norm/beta"]

    def heads(self, name: str, query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
        count = int(self.v[f"{name.split('/')[0]}/num_heads"])
        size = query.shape[-1] // count
        out = []
        for h in range(count):
            q, k, v = (x[:, h * size : (h + 1) * size] for x in (query, key, value))
            scores = q @ k.T / math.sqrt(size)
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            out.append(scores.softmax(-1) @ v)
        return torch.cat(out, -1)

    def layer(self, name: str, x: Tensor, memory: Tensor | None) -> Tensor:
        attention = f"{name}/self_attention"
        query, key, value = self.linear(f"{attention}/linear_0", self.norm(attention, x)).chunk(3, -1)
        mixed = self.heads(name, query, key, value, causal=memory is not None)
        x = x + self.linear(f"{attention}/linear_1", mixed)
        if memory is not None:
            attention = f"{name}/attention"
            query = self.linear(f"{attention}/linear_0", self.norm(attention, x))
            key, value = self.linear(f"{attention}/linear_1", memory).chunk(2, -1)
            x = x + self.linear(f"{attention}/linear_2", self.heads(name, query, key, value, causal=False))
        hidden = F.gelu(self.linear(f"{name}/ffn/linear_0", self.norm(f"{name}/ffn", x)))
        return x + self.linear(f"{name}/ffn/linear_1", hidden)

    def encode(self, mel: Tensor, layers: int) -> Tensor:
        """[M, 2T] to [T, D]."""
        x = mel[None].double()
        for conv, stride in (("conv1", 1), ("conv2", 2)):
            weight, bias = self.v[f"encoder/{conv}/weight"], self.v[f"encoder/{conv}/bias"]
            x = F.gelu(F.conv1d(x, weight, bias, stride, padding=1))
        x = x[0].T + self.v["encoder/position_encodings/encodings"]
        for i in range(layers):
            x = self.layer(f"encoder/layer_{i}", x, None)
        return self.norm("encoder", x)

    def decode(self, ids: list[int], memory: Tensor, layers: int) -> Tensor:
        """Token ids to logits [S, V]."""
        table = self.v["decoder/embeddings/weight"]
        x = table[ids] + self.v["decoder/position_encodings/encodings"][: len(ids)]
        for i in range(layers):
            x = self.layer(f"decoder/layer_{i}", x, memory)
        return self.norm("decoder", x) @ table.T


def load(folder: Path, **kwargs: Any) -> Any:
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(folder, **kwargs).eval()


@torch.inference_mode()
def test_converted_model_computes_what_the_variables_say(ct2: ModuleType, converted: Path) -> None:
    model, reference = load(converted), Reference(ct2.whisper_variables())
    mel = torch.randn(ct2.MELS, 2 * ct2.SOURCE_POSITIONS)
    ids = [27, 28, 30, 0, 5, 3]
    encoded = reference.encode(mel, ct2.ENCODER_LAYERS)
    logits = reference.decode(ids, encoded, ct2.DECODER_LAYERS)
    out = model(mel[None], decoder_input_ids=torch.tensor([ids]))
    torch.testing.assert_close(out.encoder_last_hidden_state[0].double(), encoded, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.logits[0].double(), logits, atol=1e-4, rtol=1e-4)


def test_folder_opens_as_model_encoder_tokenizer_and_features(ct2: ModuleType, converted: Path) -> None:
    from transformers import AutoConfig, AutoProcessor, WhisperModel

    config = AutoConfig.from_pretrained(converted)
    assert (config.encoder_layers, config.decoder_layers) == (ct2.ENCODER_LAYERS, ct2.DECODER_LAYERS)
    processor = AutoProcessor.from_pretrained(converted)
    assert type(processor).__name__ == "WhisperProcessor"
    features = processor(np.zeros(16_000, np.float32), sampling_rate=16_000).input_features
    assert np.asarray(features).shape == (1, ct2.MELS, 3000)
    ids = processor.tokenizer("abc").input_ids
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == "abc"
    assert ids[0] == config.decoder_start_token_id
    assert ids[-1] == config.eos_token_id == processor.tokenizer.eos_token_id
    weights = WhisperModel.from_pretrained(converted).encoder.conv1.weight
    np.testing.assert_array_equal(weights.detach().numpy(), ct2.whisper_variables()["encoder/conv1/weight"])


def test_generates_and_obeys_the_suppressed_tokens(ct2: ModuleType, converted: Path) -> None:
    model = load(converted)
    assert model.generation_config.suppress_tokens == [1, 2]
    ids = model.generate(torch.randn(3, ct2.MELS, 2 * ct2.SOURCE_POSITIONS), max_new_tokens=6)
    assert ids.shape[0] == 3
    assert not set(ids.flatten().tolist()) & {1, 2}


def test_half_precision_stays_small_and_runs_in_full(ct2: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir(), target.mkdir()
    variables = ct2.whisper_variables(dtype="float16")
    convert("ctranslate2-whisper", ct2.write_whisper(source, ct2.serialize(variables, ct2.ALIASES)), target)
    assert (target / "model.safetensors").stat().st_size < 1.5 * (source / "model.bin").stat().st_size
    model = load(target)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    found = model.model.decoder.layers[1].fc1.weight.detach().numpy()
    np.testing.assert_array_equal(found, variables["decoder/layer_1/ffn/linear_0/weight"].astype(np.float32))
    assert load(target, dtype=torch.float16).dtype == torch.float16


def test_conversion_is_repeatable(ct2: ModuleType, converted: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir(), target.mkdir()
    convert("ctranslate2-whisper", ct2.write_whisper(source), target)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {p.name: p.read_bytes() for p in converted.iterdir()}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("encoder/conv1/bias", None, "has no 'encoder/conv1/bias'"),
        ("encoder/extra/weight", np.ones(3, np.float32), "has 'encoder/extra/weight', which Whisper has not"),
        ("encoder/num_heads", np.ones(3, np.int16), "has 'encoder/num_heads', which Whisper has not"),
        ("encoder/layer_0/self_attention/linear_0/bias", np.ones(48, np.float32), "a bias for the keys"),
        ("encoder/layer_0/ffn/linear_0/weight", np.ones((24, 16), np.int8), "floating point"),
        ("encoder/layer_0/self_attention/linear_0/weight", np.ones((47, 16), np.float32), r"shape \[47, 16\]"),
        ("decoder/projection/weight", np.ones((35, 16), np.float32), "does not tie"),
    ],
)
def test_other_models_are_refused(ct2: ModuleType, name: str, value: np.ndarray | None, message: str) -> None:
    variables = ct2.whisper_variables()
    if value is None:
        del variables[name]
    else:
        variables[name] = value
    with pytest.raises(WeightsError, match=message):
        state_dict(variables)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("encoder/num_heads", None, "has no 'encoder/num_heads'"),
        ("decoder/activation", np.array(2, np.int8), "'decoder/activation' is 2, and 3 in Whisper"),
    ],
)
def test_other_settings_are_refused(ct2: ModuleType, name: str, value: np.ndarray | None, message: str) -> None:
    variables = ct2.whisper_variables()
    del variables[name]
    if value is not None:
        variables[name] = value
    with pytest.raises(WeightsError, match=message):
        model_config(variables, dict.fromkeys(ct2.SPECIAL, 0))


def test_tokenizer_of_another_model_is_refused(ct2: ModuleType) -> None:
    with pytest.raises(WeightsError, match="no token '<|endoftext|>'".replace("|", r"\|")):
        model_config(ct2.whisper_variables(), {"</s>": 2})


def test_multilingual_models_know_their_languages_and_task() -> None:
    tokens = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>")
    special = {token: 50257 + i for i, token in enumerate((*tokens, "<|startofprev|>", "<|notimestamps|>"))}
    config = {"vocab_size": 51865, "max_target_positions": 448, "decoder_start_token_id": 50258}
    config |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 50257)
    settings = {"alignment_heads": [], "lang_ids": [50259, 50260], "suppress_ids": [], "suppress_ids_begin": []}
    found = generation_config(config, settings, special)
    assert found["lang_to_id"] == {"<|en|>": 50259, "<|de|>": 50260}
    assert found["task_to_id"] == {"translate": 50261, "transcribe": 50262}
    assert (found["is_multilingual"], found["task"]) == (True, "transcribe")
    english = generation_config(config | {"vocab_size": 51864}, settings, special)
    assert english["is_multilingual"] is False
    assert not english.keys() & {"lang_to_id", "task_to_id", "task"}


@pytest.mark.parametrize(("file", "content"), [("config.json", "{"), ("tokenizer.json", None)])
def test_damaged_companions_are_named(ct2: ModuleType, tmp_path: Path, file: str, content: str | None) -> None:
    folder = ct2.write_whisper(tmp_path)
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    with pytest.raises(WeightsError, match=file):
        convert("ctranslate2-whisper", folder, folder)


def test_another_architecture_is_named(ct2: ModuleType, tmp_path: Path) -> None:
    folder = ct2.write_whisper(tmp_path, ct2.serialize({}, spec="TransformerSpec"))
    with pytest.raises(WeightsError, match="is a TransformerSpec, not a WhisperSpec"):
        convert("ctranslate2-whisper", folder, folder)


# -- against CTranslate2 itself -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantization", "tolerance"), [(None, 0.0), ("float16", 1e-3), ("int8", 6e-3), ("int16", 1e-3)]
)
def test_undoes_the_converter_of_ctranslate2(
    converted: Path, tmp_path: Path, quantization: str | None, tolerance: float
) -> None:
    """Their converter writes, ours reads: the parameters come back, exactly where nothing was quantised."""
    converters = pytest.importorskip("ctranslate2.converters")
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    converters.TransformersConverter(str(converted)).convert(str(source), quantization=quantization)
    (source / "tokenizer.json").write_bytes((converted / "tokenizer.json").read_bytes())
    convert("ctranslate2-whisper", source, target)
    original, again = load(converted).state_dict(), load(target).state_dict()
    assert original.keys() == again.keys()
    for name, value in original.items():
        assert (again[name] - value).abs().max() <= tolerance * value.abs().max(), name
    ours, theirs = (json.loads((folder / "generation_config.json").read_text()) for folder in (target, converted))
    assert ours["alignment_heads"] == theirs["alignment_heads"]
    assert ours["suppress_tokens"] == theirs["suppress_tokens"]


@torch.inference_mode()
def test_encodes_like_ctranslate2(ct2: ModuleType, converted: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    ct2.write_whisper(tmp_path)
    tokens = [*ct2.WORDS, *ct2.SPECIAL]
    (tmp_path / "vocabulary.json").write_text(json.dumps(tokens))
    theirs = ctranslate2.models.Whisper(str(tmp_path), compute_type="float32", intra_threads=1)
    mel = np.random.default_rng(0).standard_normal((2, ct2.MELS, 2 * ct2.SOURCE_POSITIONS)).astype(np.float32)
    expected = np.array(theirs.encode(ctranslate2.StorageView.from_array(mel)))
    found = load(converted).model.encoder(torch.from_numpy(mel)).last_hidden_state.numpy()
    assert np.abs(found - expected).max() < 1e-4
