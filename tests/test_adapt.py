"""Another text LM in mini, of another width and vocabulary, to which what is heard is fitted by one command."""

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file

import lalia
from lalia.data import Manifest, Utterance
from lalia.errors import RecipeError
from lalia.model import Model
from lalia.recipes import find
from lalia.tokenizers import soft_text
from lalia.train import train
from lalia.train.needs import streams_of_stages

pytestmark = pytest.mark.usefixtures("one_thread")
SAID = ("How far is the moon?", "Who wrote it?", "Name a sea.", "Why is it cold?", "What is a boat?", "Is it late?")
FEW = {f"stages.adapt.trainer.{k}": v for k, v in {"max_steps": "3", "eval_every": "3", "precision": "fp32"}.items()}


@pytest.fixture(scope="module")
def other_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of random weights with a tokenizer and a chat template of its own, as a hub would have it."""
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("other")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|turn|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        SAID * 3, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    template = (
        "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", chat_template=template)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    shape = Qwen2Config(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        eos_token_id=bpe.token_to_id("<|end|>"),
        bos_token_id=None,
    )
    Qwen2ForCausalLM(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny mini that was trained: its recogniser has learned to hear short sounds."""
    torch.manual_seed(0)
    made = Model(find("mini").tiny())
    hears = made.tokenizer("question")
    net = hears.recognizer.net
    learned = {n: 1.01 * p for n, p in net.named_parameters() if n.startswith("encoder.") and "embed" not in n}
    model = Model(find("mini").tiny(), learned={"question": learned})
    folder = tmp_path_factory.mktemp("begun")
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def spoken(noise: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    rows = []
    for i, text in enumerate(SAID):
        soundfile.write(folder / f"{i}.wav", noise(1.0, seed=i), 16000)
        rows.append(Utterance(id=f"u{i}", path=folder / f"{i}.wav", duration=1.0, text=text, speaker=f"s{i}"))
    Manifest(rows).save(folder / "manifest.jsonl")
    return folder


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LALIA_HOME", str(tmp_path / "home"))


def test_it_is_fitted_saved_and_talked_to(
    other_lm: Path, begun: Path, spoken: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    settings: dict[str, Any] = {"stage": "adapt", "lm": str(other_lm), "init": begun, "overrides": FEW}
    run = train(find("mini").tiny(), [spoken], tmp_path / "run", tell=told.append, **settings)
    assert any(line.startswith("Begun with") for line in told)

    model, first = lalia.load(str(run)), Model.load(begun)
    # What was begun with, but for the LM.
    assert all(
        torch.equal(p, first.module.state_dict()[n]) for n, p in model.vocoder.state_dict(prefix="vocoder.").items()
    )
    ours, theirs = model.tokenizer("question").weights(), first.tokenizer("question").weights()
    assert ours
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    # What was fitted, and nothing else of the LM, is in the file; the rest is where it was.
    weights = load_file(run / "model.safetensors")
    assert {n for n in weights if n.startswith("lms.")} == {
        f"lms.llm.inputs.question.first.{p}" for p in ("weight", "bias")
    }
    adapter = weights["lms.llm.inputs.question.first.weight"]
    assert adapter.shape == (48, 48)
    assert 0 < float((adapter - torch.eye(48)).abs().max()) < 0.1
    upstream = load_file(other_lm / "model.safetensors")
    embeddings: Any = model.lms["llm"].tables["text"]
    assert torch.equal(embeddings.embedding.weight[:320], upstream["model.embed_tokens.weight"])
    # It learned from questions as it is asked them.
    assert model.tokenizer("text").tokenizer.chat_template
    rows = [json.loads(x) for x in (run / "stages/adapt/metrics.jsonl").read_text().splitlines()]
    assert all(row["kl"] > 0 for row in rows if "kl" in row)

    monkeypatch.setattr(soft_text.Heard, "understood", True)
    again = lalia.load(str(run))
    replies = [m.dialogue(max_tokens=8, speak=False).answer(str(clip)).text for m in (model, again)]
    assert replies[0] == replies[1]
    spoken_reply = model.dialogue(max_tokens=8).answer("Who are you?", typed=True)
    assert spoken_reply.text or spoken_reply.audio is None
    # Stopped and gone on with, from what the run itself has.
    train(find("mini").tiny(), [spoken], run, resume=True, **settings)


def test_it_is_run_only_when_it_is_named(spoken: Path, tmp_path: Path) -> None:
    recipe = find("mini")
    assert [s.name for s in recipe.stages_of(None)] == ["spell", "utter", "sound"]
    assert [s.name for s in recipe.stages_of("adapt")] == ["adapt"]
    with pytest.raises(RecipeError, match="has no stage 'adopt'"):
        train(recipe, [spoken], tmp_path / "run", stage="adopt")


def test_what_it_learns_from_is_the_words_and_the_template() -> None:
    recipe = find("mini")
    # How something is said has no text, and most speech has no manner at all.
    assert streams_of_stages(recipe, "adapt") == ("before", "after", "question", "typed")
    assert recipe.channels_of(streams_of_stages(recipe, "adapt")) == ("user",)
