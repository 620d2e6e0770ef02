import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.errors import ConfigError, LayoutError, WeightsError
from lalia.streams import TokenSequence
from lalia.tokenizers import Text
from lalia.tokenizers.fast import FastTokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and then again.",
    "Λαλιά means talk. 語 means language — naïve, isn't it?",
    "Say it again , and again ; it 's the same !",
]
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE as GPT-2's, small enough to leave most characters in pieces."""
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    path = tmp_path_factory.mktemp("bpe")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(path)
    assert {p.name for p in path.iterdir()} >= {"tokenizer.json", "tokenizer_config.json"}
    assert not (path / "config.json").exists()
    return path


@pytest.fixture(scope="module")
def text(folder: Path) -> Text:
    return Text.Config(str(folder), vocabulary_size=320, end=0).build()


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """A BPE as Llama's: a space is a sign, dropped at the beginning of a text, and rare characters are bytes."""
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", END, *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS[::2], trainer)
    path = tmp_path_factory.mktemp("marked")
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token="<unk>")
    made.save_pretrained(path)
    return Text.Config(str(path), vocabulary_size=400).build()


# hypothesis takes fixtures that are not made again for each example.
TEXTS = st.text(max_size=30) | st.sampled_from([*CORPUS, "", " ", "  two  spaces  ", "語", "e\u0301", "👩‍👩‍👧", END])


@given(words=TEXTS)
def test_text_comes_back(text: Text, words: str) -> None:
    tokens = text.encode(words)
    assert tokens.values.shape[:2] == (1, 1)
    assert tokens.values.dtype == torch.long
    assert tokens.durations is None
    assert text.decode(tokens) == [words]


@given(rows=st.lists(TEXTS, min_size=1, max_size=4))
def test_batch_of_texts(text: Text, rows: list[str]) -> None:
    tokens = text.encode(rows)
    assert text.decode(tokens) == rows
    for b, words in enumerate(rows):
        assert torch.equal(tokens.row(b).values, text.encode(words).values)


def test_no_texts(text: Text) -> None:
    with pytest.raises(LayoutError, match="no sequences"):
        text.encode([])


def test_special_tokens_are_letters_unless_asked_for(text: Text) -> None:
    said = text.encode(f"Say {END} now.")
    assert 0 not in said.values
    assert text.decode(said) == [f"Say {END} now."]
    template = text.encode(f"Say {END} now.", special=True)
    assert template.values.flatten().tolist().count(0) == 1
    assert text.decode(template) == ["Say  now."]
    assert text.encode(f"Say {END} now.").values.tolist() == said.values.tolist(), "the one does not change the other"


def test_spaces_before_punctuation_stay(text: Text) -> None:
    assert text.decode(text.encode("no , not 's .")) == ["no , not 's ."]


def test_ids_that_the_table_has_and_the_tokenizer_has_not(folder: Path) -> None:
    text = Text.Config(str(folder), vocabulary_size=1000).build()
    ids = [*text.encode("again").values.flatten().tolist(), 999]
    assert text.decode(TokenSequence(torch.tensor([[ids]]), torch.tensor([len(ids)]))) == ["again"]


# -- streaming ------------------------------------------------------------------------------------


