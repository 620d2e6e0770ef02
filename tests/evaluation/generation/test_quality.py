import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.errors import AudioError, ConfigError, DataError, WeightsError
from lalia.evaluation.generation.distill_mos import DistillMOS
from lalia.evaluation.generation.quality import DNSMOSRating, ExportedMOS, evaluate_quality

EXAMPLES = Path(__file__).parents[3] / "examples"
UPSTREAM = {"question.flac": 4.537344932556152, "prompt.flac": 4.656017303466797}
"""By distillmos 0.9.1 with torch 2.13.0, which heard 16 kHz by soxr."""


class Loudness:
    """Rates the peak of a recording."""

    name, version = "loudness", "1"

    def __call__(self, recordings: Sequence[Audio]) -> list[float]:
        return [1 + 4 * float(audio.samples.abs().max()) for audio in recordings]


class Peak(torch.nn.Module):
    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = count

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return (1 + 4 * samples.abs().amax(1)).repeat(self.count)


def test_mean_and_failures(tones, tmp_path: Path) -> None:
    path = tones(400, gain=0.5).save(tmp_path / "a.wav")
    silent = Audio(torch.zeros(16_000), 16_000)
    found = evaluate_quality({"b": tones(300, gain=0.25), "a": path, "c": silent, "d": tmp_path / "none"}, Loudness())
    assert (found["asked"], found["answered"], found["failed"]) == (4, 2, 2)
    assert [(i["id"], pytest.approx(i["mos"], abs=1e-3)) for i in found["items"]] == [("a", 3), ("b", 2)]
    assert found["summary"]["mos"]["value"] == pytest.approx(2.5, abs=1e-3)
    assert [f["id"] for f in found["failures"]] == ["c", "d"]
    assert "silent" in found["failures"][0]["reason"]
    assert found["settings"]["predictor"] == {"name": "loudness", "version": "1"}
    assert evaluate_quality({}, Loudness())["summary"]["mos"]["value"] is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(tones, tmp_path: Path) -> None:
    file = tmp_path / "peak.pt"
    torch.jit.trace(Peak(), torch.rand(1, 9)).save(str(file))
    rated = ExportedMOS(file, sample_rate=16_000)
    stereo = Audio(tones(400, gain=0.5).samples.expand(1, 2, -1), 16_000)
    assert rated([tones(400, gain=0.25), stereo]) == pytest.approx([2, 3], abs=0.01)
    assert rated.name == "peak"
    assert "16000 Hz" in rated.version


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_exported_network(tones, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no file"):
        ExportedMOS(tmp_path / "none.pt", sample_rate=16_000)
    pickled = tmp_path / "pickled.pt"
    torch.save({"a": torch.zeros(1)}, pickled)
    with pytest.raises(WeightsError, match="no TorchScript"):
        ExportedMOS(pickled, sample_rate=16_000)
    torch.jit.trace(Peak(2), torch.rand(1, 9)).save(str(tmp_path / "two.pt"))
    assert ExportedMOS(tmp_path / "two.pt", sample_rate=16_000, output=1)([tones(400, gain=0.5)])[0] > 2.9
    with pytest.raises(DataError, match="no rating at 2"):
        ExportedMOS(tmp_path / "two.pt", sample_rate=16_000, output=2)([tones(400)])


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"bad\.onnx"):
        ExportedMOS(tmp_path / "bad.onnx", sample_rate=16_000)
    folder = cached(KNOWN["dnsmos"]) or pytest.skip("run: lalia fetch dnsmos")
    # The network behind DNSMOS, whose ratings are fitted to listeners afterwards: the order of both is the same.
    clean = Audio(np.resize(Audio.load(EXAMPLES / "prompt.flac").to(16_000).samples[0, 0].numpy(), 144_160), 16_000)
    noisy = Audio(clean.samples + 0.05 * torch.randn(clean.samples.shape), 16_000)
    for output in range(3):
        good, bad = ExportedMOS(folder / "sig_bak_ovr.onnx", sample_rate=16_000, output=output)([clean, noisy])
        assert 1 < bad < good < 5


def test_dnsmos_is_one_of_them() -> None:
    pytest.importorskip("onnxruntime")
    if cached(KNOWN["dnsmos"]) is None:
        pytest.skip("run: lalia fetch dnsmos")
    spoken = Audio.load(EXAMPLES / "question.flac")
    whole = DNSMOSRating()
    p808 = DNSMOSRating("p808", judge=whole._judge)
    assert (whole.name, p808.name) == ("dnsmos-ovrl", "dnsmos-p808")
    assert whole([spoken]) == pytest.approx([3.4327], abs=1e-3)
    assert p808([spoken]) == pytest.approx([4.1643], abs=1e-3)
    with pytest.raises(ConfigError, match="'mos'"):
        DNSMOSRating("mos")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def distilled() -> DistillMOS:
    if cached(KNOWN["distillmos"]) is None:
        pytest.skip("run: lalia fetch distillmos")
    return DistillMOS()


@pytest.mark.parametrize("name", UPSTREAM)
def test_ratings_are_those_that_distillmos_gave(distilled: DistillMOS, name: str) -> None:
    assert distilled([Audio.load(EXAMPLES / name)]) == pytest.approx([UPSTREAM[name]], abs=1e-3)


def test_noise_sounds_worse_and_nothing_has_no_sound(distilled: DistillMOS) -> None:
    clean = Audio.load(EXAMPLES / "question.flac")
    noisy = Audio(clean.samples + 0.05 * torch.randn(clean.samples.shape), clean.sample_rate)
    good, bad = distilled([clean, noisy])
    assert bad < good - 1
    with pytest.raises(AudioError, match="empty"):
        distilled([Audio(torch.zeros(0), 16_000)])


@pytest.mark.parametrize("seconds", [2.0, 7.68, 7.7, 14.1])
def test_ratings_are_those_of_distillmos(
    distilled: DistillMOS, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    # It imports torchaudio to load files, which is not asked of it here.
    monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))
    pytest.importorskip("distillmos")
    theirs = importlib.import_module("distillmos").ConvTransformerSQAModel().eval()
    spoken = Audio.load(EXAMPLES / "prompt.flac").to(16_000).samples[0, 0].numpy()
    samples = np.resize(spoken, round(seconds * 16_000))
    with torch.inference_mode():
        expected = float(theirs(torch.from_numpy(samples)[None]))
    assert distilled([Audio(samples, 16_000)]) == pytest.approx([expected], abs=1e-4)
