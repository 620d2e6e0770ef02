"""Moshi as it was published, loaded as a model: the numbers of transformers, and sound."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import lalia
from lalia.audio import Audio
from lalia.cli import main
from lalia.errors import LaliaError, WeightsError
from lalia.lm import Sampler, Sampling, SpeechLM, collect
from lalia.model import Model, find, load_tokenizer
from lalia.published import recognise
from lalia.recipes import find as find_recipe
from lalia.streams import Discrete, TokenSequence
from lalia.tokenizers import Text
from lalia.vocoders import CodecDecoder
from upstream_files import mimi_as_kyutai, moshi_as_kyutai, sentencepiece_model

pytestmark = pytest.mark.usefixtures("one_thread")

K, DIM, HEADS, MIMI_HEADS, CODES, WORDS = 3, 32, 4, 2, 16, 300
MIMI = {
    "sampling_rate": 1600,
    "upsampling_ratios": [8, 8],
    "frame_rate": 12.5,
    "num_filters": 2,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": MIMI_HEADS,
    "num_key_value_heads": MIMI_HEADS,
    "intermediate_size": 8,
    "codebook_size": CODES,
    "codebook_dim": 4,
    "vector_quantization_hidden_dimension": 4,
    "num_quantizers": 5,
    "upsample_groups": 16,
}
KYUTAI = {
    "dim": DIM,
    "text_card": WORDS,
    "existing_text_padding_id": 3,
    "n_q": 2 * K,
    "dep_q": K,
    "card": CODES,
    "num_heads": HEADS,
    "num_layers": 2,
    "hidden_scale": 2.25,
    "context": 40,
    "depformer_dim": 16,
    "depformer_dim_feedforward": 36,
    "depformer_num_heads": 2,
    "depformer_num_layers": 2,
    "depformer_multi_linear": True,
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
    "delays": [0, 0, 1, 1, 0, 1, 1],
    "mimi_name": "tokenizer-small-checkpoint1.safetensors",
    "mimi_config_name": "mimi.json",
}
KYUTAI_MIMI = {
    "channels": 1,
    "sample_rate": 1600,
    "frame_rate": 12.5,
    "seanet": {"dimension": 16, "n_filters": 2, "n_residual_layers": 1, "ratios": [8, 8], "true_skip": True},
    "quantizer": {"dimension": 4, "n_q": 5, "bins": CODES},
    "transformer": {"num_heads": MIMI_HEADS, "num_layers": 1, "dim_feedforward": 8, "context": 250},
}


@pytest.fixture(scope="module")
def upstream() -> Any:
    """A small Moshi of transformers with no weight where it began."""
    from transformers import MimiConfig, MoshiConfig, MoshiForConditionalGeneration

    config = MoshiConfig(
        vocab_size=WORDS,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        ffn_dim=96,
        sliding_window=40,
        max_position_embeddings=40,
        num_codebooks=K,
        pad_token_id=3,
        audio_encoder_config=MimiConfig(**MIMI).to_dict(),
        depth_decoder_config={"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 48},
    )
    torch.manual_seed(0)
    model = MoshiForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if "usage" in name:
                t.copy_(0.5 + 3 * torch.rand_like(t))
            elif t.is_floating_point() and t.ndim:
                t.copy_(float(t.ndim == 1 and "weight" in name) + 0.25 * torch.randn_like(t))
    return model


@pytest.fixture(scope="module")
def transformers_folder(upstream: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf-moshiko")
    # In shards, as 8 billion parameters are.
    upstream.save_pretrained(folder, max_shard_size="200KB")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    return folder


@pytest.fixture(scope="module")
def kyutai_folder(upstream: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moshiko-pytorch")
    state = upstream.state_dict()
    mimi = {n.removeprefix("audio_encoder."): t for n, t in state.items() if n.startswith("audio_encoder.")}
    for name, tensors in (
        ("model.safetensors", moshi_as_kyutai(state, HEADS)),
        (KYUTAI["mimi_name"], mimi_as_kyutai(mimi, MIMI_HEADS)),
    ):
        save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / str(name))
    (folder / "config.json").write_text(json.dumps(KYUTAI))
    (folder / "mimi.json").write_text(json.dumps(KYUTAI_MIMI))
    (folder / "tokenizer_spm_32k_3.model").write_bytes(sentencepiece_model())
    return folder


@pytest.fixture(params=["transformers", "kyutai"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(f"{request.param}_folder")
    return found


def lm_of(model: Model) -> SpeechLM:
    lm = model.lms["helium"]
    assert isinstance(lm, SpeechLM)
    return lm


def some_streams(frames: int) -> dict[str, TokenSequence]:
    g = torch.Generator().manual_seed(1)
    return {
        name: TokenSequence(torch.randint(high, (1, books, frames), generator=g), torch.tensor([frames]))
        for name, high, books in (("text", WORDS, 1), ("moshi", CODES, K), ("user", CODES, K))
    }


def delayed(streams: Mapping[str, TokenSequence]) -> tuple[Tensor, Tensor]:
    """What enters upstream's model: words [1, T + 1] and codes [1, 2 K, T + 1], late ones preceded by the code of none
    (``_delay_sequence`` of moshi/models/lm.py)."""
    words = torch.cat([torch.tensor([[WORDS]]), streams["text"].values[:, 0]], dim=1)
    codes = torch.cat([streams["moshi"].values, streams["user"].values], dim=1)
    late = torch.full((1, 2 * K, codes.shape[2] + 1), CODES)
    for k in range(2 * K):
        delay = int(k % K > 0)
        late[:, k, 1 + delay :] = codes[:, k, : codes.shape[2] - delay]
    return words, late


@torch.no_grad()
def test_logits_are_those_of_transformers(folder: Path, upstream: Any) -> None:
    lm = lm_of(lalia.load(folder))
    frames = 9
    streams = some_streams(frames)
    words, codes = delayed(streams)
    x = upstream.decoder.model.embed_tokens(words)
    x = x + sum(table(codes[:, k]) for k, table in enumerate(upstream.embed_tokens))
    theirs = upstream.decoder(inputs_embeds=x, use_cache=False)
    hidden = lm(lm.pack(streams))[:, :frames]
    assert torch.allclose(hidden, theirs.last_hidden_state[:, :frames], atol=1e-4)
    logits = lm.linear("text").logits(hidden, lm.linear("text").rows(0))[..., :WORDS]
    assert float(theirs.logits.std()) > 0.1
    assert torch.allclose(logits, theirs.logits[:, :frames], atol=1e-4)
    # The codes of Moshi's own speech, from the second step on, at which all of them are there.
    depth = upstream.depth_decoder(
        input_ids=torch.cat([words[0, 1:, None], codes[0, : K - 1, 1:].T], dim=1),
        last_hidden_state=theirs.last_hidden_state[0, :frames, None].expand(-1, K, -1),
        use_cache=False,
    ).logits.log_softmax(-1)
    ours = lm.log_prob(streams)["moshi"]
    for k in range(K):
        delay = int(k > 0)
        wanted = depth[delay:, k].gather(1, streams["moshi"].values[0, k, : frames - delay, None])[:, 0]
        assert torch.allclose(ours[0, k, : frames - delay], wanted, atol=1e-4)


@torch.no_grad()
def test_generation_is_that_of_transformers_step_by_step(folder: Path, upstream: Any) -> None:
    lm = lm_of(lalia.load(folder))
    frames = 8
    user = {"user": some_streams(frames)["user"]}
    greedy = Sampler(Sampling(temperature=0.0))
    made = collect(lm.generate(user, complete=("user",), max_steps=frames, sampler=greedy))
    text, own = made["text"].values[0, 0], made["moshi"].values[0]
    assert len(text) == frames
    # Upstream, asked for each step with what was made before.
    whole = {**user, "text": TokenSequence(text[None, None], torch.tensor([frames]))}
    padded = torch.zeros(1, K, frames, dtype=torch.long)
    padded[0, :, : own.shape[1]] = own
    words, codes = delayed({**whole, "moshi": TokenSequence(padded, torch.tensor([frames]))})
    x = upstream.decoder.model.embed_tokens(words)
    x = x + sum(table(codes[:, k]) for k, table in enumerate(upstream.embed_tokens))
    theirs = upstream.decoder(inputs_embeds=x[:, : frames - 1], use_cache=False)
    assert torch.equal(theirs.logits[0].argmax(-1), text[: frames - 1])
    depth = upstream.depth_decoder(
        input_ids=torch.cat([words[0, 1:frames, None], codes[0, : K - 1, 1:frames].T], dim=1),
        last_hidden_state=theirs.last_hidden_state[0, :, None].expand(-1, K, -1),
        use_cache=False,
    ).logits.argmax(-1)
    assert torch.equal(depth[:, 0], own[0, : frames - 1])
    assert torch.equal(depth[1:, 1:].T, own[1:, : frames - 2])


def test_its_sound_is_that_of_its_mimi(folder: Path, upstream: Any) -> None:
    model = lalia.load(folder)
    codes = some_streams(6)["moshi"]
    with torch.no_grad():
        theirs = upstream.audio_encoder.decode(codes.values).audio_values
        heard = upstream.audio_encoder.encode(torch.randn(1, 1, 512), num_quantizers=K).audio_codes
    assert float(theirs.std()) > 0.01
    assert torch.allclose(model.decode({"moshi": codes}).samples, theirs, atol=1e-4)
    torch.manual_seed(0)
    sound = torch.randn(1, 1, 512)
    with torch.no_grad():
        heard = upstream.audio_encoder.encode(sound, num_quantizers=K).audio_codes
    assert torch.equal(model.tokenizer("user").encode(Audio(sound, 1600)).values, heard)
    assert isinstance(model.vocoder, CodecDecoder)
    # The tokenizer alone, without the language model.
    assert load_tokenizer(folder).identity == model.tokenizer("moshi").identity


def test_both_forms_are_one_model(transformers_folder: Path, kyutai_folder: Path) -> None:
    theirs, ours = lalia.load(transformers_folder), lalia.load(kyutai_folder)
    a, b = theirs.module.state_dict(), ours.module.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert theirs.recipe.lms["helium"].layout == ours.recipe.lms["helium"].layout
    assert ours.tokenizer("text").encode("hello worlds").values.tolist() == [[[263, 264, 265]]]
    text = Text.Config(str(kyutai_folder), vocabulary_size=WORDS, rate=12.5, pad=3, end_of_pad=0)
    assert ours.recipe.streams["text"].tokenizer == text


def test_the_published_sizes_are_those_of_the_recipe(kyutai_folder: Path, tmp_path: Path) -> None:
    """A repository without a config.json is Moshi 7B."""
    for name in ("model.safetensors", "tokenizer_spm_32k_3.model", str(KYUTAI["mimi_name"])):
        shutil.copy(kyutai_folder / name, tmp_path)
    family = recognise(tmp_path)
    assert family is not None
    recipe, known = family.recipe(tmp_path, "kyutai/moshiko-pytorch-bf16"), find_recipe("moshi")
    lm, wanted = recipe.lms["helium"], known.lms["helium"]
    assert lm.layout == wanted.layout
    assert lm.inputs == wanted.inputs
    assert lm.sampler == wanted.sampler
    assert (lm.backbone.dim, lm.backbone.num_layers, lm.backbone.hidden) == (4096, 32, 11264)  # type: ignore[union-attr]
    assert recipe.specs == known.specs
    kind = recipe.streams["moshi"].spec.kind
    assert isinstance(kind, Discrete)
    assert kind == Discrete(2048, 8)
    # Its weights are not those of 7 billion parameters.
    with pytest.raises(LaliaError):
        lalia.load(tmp_path)


def test_a_saved_copy_is_the_same_model(folder: Path, clip: Path, tmp_path: Path) -> None:
    model = lalia.load(folder)
    model.save(tmp_path / "copy")
    again = lalia.load(tmp_path / "copy")
    assert again.recipe == model.recipe
    a, b = model.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(a[n], b[n]) for n in a)
    first, second = (m.chat(clip, seconds=0.5, seed=3) for m in (model, again))
    assert first.audio is not None
    assert second.audio is not None
    assert torch.equal(first.audio.samples, second.audio.samples)
    assert float(first.audio.samples.std()) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_is_what_was_asked_for(kyutai_folder: Path, clip: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """The published weights are bfloat16."""
    folder = shutil.copytree(kyutai_folder, tmp_path / "bf16")
    weights = {n: t.to(torch.bfloat16) for n, t in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    model = lalia.load(folder, dtype=dtype)
    assert {p.dtype for p in model.module.parameters()} == {dtype}
    assert not any(t.is_meta for t in model.module.state_dict().values())
    assert model.chat(clip, seconds=0.3).audio is not None


def test_commands_take_it(folder: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("chat", "continue"):
        out = tmp_path / f"{command}.wav"
        arguments = [command, str(clip), "--model", str(folder), "-o", str(out), "--seconds", "0.5", "--json"]
        assert main(arguments) == 0, capsys.readouterr().err
        told = json.loads(capsys.readouterr().out)
        assert told["sample_rate"] == 1600
        assert Audio.load(out, check=False).seconds == pytest.approx(told["seconds"], abs=0.01)
        assert float(Audio.load(out, check=False).samples.std()) > 0
    out = tmp_path / "again.wav"
    assert main(["resynthesize", str(clip), "--model", str(folder), "-o", str(out)]) == 0
    assert main(["fetch", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["path"] == str(folder)


def test_models_from_the_hub(kyutai_folder: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id stays a hub id: where the cache lies on this machine is nobody else's business."""
    asked: list[dict[str, Any]] = []
    cached = tmp_path / "hub" / "models--kyutai--moshiko-small" / "snapshots" / "0123"
    shutil.copytree(kyutai_folder, cached)

    def download(hub_id: str, **more: Any) -> str:
        asked.append({"id": hub_id, **more})
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    assert find("kyutai/moshiko-small") == cached
    assert "*.model" in asked[0]["allow_patterns"]
    model = lalia.load("kyutai/moshiko-small")
    assert {s.tokenizer.name for s in model.recipe.streams.values()} == {"kyutai/moshiko-small"}  # type: ignore[attr-defined]
    assert model.chat(clip, seconds=0.3).audio is not None
    assert {a["id"] for a in asked} == {"kyutai/moshiko-small"}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"depformer_pos_emb": "sin"}, "depformer_pos_emb 'sin', which lalia's Moshi has not"),
        ({"n_q": K}, "hears 0"),
        ({"card": 99}, "has 99 codes, and its Mimi others"),
        ({"mimi_name": "gone.safetensors"}, r"lacks gone\.safetensors"),
        ({"moshi_name": "../model.safetensors"}, "lacks"),
        ({"num_layers": 3}, r"have no 'transformer\.layers\.2"),
        ({"num_layers": 1}, "which lalia does not know"),
        ({"text_card": 200}, "the recipe needs"),
    ],
)
def test_variants_are_refused_in_one_line(
    kyutai_folder: Path, tmp_path: Path, change: dict[str, Any], wrong: str
) -> None:
    folder = shutil.copytree(kyutai_folder, tmp_path / "variant")
    (folder / "config.json").write_text(json.dumps(KYUTAI | change))
    with pytest.raises(LaliaError, match=wrong) as error:
        lalia.load(folder)
    assert "\n" not in str(error.value)


def test_damaged_folders_are_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], clip: Path
) -> None:
    for i, path in enumerate(sorted(folder.glob("*.safetensors"))[:2]):
        copy = shutil.copytree(folder, tmp_path / str(i))
        (copy / path.name).write_bytes(path.read_bytes()[:-5])
        assert main(["chat", str(clip), "--model", str(copy), "-o", str(tmp_path / "x.wav")]) == 2
        said = capsys.readouterr().err
        assert f"{path.name} is damaged" in said
        assert said.count("\n") == 1
        (copy / path.name).unlink()
        with pytest.raises(WeightsError, match=r"lacks|has no|have no|holds no"):
            lalia.load(copy)
    copy = shutil.copytree(folder, tmp_path / "config")
    (copy / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        find(copy)
    (copy / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(LaliaError, match="no checkpoint of a published model that lalia knows"):
        find(copy)