@given(words=TEXTS, sizes=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_stream_gives_the_text_whatever_the_pieces(text: Text, words: str, sizes: list[int]) -> None:
    ids, decoder, out, i = text.encode(words).values.flatten().tolist(), text.stream(), [], 0
    for k in range(10_000):
        if i >= len(ids):
            break
        step = sizes[k % len(sizes)] or (k % 2)
        out.append(decoder.push(ids[i : i + step]))
        i += step
    out.append(decoder.push([], final=True))
    assert "".join(out) == words


@given(ids=st.lists(st.integers(0, 330), max_size=40))
def test_stream_of_any_ids_gives_what_decoding_them_at_once_gives(text: Text, ids: list[int]) -> None:
    """Bytes that make no character, special tokens and unknown ids included."""
    decoder = text.stream()
    out = [decoder.push([i]) for i in ids] + [decoder.push([], final=True)]
    whole = TokenSequence(torch.tensor(ids, dtype=torch.long)[None, None], torch.tensor([len(ids)]))
    assert "".join(out) == text.decode(whole)[0]


@given(
    words=st.lists(st.sampled_from(["fox", "again,", "the", " ", "語", "naïve", "👩", "x"]), max_size=8).map(" ".join)
)
def test_stream_of_a_vocabulary_that_marks_spaces(marked: Text, words: str) -> None:
    tokens, decoder = marked.encode(words), marked.stream()
    pieces = [decoder.push([i]) for i in tokens.values.flatten().tolist()] + [decoder.push([], final=True)]
    assert "".join(pieces) == marked.decode(tokens)[0]
    assert all("\N{REPLACEMENT CHARACTER}" not in p for p in pieces)


def test_character_in_pieces_is_held_back_and_nothing_else(text: Text) -> None:
    ids = text.encode("a漢").values.flatten().tolist()
    assert len(ids) > 2, "the character should be of several tokens"
    decoder = text.stream()
    assert decoder.push(ids[:-1]) == "a"
    assert decoder.push([]) == ""
    assert decoder.push(ids[-1:]) == "漢"


def test_character_that_never_ends_is_given_at_the_end(text: Text) -> None:
    decoder = text.stream()
    assert decoder.push(text.encode("a漢").values.flatten().tolist()[:-1]) == "a"
    assert decoder.push([], final=True) == "\N{REPLACEMENT CHARACTER}"


def test_long_stream_keeps_little(text: Text) -> None:
    decoder = text.stream()
    for _ in range(50):
        decoder.push([0] * 20)
        decoder.push(text.encode(" again").values.flatten().tolist())
    assert len(decoder._ids) < 20


# -- what is refused ------------------------------------------------------------------------------


def test_table_that_is_too_small(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 320 tokens, but vocabulary_size is 319\. Raise it\."):
        Text.Config(str(folder), vocabulary_size=319).build().encode("x")


def test_end_that_is_no_id(folder: Path) -> None:
    with pytest.raises(ConfigError, match="ends with id 320"):
        Text.Config(str(folder), vocabulary_size=320, end=320).build()


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has no tokenizer that can be read"):
        Text.Config(str(tmp_path), vocabulary_size=10).build().encode("x")
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(WeightsError, match="has no tokenizer that can be read"):
        Text.Config(str(tmp_path), vocabulary_size=10).build().encode("x")
    with pytest.raises(WeightsError, match="no weights named 'nothing-by-this-name'"):
        Text.Config("nothing-by-this-name", vocabulary_size=10).build().encode("x")


def test_stream_is_known_before_anything_is_read() -> None:
    spec = Text.Config("nowhere", vocabulary_size=10, end=3, rate=12.5).spec
    assert (spec.kind.end_id, spec.frame_rate) == (3, 12.5)  # type: ignore[union-attr]


@given(words=TEXTS, literally=st.booleans())
def test_without_transformers_the_ids_are_the_same(folder: Path, text: Text, words: str, literally: bool) -> None:
    own, theirs = FastTokenizer(folder), text.tokenizer
    options = {"add_special_tokens": False, "split_special_tokens": literally}
    ids = theirs.encode(words, **options)
    assert own.encode(words, **options) == ids
    for skip in (True, False):
        options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": False}
        assert own.decode(ids, **options) == theirs.decode(ids, **options)
    assert len(own) == len(theirs)
    assert set(own.all_special_ids) == set(theirs.all_special_ids)


def test_without_transformers_a_template_gives_the_same(text: Text, tmp_path: Path) -> None:
    form = "{% for m in messages %}\n  {% if loop.first %}\n{{ eos_token }}{% endif %}\n[{{ m['role'] }}] "
    theirs = text.tokenizer
    theirs.chat_template = form + "{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}[me]{% endif %}"
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = theirs.chat_template
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    talk = [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Yes."}]
    for more in (True, False):
        options = {"tokenize": False, "add_generation_prompt": more}
        made = FastTokenizer(tmp_path).apply_chat_template(talk, **options)
        assert made == theirs.apply_chat_template(talk, **options)
    (tmp_path / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(WeightsError, match="Fetch it again"):
        FastTokenizer(tmp_path)
