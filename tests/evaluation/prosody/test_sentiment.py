"""STSP: its files, its score, and classifiers of a few thousand random parameters."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError, WeightsError
from lalia.evaluation.benchmarks import Bench
from lalia.evaluation.benchmarks.stsp import STSP
from lalia.evaluation.prosody import (
    SpeechSentiment,
    STSPItem,
    TextSentiment,
    read_stsp,
    score_stsp,
    sentiment_classifier,
    sentiment_of,
)
from lalia.evaluation.prosody.sentiment import MAX_TOKENS


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


def test_emotions_and_strangers() -> None:
    items = [STSPItem("1", Path("x"), "positive", "happy"), STSPItem("2", Path("x"), "positive", "amused")]
    predictions = {"1": "happy", "2": "happy"}
    assert score_stsp(items, predictions).value == 1.0
    assert score_stsp(items, predictions, level="emotion").value == 0.5
    with pytest.raises(DataError, match="for '3'"):
        score_stsp(items, {"3": "happy"})
    with pytest.raises(DataError, match="is no sentiment"):
        score_stsp(items, {"1": "fine"})
    with pytest.raises(DataError, match="has no emotion"):
        score_stsp([STSPItem("1", Path("x"), "positive")], {}, level="emotion")


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
    assert isinstance(sentiment_classifier(hears), SpeechSentiment)
    assert isinstance(sentiment_classifier(reads), TextSentiment)


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


# -- the benchmark ------------------------------------------------------------------------------


class GoesOn:
    """Goes on with speech as long as its prompt, and with what is written; ``fails`` on some texts."""

    def __init__(self, fails: str = "") -> None:
        self.asked: list[str] = []
        self.fails = fails

    def continue_(self, audio: Audio, *, prompt_seconds: None, seconds: float, temperature: float, seed: int) -> Any:
        self.asked.append("speech-speech")
        assert (seconds, temperature) == (12.0, 0.8)
        return SimpleNamespace(audio=Audio(torch.cat([audio.samples] * 2, -1), audio.sample_rate), prompt_seconds=0.5)

    def continue_parts(self, parts: Any, into: str, *, tokens: int, sampling: Any, seed: int) -> Any:
        (part,) = parts
        given = "text" if isinstance(part, str) else "speech"
        self.asked.append(f"{given}-{into}")
        assert (sampling.temperature, sampling.top_p, tokens) == (0.8, 0.95, 200 if into == "speech" else 50)
        if part == self.fails:
            raise DataError("Nothing came. Ask again.")
        if into == "speech":
            return Audio(0.1 * torch.ones(1, 1, 8000), 16_000)
        return "good" if part == "good" else "bad"


class Tells:
    """A classifier whose label is what was said; of sound, positive."""

    name, version = "tells", "1"

    def __init__(self, modality: str) -> None:
        self.modality = modality

    def __call__(self, what: Any) -> list[str]:
        return [{"good": "positive", "bad": "sad"}[x] if isinstance(x, str) else "happy" for x in what]


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in "ab":
        Audio(0.3 * torch.cos(torch.arange(8000) * 0.3), 16_000).save(tmp_path / f"{name}.wav")
    monkeypatch.setattr("lalia.evaluation.benchmarks.stsp.sentiment_classifier", Tells)
    rows = [
        {"id": "a", "wav_path": "a.wav", "emotion": "happy", "asr": "good"},
        {"id": "b", "wav_path": "b.wav", "emotion": "sad", "asr": "awful"},
    ]
    return write(tmp_path / "set.jsonl", *rows)


def test_every_direction(prompts: Path, tmp_path: Path) -> None:
    model = GoesOn("awful")
    bench = Bench(model, "m", "m", path=prompts, judge_paths=["speech", "text"], folder=tmp_path / "kept")
    found = STSP(runs=2).run(bench)
    values = {f.key: (f.estimate.value, f.estimate.n) for f in found.figures}
    assert {k: v for k, v in values.items() if k.endswith(".accuracy")} == {
        "text-text.accuracy": (0.5, 2),
        "speech-text.accuracy": (0.5, 2),
        "text-speech.accuracy": (0.5, 2),
        "speech-speech.accuracy": (0.5, 2),
    }
    # Heard, the first is gone on with as something bad, and the second rightly so.
    assert values["speech-text.accuracy_positive"][0] == 0.0
    assert values["text-text.accuracy_negative"][0] == 0.0
    assert sorted(set(model.asked)) == sorted(set(found.details["counts"]))
    assert found.details["counts"]["text-text"] == {"asked": 4, "answered": 2, "failed": 2}
    assert "text behind text: 2 of 4 have no continuation: Nothing came. Ask again." in found.notes
    again = Bench(
        None, "m", "m", path=prompts, judge_paths=["speech", "text"], folder=tmp_path / "kept", score_only=True
    )
    assert STSP(runs=2).run(again) == found


def test_only_what_somebody_can_judge(prompts: Path) -> None:
    model = GoesOn()
    found = STSP(runs=1).run(Bench(model, "m", "m", path=prompts, judge_paths=["text"], limit=1))
    assert set(model.asked) == {"text-text", "speech-text"}
    assert found.settings["judges"] == [{"name": "tells", "version": "1"}]
    with pytest.raises(ConfigError, match="Name the path of one with --judge"):
        STSP().run(Bench(model, "m", "m", path=prompts))
    with pytest.raises(DataError, match="No prompts of stsp were named"):
        STSP().run(Bench(model, "m", "m", judge_paths=["text"]))


def test_the_command(tmp_path: Path, hears: Path, reads: Path, lalia: Any) -> None:
    from lalia.model import Model
    from lalia.recipes.spirit_lm import spirit_lm

    model = Model(spirit_lm().tiny())
    clip = Audio.load(Path(__file__).parents[3] / "examples" / "question.flac").mono()
    model.tokenizer("speech").fit([clip])
    model.save(tmp_path / "model")
    clip.save(tmp_path / "a.wav")
    data = write(tmp_path / "set.jsonl", {"id": "a", "wav_path": "a.wav", "emotion": "happy", "asr": "good"})
    ran = lalia("eval", tmp_path / "model", "stsp", "--data", data, "--judge", hears, "--judge", reads, "--json")
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)["results"]["stsp"]
    assert {n: c["answered"] for n, c in found["details"]["counts"].items()} == dict.fromkeys(MAX_TOKENS, 3)
