"""SentencePiece's files: the same ids as through the converter of transformers."""

from pathlib import Path

import pytest

from lalia.errors import ConfigError, WeightsError
from lalia.tokenizers import Text
from lalia.tokenizers.sentencepiece import read
from upstream_files import sentencepiece_model

TEXTS = (
    "hello worlds",
    "hello, hello",
    "  hello  world ",
    "worlds",
    "größe 你好 🙂",
    "",
    "lo\nlo",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer_spm_32k_3.model").write_bytes(sentencepiece_model())
    return tmp_path


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(folder: Path, text: str) -> None:
    pytest.importorskip("google.protobuf")
    from transformers.convert_slow_tokenizer import MoshiConverter

    path = folder / "tokenizer_spm_32k_3.model"
    theirs = MoshiConverter(str(path)).converted()
    ours = read(path)
    ids = ours.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert ids == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == theirs.decode(ids)


def test_a_folder_with_nothing_else_is_a_text_tokenizer(folder: Path) -> None:
    text = Text.Config(str(folder), vocabulary_size=300).build()
    for written in ("hello worlds, hello", "größe 你好 🙂"):
        tokens = text.encode(written)
        assert text.decode(tokens) == [written]
        decoder = text.stream()
        ids = tokens.values[0, 0].tolist()
        assert "".join(decoder.push([i], final=i is ids[-1]) for i in ids) == written
    for name in ("hello</s>", "<0x41>"):
        assert text.decode(text.encode(name)) == [name]
    assert int(text.encode("</s>", special=True).values[0, 0, -1]) == 2
    assert [w.tolist() for w in text.encode_words(["hello", "world"])] == [[263], [264]]
    with pytest.raises(ConfigError, match="Raise it"):
        _ = Text.Config(str(folder), vocabulary_size=100).build().tokenizer


def test_spaces_are_thinned_out_where_the_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(sentencepiece_model(thin=1))
    ours = read(tmp_path / "a.model")
    assert ours.encode("  hello   world ") == ours.encode("hello world") == [263, 264]


def test_no_space_is_put_before_a_text_where_the_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(sentencepiece_model(prefix=0))
    ours = read(tmp_path / "a.model")
    assert ours.encode("lo") == [262]
    assert ours.decode(ours.encode(" lo")) == " lo"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (sentencepiece_model(kind=2), "no unigram model"),
        (sentencepiece_model()[:-3], "damaged"),
        (b"\xff\xff\xff", "damaged"),
        (b"", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "damaged"),
    ],
)
def test_other_files_are_refused_in_one_line(folder: Path, content: bytes, wrong: str) -> None:
    (folder / "tokenizer_spm_32k_3.model").write_bytes(content)
    with pytest.raises(WeightsError, match=wrong) as error:
        _ = Text.Config(str(folder), vocabulary_size=300).build().tokenizer
    assert "\n" not in str(error.value)
