from pathlib import Path

import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.downstream import speech_quality

CLIP = Path(__file__).parents[3] / "examples" / "question.flac"


def noisy(audio: Audio, level: float) -> Audio:
    added = level * torch.randn(audio.samples.shape, generator=torch.Generator().manual_seed(0))
    return Audio(audio.samples + added, audio.sample_rate)


def test_scores_are_those_of_the_packages_and_fall_with_noise() -> None:
    pesq, stoi = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    clean = Audio.load(CLIP).mono().to(16_000).cut(0, 3)
    little, much = noisy(clean, 0.005), noisy(clean, 0.05)
    references = {"a": clean, "b": clean, "c": clean}
    found = speech_quality(
        references, {"a": little, "b": much, "c": Audio(torch.zeros(1, 1, 100), 16_000)}, measures=("pesq_wb", "stoi")
    )
    by = {x["id"]: x for x in found.items}
    a, b = (x.samples[0, 0].double().numpy() for x in (clean, little))
    assert by["a"]["pesq_wb"] == pytest.approx(pesq.pesq(16_000, a, b, "wb"))
    assert by["a"]["stoi"] == pytest.approx(stoi.stoi(a, b, 16_000), abs=0.01)
    assert by["a"]["pesq_wb"] > by["b"]["pesq_wb"]
    assert by["a"]["stoi"] > by["b"]["stoi"]
    assert "no score" in by["c"]["reason"]
    assert (found.counts.answered, found.counts.failed) == (2, 1)
    assert found.settings == {"pesq": "0.0.4", "pystoi": "0.4.1"}
    assert found.value == pytest.approx((by["a"]["pesq_wb"] + by["b"]["pesq_wb"]) / 2)


def test_bad_input() -> None:
    pytest.importorskip("pystoi")
    clean = Audio(torch.ones(1, 1, 200), 16_000)
    with pytest.raises(ConfigError, match="no measure 'mos'"):
        speech_quality({"a": clean}, {"a": clean}, measures=("mos",))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="No recording could be scored"):
        speech_quality({"a": clean}, {"a": clean}, measures=("stoi",))
