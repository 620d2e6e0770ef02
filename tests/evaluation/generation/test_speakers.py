import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.errors import AudioError, ConfigError, DataError, WeightsError
from lalia.evaluation.generation.resemblyzer import Resemblyzer, _starts
from lalia.evaluation.generation.speakers import WavLMSpeaker, evaluate_similarity

EXAMPLES = Path(__file__).parents[3] / "examples"
UPSTREAM = {
    "question.flac": (0.0, 0.0, 0.18159548938274384, 0.0),
    "prompt.flac": (0.11818484216928482, 0.0021584259811788797, 0.1675092726945877, 0.0),
}
"""The first of 256 by Resemblyzer 0.1.4 with librosa 0.11, which heard 16 kHz by soxr."""


def test_worked_example(tones, pitch) -> None:
    voices = {"a": 400, "b": 1000}
    generated = {key: tones(hz + 300) for key, hz in voices.items()}
    found = evaluate_similarity(generated, {key: tones(hz) for key, hz in voices.items()}, pitch)
    a, b = found["items"]
    assert (a["similarity"], a["others"]) == pytest.approx((math.cos(math.radians(30)),) * 2, abs=0.02)
    assert b["others"] == pytest.approx(math.cos(math.radians(90)), abs=0.02)
    assert found["summary"]["sim_o"]["value"] == pytest.approx((a["similarity"] + b["similarity"]) / 2)
    assert found["summary"]["others"]["value"] == pytest.approx((a["others"] + b["others"]) / 2)
    assert found["settings"] == {"encoder": {"name": "pitch", "version": "1"}, "against": "original"}


def test_failures_are_told_of_either_side(tones, pitch) -> None:
    silent = Audio(torch.zeros(8000), 16_000)
    generated = {"a": silent, "b": tones(400), "c": tones(500)}
    references = {"a": tones(400), "b": silent, "c": tones(500)}
    found = evaluate_similarity(generated, references, pitch, against="resynthesis")
    assert (found["asked"], found["answered"], found["failed"]) == (3, 1, 2)
    assert found["summary"]["sim_r"]["value"] == pytest.approx(1)
    assert found["summary"]["others"]["value"] is None
    assert [f["id"] for f in found["failures"]] == ["a", "b"]
    assert found["failures"][1]["reason"].startswith("Its reference")


def test_bad_questions(tones, pitch) -> None:
    with pytest.raises(DataError, match="'b' has no reference"):
        evaluate_similarity({"b": tones(400)}, {"a": tones(400)}, pitch)
    with pytest.raises(ConfigError, match="'prompt'"):
        evaluate_similarity({}, {}, pitch, against="prompt")  # type: ignore[arg-type]
    assert evaluate_similarity({}, {}, pitch)["summary"]["sim_o"]["value"] is None


@pytest.mark.parametrize(
    ("samples", "starts"),
    [(100, [0]), (25_600, [0]), (31_000, [0]), (32_000, [0, 77]), (80_000, [0, 77, 154, 231, 308])],
)
def test_parts_that_are_heard(samples: int, starts: list[int]) -> None:
    # Of 1.6 s each; of the last, three quarters are there.
    assert _starts(samples) == starts


@pytest.fixture(scope="module")
def resemblyzer() -> Resemblyzer:
    pytest.importorskip("webrtcvad")
    if cached(KNOWN["resemblyzer"]) is None:
        pytest.skip("run: lalia fetch resemblyzer")
    return Resemblyzer()


@pytest.mark.parametrize("name", UPSTREAM)
def test_embeddings_are_those_that_resemblyzer_gave(resemblyzer: Resemblyzer, name: str) -> None:
    (found,) = resemblyzer([Audio.load(EXAMPLES / name)])
    assert found.shape == (256,)
    assert found[:4].tolist() == pytest.approx(UPSTREAM[name], abs=1e-3)
    assert float(found.norm()) == pytest.approx(1)


@pytest.mark.parametrize("seconds", [1.0, 2.3, 7.0])
def test_embeddings_are_those_of_resemblyzer(resemblyzer: Resemblyzer, seconds: float) -> None:
    pytest.importorskip("librosa")
    pytest.importorskip("resemblyzer")
    theirs = importlib.import_module("resemblyzer")
    spoken = Audio.load(EXAMPLES / "prompt.flac").to(16_000).samples[0, 0].numpy()
    samples = np.resize(spoken, round(seconds * 16_000))
    expected = theirs.VoiceEncoder("cpu", verbose=False).embed_utterance(theirs.preprocess_wav(samples))
    assert resemblyzer([Audio(samples, 16_000)])[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_voices_are_told_apart(resemblyzer: Resemblyzer) -> None:
    one, other = (Audio.load(EXAMPLES / name) for name in UPSTREAM)
    half = one.seconds / 2
    first, second, else_ = resemblyzer([one.cut(0, half), one.cut(half), other])
    assert float(first @ second) > float(first @ else_) + 0.1


def test_what_is_no_speech(resemblyzer: Resemblyzer) -> None:
    with pytest.raises(AudioError, match="silent"):
        resemblyzer([Audio(torch.zeros(0), 16_000)])
    with pytest.raises(AudioError, match="No speech"):
        resemblyzer([Audio(0.3 * torch.ones(300), 16_000)])


def test_wavlm(tmp_path: Path, tones) -> None:
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector, WavLMModel

    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(8, 8, 16),
        tdnn_kernel=(5, 3, 1),
        tdnn_dilation=(1, 2, 1),
        xvector_output_dim=12,
    )
    model = WavLMForXVector(config).eval()
    model.save_pretrained(tmp_path / "sv")
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    extractor.save_pretrained(tmp_path / "sv")
    encoder = WavLMSpeaker(tmp_path / "sv")
    audio = tones(400)
    values = extractor(audio.samples[0, 0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        expected = model(values).embeddings[0]
    (found,) = encoder([audio])
    assert torch.allclose(found, expected / expected.norm(), atol=1e-5)
    with pytest.raises(AudioError, match=r"0\.05 s"):
        encoder([tones(400, seconds=0.05)])
    WavLMModel(config).save_pretrained(tmp_path / "plain")
    extractor.save_pretrained(tmp_path / "plain")
    with pytest.raises(WeightsError, match="lack"):
        WavLMSpeaker(tmp_path / "plain")([audio])
