from collections.abc import Sequence

import jiwer
import pytest
import torch

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.generation.intended import evaluate_intended
from lalia.evaluation.text import Basic

WORDS = ("One", "two", "three", "four", "five")


class Hears:
    """Hears in a tone how many hundreds of Hz it has: as many words."""

    name, version = "hears", "1"

    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        found = []
        for audio in recordings:
            spectrum = torch.fft.rfft(audio.samples[0, 0]).abs()
            hz = float(spectrum.argmax()) * audio.sample_rate / audio.samples.shape[-1]
            found.append(" ".join(WORDS[: round(hz / 100)]))
        return found


def test_error_rates_are_those_of_jiwer(tones) -> None:
    texts = {"a": "One, two three.", "b": "one too three four", "c": "two"}
    recordings = {"a": tones(300), "b": tones(500), "c": tones(100)}
    found = evaluate_intended(recordings, texts, Hears(), normalizer=Basic())
    meant = ["one two three", "one too three four", "two"]
    said = ["one two three", "one two three four five", "one"]
    assert found["summary"]["wer"]["value"] == pytest.approx(jiwer.wer(meant, said))
    assert found["summary"]["cer"]["value"] == pytest.approx(jiwer.cer(meant, said))
    assert [item["heard"] for item in found["items"]] == ["One two three", "One two three four five", "One"]
    assert found["settings"]["recognizer"] == {"name": "hears", "version": "1"}
    assert found["failed"] == 0


def test_failing_never_pays(tones) -> None:
    texts = {"a": "one two", "b": "one two three", "c": "one"}
    found = evaluate_intended({"a": tones(200), "b": Audio(torch.zeros(8000), 16_000)}, texts, Hears())
    assert (found["asked"], found["answered"], found["failed"]) == (3, 1, 2)
    assert found["summary"]["wer"]["value"] == pytest.approx(4 / 6)
    assert [f["id"] for f in found["failures"]] == ["b", "c"]
    assert evaluate_intended({}, {}, Hears())["summary"]["wer"]["value"] is None
    with pytest.raises(DataError, match="'d' has no text"):
        evaluate_intended({"d": tones(200)}, texts, Hears())
