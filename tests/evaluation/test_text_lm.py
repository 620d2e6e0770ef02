from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.checkpoints import KNOWN, cached
from lalia.errors import ConfigError, DataError, WeightsError
from lalia.evaluation import text_lm
from lalia.evaluation.text_lm import CausalLM


def write_lm(folder: Path, *, opens: bool = False, size: int = 32) -> Path:
    """A byte-level GPT-2 of a few thousand random parameters; "un", "likely" and "unlikely" are tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("u", "n"), ("l", "i"), ("k", "e"), ("l", "y"), ("li", "ke"), ("like", "ly"), ("un", "likely")]
    vocabulary = {x: i for i, x in enumerate([*letters, *(a + b for a, b in merges), "<|endoftext|>", "<s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<s>"])
    if opens:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|endoftext|>"}'
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=size, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lm(tmp_path_factory.mktemp("lm") / "tiny-lm")


@pytest.fixture(scope="module")
def lm(folder: Path) -> CausalLM:
    return CausalLM(folder)


def naive(folder: Path, tokens: list[str]) -> list[float]:
    """One token after another, from all that came before."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer.convert_tokens_to_ids(tokens)
    with torch.inference_mode():
        return [float(model(torch.tensor([ids[:t]])).logits[0, -1].log_softmax(0)[ids[t]]) for t in range(1, len(ids))]


START = "<|endoftext|>"


def test_each_token_given_those_before(lm: CausalLM, folder: Path) -> None:
    (found,) = lm.log_probs(["unlikely a"])
    assert found.tolist() == pytest.approx(naive(folder, [START, "unlikely", "Ġ", "a"]), abs=1e-5)
    assert lm.log_prob("unlikely a") == pytest.approx(float(found.sum()), abs=1e-5)


def test_a_batch_is_what_each_is(lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a", "", "unlikely", "abcdefgh ijk", "é", "un like"]
    alone = [lm.log_probs([text])[0].tolist() for text in texts]
    for most in (1024, 12, 1):
        monkeypatch.setattr(text_lm, "_TOKENS", most)
        for one, other in zip(lm.log_probs(texts), alone, strict=True):
            assert one.tolist() == pytest.approx(other, abs=1e-5)


def test_prompt_and_text_are_the_whole(lm: CausalLM) -> None:
    whole = lm.log_prob("the bark of trees")
    for at in range(len("the bark of trees") + 1):
        prompt, text = "the bark of trees"[:at], "the bark of trees"[at:]
        # A boundary inside no token parts the tokens of the whole.
        assert lm.log_prob(text, prompt) + lm.log_prob(prompt) == pytest.approx(whole, abs=1e-4)


def shared(folder: Path, prompt: str, texts: list[str], **settings: Any) -> tuple[list[list[float]], int]:
    """What texts behind one prompt score at once, and the tokens that the model saw."""
    lm = CausalLM(folder)
    model, *_ = lm._load()
    if not settings.get("branching", True):
        lm.__dict__["_branching"] = False
    assert lm._branching is settings.get("branching", True)
    seen = []
    model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
    return [x.tolist() for x in lm.log_probs(texts, [prompt] * len(texts))], sum(seen)


def test_a_prompt_is_read_once(folder: Path) -> None:
    prompt, texts = "the bark of trees", [" un", " unlike it", " a", " un", "", " unlike a"]
    found, tokens = shared(folder, prompt, texts)
    plain, all_tokens = shared(folder, prompt, texts, branching=False)
    for one, other in zip(found, plain, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert tokens < all_tokens / 2


def test_texts_share_nothing_in_a_model_that_cannot(folder: Path, tmp_path: Path) -> None:
    """A window is the mask's, which a mask of one's own would take the place of."""
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
        initializer_range=0.5,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path)
    lm = CausalLM(tmp_path)
    lm._load()
    assert not lm._branching
    texts = [" un", " unlike it"]
    together = lm.log_probs(texts, ["the bark of trees"] * 2)
    for text, found in zip(texts, together, strict=True):
        alone = naive(tmp_path, [START, *tokenizer.tokenize("the bark of trees" + text)])
        assert found.tolist() == pytest.approx(alone[-len(found) :], abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "text", "before", "behind"),
    [
        ("a", " un", ["a"], ["Ġ", "un"]),
        ("un", "likely", [], ["unlikely"]),
        ("a un", "likely", ["a", "Ġ"], ["unlikely"]),
        # One character of two bytes, each a token.
        ("a", "é", ["a"], ["Ã", "©"]),
        ("é", "a", ["Ã", "©"], ["a"]),
        ("a", "", ["a"], []),
    ],
)
def test_the_boundary(lm: CausalLM, folder: Path, prompt: str, text: str, before: list[str], behind: list[str]) -> None:
    (found,) = lm.log_probs([text], [prompt])
    assert found.tolist() == pytest.approx(naive(folder, [START, *before, *behind])[len(before) :], abs=1e-5)


def test_what_opens_a_text(tmp_path: Path, folder: Path) -> None:
    expected = naive(folder, ["<s>", "a"])
    assert CausalLM(write_lm(tmp_path / "opens", opens=True)).log_probs(["a"])[0].tolist() == pytest.approx(expected)
    told = CausalLM(folder, start="<s>")
    assert told.log_probs(["a"])[0].tolist() == pytest.approx(expected)
    assert "<s>" in told.version
    with pytest.raises(ConfigError, match="'<x>'"):
        CausalLM(folder, start="<x>").log_prob("a")


def test_bad_input(lm: CausalLM, tmp_path: Path) -> None:
    assert lm.log_probs([]) == []
    with pytest.raises(DataError, match="33 tokens"):
        lm.log_probs(["a", "b" * 32])
    with pytest.raises(DataError, match="2 texts and 1 prompts"):
        lm.log_probs(["a", "b"], ["c"])
    with pytest.raises(WeightsError):
        CausalLM("nobody-knows-this")
    write_lm(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(WeightsError, match="broken is no causal LM"):
        CausalLM(tmp_path / "broken").log_prob("a")


def test_a_trained_one_knows_english() -> None:
    if cached(KNOWN["smollm2-135m-instruct"]) is None:
        pytest.skip("run: lalia fetch smollm2-135m-instruct")
    lm = CausalLM("smollm2-135m-instruct")
    good, bad = lm.log_probs(["The dogs bark at the cat.", "The dogs barks at cat the."])
    assert good.mean() > bad.mean() + 0.5
    prompt = "The capital of France is"
    assert lm.log_prob(" Paris", prompt) > lm.log_prob(" table", prompt) + 3
