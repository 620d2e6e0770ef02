"""STSP: its files, its score, and classifiers of a few thousand random parameters."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.errors import DataError, WeightsError
from lalia.evaluation.prosody import (
    SpeechSentiment,
    STSPItem,
    TextSentiment,
    evaluate_stsp,
    read_predictions,
    read_stsp,
    score_stsp,
    sentiment_of,
    write_predictions,
)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_set(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "wav_path": "emov/1.wav", "emotion": "amused", "asr": "ha"},
        {"id": "x", "wav_path": "x.wav", "sentiment": "neutral"},
    ]
    path = write(tmp_path / "set.jsonl", *rows)
    assert read_stsp(path) == [
        STSPItem("1", tmp_path / "emov/1.wav", "positive", "amused", "ha"),
        STSPItem("x", tmp_path / "x.wav", "neutral"),
    ]
    assert read_stsp(path, sounds="/far")[0].path == Path("/far/emov/1.wav")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no prompts"),
        ([{"id": 1, "emotion": "sad"}], "prompt 1 lacks"),
        ([{"id": 1, "wav_path": "a", "emotion": "bored"}], "prompt 1: 'bored' is no sentiment"),
        ([{"id": 1, "wav_path": "a", "emotion": "sad"}] * 2, "prompt 2 has the id '1' a second time"),
    ],
)
def test_bad_sets(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_stsp(write(tmp_path / "set.jsonl", *rows))


def test_sentiments_of_emotions() -> None:
    assert [sentiment_of(x) for x in ("happy", "amused", "sad", "angry", "default", "Neutral")] == [
        "positive",
        "positive",
        "negative",
        "negative",
        "neutral",
        "neutral",
    ]


labels = st.sampled_from(["positive", "negative", "neutral"])


@given(st.lists(st.tuples(labels, st.one_of(labels, st.none(), st.sampled_from(["happy", "sad"]))), min_size=1))
def test_accuracy_is_a_count(rows) -> None:
    items = [STSPItem(str(n), Path("x"), right) for n, (right, _) in enumerate(rows)]
    found = score_stsp(items, {str(n): said for n, (_, said) in enumerate(rows) if said is not None})
    means = {"happy": "positive", "sad": "negative"}
    right = [said is not None and means.get(said, said) == label for label, said in rows]
    assert found.figures["accuracy"].value == pytest.approx(sum(right) / len(rows))
    assert found.counts.failed == sum(said is None for _, said in rows)
    for label in {label for label, _ in rows}:
        own = [r for r, (known, _) in zip(right, rows, strict=True) if known == label]
        assert found.figures[f"accuracy_{label}"].value == pytest.approx(sum(own) / len(own))
    sizes = {label: sum(known == label for known, _ in rows) for label, _ in rows}
    assert bool(found.notes) == (len(set(sizes.values())) > 1)


def test_emotions_and_strangers(tmp_path: Path) -> None:
    items = [STSPItem("1", Path("x"), "positive", "happy"), STSPItem("2", Path("x"), "positive", "amused")]
    predictions = {"1": "happy", "2": "happy"}
    assert score_stsp(items, predictions).value == 1.0
    assert score_stsp(items, predictions, level="emotion").value == 0.5
    path = write_predictions(predictions, tmp_path / "pred.jsonl")
    assert read_predictions(path) == predictions
    with pytest.raises(DataError, match="for '3'"):
        score_stsp(items, {"3": "happy"})
    with pytest.raises(DataError, match="is no sentiment"):
        score_stsp(items, {"1": "fine"})
    with pytest.raises(DataError, match="has no emotion"):
        score_stsp([STSPItem("1", Path("x"), "positive")], {}, level="emotion")
    with pytest.raises(DataError, match="a second time"):
        read_predictions(write(tmp_path / "twice.jsonl", {"id": 1, "pred": "happy"}, {"id": "1", "pred": "sad"}))
    with pytest.raises(DataError, match="prediction 1 is not"):
        read_predictions(write(tmp_path / "bad.jsonl", {"id": 1}))


def test_a_run() -> None:
    items = [STSPItem(str(n), Path("x"), s, text=s) for n, s in enumerate(("positive", "negative", "neutral"))]

    def go_on(item: STSPItem) -> str:
        if item.id == "1":
            raise DataError("Nothing came. Ask again.")
        return f"{item.text} and more"

    scored, predictions = evaluate_stsp(items, go_on, lambda texts: [str(t).split()[0] for t in texts])
    assert predictions == {"0": "positive", "2": "neutral"}
    assert scored.value == pytest.approx(2 / 3)
    assert scored.counts.failed == 1
    assert scored.items[1]["reason"] == "Nothing came. Ask again."


@pytest.fixture(scope="module")
def hears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    folder = tmp_path_factory.mktemp("hears")
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        conv_dim=(4, 4),
        conv_stride=(20, 16),
        conv_kernel=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=4,
        vocab_size=8,
        id2label=dict(enumerate(("angry", "default", "happy", "sad"))),
    )
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("reads")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=16,
        id2label=dict(enumerate(("negative", "neutral", "positive"))),
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_classifiers(hears: Path, reads: Path, tmp_path: Path) -> None:
    speech, text = SpeechSentiment(hears), TextSentiment(reads)
    tone = Audio(torch.cos(torch.arange(8000) * 0.3), 8000)
    (label,) = speech([tone])
    assert label in ("angry", "default", "happy", "sad")
    assert speech([tone, tone]) == [label, label]
    (said,) = text(["good " * 40])
    assert said in ("negative", "neutral", "positive")
    assert speech.name == hears.name
    assert "weights " in speech.version
    with pytest.raises(DataError, match="cannot read"):
        speech(["good"])
    with pytest.raises(DataError, match="cannot hear"):
        text([tone])
    items = [STSPItem("0", Path("x"), sentiment_of(label))]
    assert evaluate_stsp(items, lambda _: tone, speech)[0].value == 1.0


def test_what_is_no_classifier(hears: Path, tmp_path: Path) -> None:
    import shutil

    other = shutil.copytree(hears, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["id2label"] = {str(i): f"LABEL_{i}" for i in range(4)}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="tells LABEL_0, LABEL_1"):
        SpeechSentiment(other)([Audio(torch.ones(8000), 16000)])
    (other / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be read as a classifier"):
        TextSentiment(other)(["good"])
