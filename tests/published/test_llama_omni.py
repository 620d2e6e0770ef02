"""LLaMA-Omni as it was published, loaded as a model: the numbers of its parts in transformers, and units."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import lalia
from lalia.audio import Audio
from lalia.cli import main
from lalia.errors import LaliaError, WeightsError
from lalia.lm import CTC, SpeechLM
from lalia.model import Model
from lalia.published import recognise
from lalia.recipe import build_lms
from lalia.recipes import find as find_recipe
from lalia.streams import TokenSequence

pytestmark = pytest.mark.usefixtures("one_thread")

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
LETTERS = 256
WORDS, DIM, HEARD, STACK, UNITS, UPSAMPLE = 270, 32, 16, 5, 20, 4
LLAMA = {
    "vocab_size": WORDS,
    "hidden_size": DIM,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": LETTERS,
    "eos_token_id": [LETTERS + 1, LETTERS + 2],
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
SPEECH = {
    "model_type": "omni_speech2s_llama",
    "architectures": ["OmniSpeech2SLlamaForCausalLM"],
    "speech_encoder": "whisper",
    "speech_encoder_type": "whisper",
    "speech_encoder_ds_rate": STACK,
    "speech_encoder_hidden_size": HEARD,
    "speech_projector_type": "linear",
    "speech_generator_type": "ctc",
    "ctc_decoder_config": "(2,24,3,40)",
    "ctc_upsample_factor": UPSAMPLE,
    "ctc_loss_weight": 1.0,
    "unit_vocab_size": UNITS,
}


class Upstream(nn.Module):
    """The parts of ``OmniSpeech2SLlamaForCausalLM`` under their names there."""

    def __init__(self) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM
        from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

        super().__init__()
        self.llama = LlamaForCausalLM(LlamaConfig(**LLAMA, attn_implementation="eager"))
        self.linear1, self.linear2 = nn.Linear(HEARD * STACK, 2048), nn.Linear(2048, DIM)
        sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3, "num_key_value_heads": 3}
        config = LlamaConfig(**LLAMA | sizes, attn_implementation="eager")
        self.input_proj, self.output_proj = nn.Linear(DIM, 24), nn.Linear(24, UNITS + 1)
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, i) for i in range(2))
        self.rope = LlamaRotaryEmbedding(config)

    def published(self) -> dict[str, Tensor]:
        homes = {"llama.": "", "linear": "model.speech_projector.linear", "rope": None}
        out = {}
        for name, t in self.state_dict().items():
            start = next((h for h in homes if name.startswith(h)), None)
            home = "speech_generator." if start is None else homes[start]
            if home is not None:
                out[home + name.removeprefix(start or "")] = t.clone()
        return out

    def project(self, features: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(features)))

    def units(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of labels [B, S x upsample, units + blank] along hidden states."""
        x = self.input_proj(hidden.repeat_interleave(UPSAMPLE, dim=1))
        steps = x.shape[1]
        mask = torch.full((steps, steps), float("-inf")).triu(1)[None, None]
        place = self.rope(x, torch.arange(steps)[None])
        for layer in self.layers:
            x = layer(x, attention_mask=mask, position_embeddings=place)
            x = x[0] if isinstance(x, tuple) else x
        return self.output_proj(x).log_softmax(-1)


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    torch.manual_seed(0)
    model = Upstream().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(1 + 0.2 * torch.randn_like(p)) if p.ndim == 1 else p.mul_(3.0).add_(0.1 * torch.randn_like(p))
        model.linear1.weight.mul_(0.2)
    return model


def write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


