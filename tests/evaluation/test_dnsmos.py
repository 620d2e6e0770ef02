import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.errors import AudioError
from lalia.evaluation.dnsmos import DNSMOS

EXAMPLES = Path(__file__).parents[2] / "examples"
UPSTREAM = {
    "question.flac": (3.4327366941835096, 3.620705403554256, 4.205644187804223, 4.164320468902588),
    "prompt.flac": (3.4938571948283936, 3.7069381860078736, 4.181540492438737, 4.182535648345947),
}
"""OVRL, SIG, BAK and P.808 by speechmos 0.0.1.1 with onnxruntime 1.32.0 and librosa."""


@pytest.fixture(scope="module")
def judge() -> DNSMOS:
    pytest.importorskip("onnxruntime")
    if cached(KNOWN["dnsmos"]) is None:
        pytest.skip("run: lalia fetch dnsmos")
    return DNSMOS()


def ratings(judge: DNSMOS, audio: Audio) -> list[float]:
    found = judge(audio)
    return [found.ovrl, found.sig, found.bak, found.p808]


@pytest.mark.parametrize("name", UPSTREAM)
def test_ratings_are_those_that_speechmos_gave(judge: DNSMOS, name: str) -> None:
    assert ratings(judge, Audio.load(EXAMPLES / name)) == pytest.approx(UPSTREAM[name], abs=1e-4)


@pytest.mark.parametrize("seconds", [2.0, 9.01, 9.9, 11.0, 20.3])
def test_ratings_are_those_of_speechmos(judge: DNSMOS, seconds: float) -> None:
    pytest.importorskip("speechmos")
    theirs = importlib.import_module("speechmos.dnsmos")
    spoken = Audio.load(EXAMPLES / "prompt.flac").samples[0, 0].numpy()
    samples = np.resize(spoken, round(seconds * 16_000))
    expected = theirs.run(samples, 16_000, return_df=False)
    names = ("ovrl_mos", "sig_mos", "bak_mos", "p808_mos")
    assert ratings(judge, Audio(samples, 16_000)) == pytest.approx([expected[n] for n in names], abs=1e-4)


def test_noise_and_clipping_sound_worse(judge: DNSMOS) -> None:
    clean = Audio.load(EXAMPLES / "question.flac")
    noisy = Audio(clean.samples + 0.05 * torch.randn(clean.samples.shape), clean.sample_rate)
    loud = Audio(20 * clean.samples, clean.sample_rate)
    assert judge(noisy).bak < judge(clean).bak - 1
    assert judge(loud).sig < judge(clean).sig - 0.3
    with pytest.raises(AudioError, match="empty"):
        judge(Audio(torch.zeros(0), 16_000))


def test_a_recording_sounds_the_same_at_another_rate_and_in_stereo(judge: DNSMOS) -> None:
    clean = Audio.load(EXAMPLES / "question.flac")
    stereo = Audio(clean.to(48_000).samples.expand(1, 2, -1), 48_000)
    assert ratings(judge, stereo) == pytest.approx(ratings(judge, clean), abs=0.1)