@pytest.fixture(scope="module")
def folder(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import WhisperConfig, WhisperModel

    folder = tmp_path_factory.mktemp("Llama-3.1-8B-Omni")
    tensors = {n: t.to(torch.float16) for n, t in upstream.published().items()}
    # Some copies have the speech encoder inside; in two shards.
    tensors["model.speech_encoder.conv1.weight"] = torch.zeros(1)
    names = sorted(tensors)
    shards = {n: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, n in enumerate(names)}
    for shard in set(shards.values()):
        save_file({n: tensors[n] for n in names if shards[n] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "config.json").write_text(json.dumps({**LLAMA, **SPEECH}))
    write_tokenizer(folder)
    sizes = {"d_model": HEARD, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    whisper = WhisperConfig(
        **sizes,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        num_mel_bins=8,
    )
    WhisperModel(whisper).save_pretrained(folder / "whisper")
    return folder


@pytest.fixture(scope="module")
def halved(upstream: Upstream) -> Upstream:
    """Upstream with the weights as they were stored, in half precision."""
    with torch.no_grad():
        for p in upstream.parameters():
            p.copy_(p.half().float())
    return upstream


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    with pytest.warns(UserWarning, match="has no vocoder: that of LLaMA-Omni is published apart"):
        return lalia.load(folder)


def lms_of(model: Model) -> tuple[SpeechLM, SpeechLM]:
    llm, decoder = model.lms["llm"], model.lms["speech_decoder"]
    assert isinstance(llm, SpeechLM)
    assert isinstance(decoder, SpeechLM)
    return llm, decoder


@torch.no_grad()
def test_logits_are_those_of_a_llama_with_speech_in_the_middle(model: Model, halved: Upstream) -> None:
    llm, _ = lms_of(model)
    g = torch.Generator().manual_seed(1)
    heard = TokenSequence(torch.randn(1, 12, HEARD * STACK, generator=g), torch.tensor([12]))
    said = TokenSequence(torch.randint(LETTERS, (1, 1, 9), generator=g), torch.tensor([9]))
    prompt = {n: model.listener.hear({}, [n])[n] for n in ("before", "after")}
    # As upstream's tokenizer makes them of its template, which begins with a token that is lalia's start.
    before = prompt["before"].values[0, 0].tolist()
    assert before[0] == LETTERS + 3
    assert before.count(LETTERS + 2) == 1
    assert model.tokenizer("text").decode(prompt["after"])[0].startswith("\nPlease directly answer")
    table = halved.llama.model.embed_tokens
    start = table(torch.tensor([[LETTERS]]))
    x = [start, table(prompt["before"].values[0]), halved.project(heard.values), table(prompt["after"].values[0])]
    known = sum(part.shape[1] for part in x)
    theirs = halved.llama(
        inputs_embeds=torch.cat([*x, table(said.values[0])], dim=1), use_cache=False, output_hidden_states=True
    )
    wanted = theirs.logits[:, known - 1 :].log_softmax(-1)
    ours = llm.log_prob({**prompt, "question": heard, "text": said})["text"]
    ids = torch.cat([said.values[0], torch.tensor([[LETTERS + 2]])], dim=1)
    assert float(theirs.logits.std()) > 0.1
    assert torch.allclose(ours[:, 0], wanted.gather(2, ids[..., None])[..., 0], atol=1e-4)


@torch.no_grad()
def test_units_are_found_along_hidden_states_as_upstream_finds_them(model: Model, halved: Upstream) -> None:
    _, decoder = lms_of(model)
    hidden = torch.randn(1, 7, DIM, generator=torch.Generator().manual_seed(2))
    theirs = halved.units(hidden)
    head = decoder.head("units")
    assert isinstance(head, CTC)
    ours = decoder(decoder.pack({"llm.hidden": TokenSequence(hidden, torch.tensor([7]))}))
    assert float(theirs.std()) > 0.1
    assert torch.allclose(head.labels(ours).log_softmax(-1), theirs, atol=1e-4)
    best = theirs[0].argmax(-1).tolist()
    units = [x for i, x in enumerate(best) if x != UNITS and (i == 0 or x != best[i - 1])]
    assert head.decode(ours, torch.tensor([ours.shape[1]])).values[0, 0].tolist() == units


def test_it_answers_in_text_and_units(model: Model, clip: Path) -> None:
    # Whisper hears 30 seconds, however short the question.
    heard = model.listener.hear({"user": Audio.load(clip)}, ["question"])["question"]
    assert heard.values.shape == (1, 300, HEARD * STACK)
    reply = model.chat(clip, seconds=0.1)
    assert reply.audio is None
    made = int(reply.streams["text"].lengths[0])
    assert made > 0
    assert reply.text == model.tokenizer("text").decode(reply.streams["text"])[0].strip()
    assert int(reply.streams["units"].lengths[0]) <= UPSAMPLE * (made + 1)
    assert int(reply.streams["units"].values.max()) < UNITS


@pytest.mark.filterwarnings("always:.*has no vocoder")
def test_what_is_missing_is_said_once(
    folder: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reply.wav"
    assert main(["chat", str(clip), "--model", str(folder), "-o", str(out), "--seconds", "0.1"]) == 0
    told = capsys.readouterr()
    assert "nothing was said aloud" in told.out
    assert told.err.count("warning:") == 1
    assert not out.exists()
    assert main(["continue", str(clip), "--model", str(folder), "-o", str(out)]) == 2
    assert "error: Model 'llama_omni' has no vocoder" in capsys.readouterr().err


def test_a_saved_copy_is_the_same_model(model: Model, clip: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "copy")
    again = lalia.load(tmp_path / "copy")
    assert again.recipe == model.recipe
    a, b = model.module.state_dict(), again.module.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert again.chat(clip, seconds=0.1).text == model.chat(clip, seconds=0.1).text


@pytest.mark.filterwarnings("ignore:.*has no vocoder")
def test_a_llama_that_predicts_with_its_embeddings_has_them_twice(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "tied")
    (copy / "config.json").write_text(json.dumps({**LLAMA, **SPEECH, "tie_word_embeddings": True}))
    for path in copy.glob("*.safetensors"):
        save_file({n: t for n, t in load_file(path).items() if n != "lm_head.weight"}, path)
    llm, _ = lms_of(lalia.load(copy, dtype=torch.float16))
    entering, predicting = llm.tables["text"].embedding.weight, llm.linear("text").weight
    assert torch.equal(entering, predicting)
    assert entering.data_ptr() != predicting.data_ptr()


def test_the_published_sizes_are_those_of_the_recipe(folder: Path, tmp_path: Path) -> None:
    llama = {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    }
    speech = {
        "speech_encoder": "models/speech_encoder/large-v3.pt",
        "speech_encoder_hidden_size": 1280,
        "ctc_decoder_config": "(2,4096,32,11008)",
        "ctc_upsample_factor": 25,
        "unit_vocab_size": 1000,
    }
    (tmp_path / "config.json").write_text(json.dumps({**SPEECH, **speech, **llama}))
    family = recognise(tmp_path)
    assert family is not None
    recipe, known = family.recipe(tmp_path, "ICTNLP/Llama-3.1-8B-Omni"), find_recipe("llama_omni")
    assert {n: s for n, s in recipe.specs.items() if n in known.specs} == known.specs
    encoder: Any = recipe.streams["question"].tokenizer
    assert encoder.encoder == "openai/whisper-large-v3"
    assert recipe.lms["speech_decoder"].upsample == known.lms["speech_decoder"].upsample
    with torch.device("meta"):
        ours, theirs = build_lms(recipe), build_lms(known)
    # The final norm aside, which upstream's generator has not.
    sizes = [{n: p.shape for n, p in lms.named_parameters()} for lms in (ours, theirs)]
    assert sizes[1].pop("speech_decoder.backbone.norm.weight") == (4096,)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"ctc_decoder_config": "2"}, "should be four numbers"),
        ({"unit_vocab_size": None}, "has no unit_vocab_size"),
        ({"speech_generator_type": "ar"}, "another kind of LLaMA-Omni"),
        ({"num_hidden_layers": 3}, r"have no 'model\.layers\.2"),
        ({"num_hidden_layers": 1}, "which lalia does not know"),
        ({"ctc_decoder_config": "(1,24,3,40)"}, "which lalia does not know"),
        ({"unit_vocab_size": 21}, "the recipe needs"),
        ({"num_attention_heads": "four"}, "is no configuration of a llama"),
    ],
)
def test_variants_are_refused_in_one_line(folder: Path, tmp_path: Path, change: dict[str, Any], wrong: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "variant")
    said = {n: v for n, v in {**LLAMA, **SPEECH, **change}.items() if v is not None}
    (copy / "config.json").write_text(json.dumps(said))
    with pytest.raises(LaliaError, match=wrong) as error:
        lalia.load(copy)
    assert "\n" not in str(error.value)


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "damaged")
    path = min(copy.glob("*.safetensors"))
    whole = load_file(path)
    save_file({n: t for n, t in whole.items() if "linear1" not in n and "input_proj" not in n}, path)
    with pytest.raises(
        WeightsError, match=r"have no '(model\.speech_projector\.linear1|speech_generator\.input_proj)'"
    ):
        lalia.load(copy)
