from dataclasses import replace
from pathlib import Path

import pytest

from lalia.audio import Audio
from lalia.data import Manifest
from lalia.evaluation.resynthesis import disagreement, evaluate_resynthesis, summarize
from lalia.evaluation.text import Basic, word_edits


class Mishears:
    """Another recogniser: it gets the first word of every second recording it hears wrong."""

    name, version = "mishears", "1"

    def __init__(self, listener, all_of: int | None = None) -> None:
        self.listener, self.all_of, self.heard = listener, all_of, 0

    def __call__(self, recordings):
        texts = self.listener(recordings)
        out = []
        for text in texts:
            self.heard += 1
            if self.heard == self.all_of:
                text = "nothing of it"
            elif self.heard % 2:
                text = " ".join(["what", *text.split()[1:]])
            out.append(text)
        return out


def run(model, manifest, listener, **kwargs):
    return evaluate_resynthesis(
        of(model), list(manifest), judge=listener, second=Mishears(listener), normalizer=Basic(), **kwargs
    )


def of(model):
    return lambda u, audio: model.resynthesize(audio)


def test_a_perfect_model_adds_nothing(scales: Manifest, listener, likes_rising) -> None:
    result = run(likes_rising(), scales, listener)
    assert (result["asked"], result["answered"], result["failed"]) == (10, 10, 0)
    rates = result["summary"]["all"]
    for reference in ("text", "second", "self"):
        assert rates[reference]["wer"]["added"]["value"] == 0
    assert rates["text"]["wer"]["original"]["value"] == 0
    # The second recogniser has 1 of 8 words wrong in every second utterance.
    assert rates["second"]["wer"]["original"]["value"] == pytest.approx(5 / 80)
    assert rates["second"]["wer"]["resynthesis"]["value"] == pytest.approx(5 / 80)


def test_rates_are_those_of_the_definition(scales: Manifest, listener, likes_rising) -> None:
    result = run(likes_rising(shift=700.0), scales, listener)
    basic = Basic()
    rates = result["summary"]["all"]["text"]["wer"]
    for side in ("original", "resynthesis"):
        errors = [word_edits(basic(i["text"]), basic(i["heard"][side])).errors for i in result["items"]]
        assert rates[side]["value"] == pytest.approx(sum(errors) / 80)
    assert rates["resynthesis"]["value"] > 0.3
    assert rates["added"]["value"] == pytest.approx(rates["resynthesis"]["value"] - rates["original"]["value"])
    assert rates["added"]["low"] <= rates["added"]["value"] <= rates["added"]["high"]
    item = result["items"][0]
    assert item["edits"]["text"]["wer"]["resynthesis"]["length"] == 8
    assert item["edits"]["text"]["cer"]["original"]["length"] == len(item["text"])


def test_without_texts(scales: Manifest, listener, likes_rising) -> None:
    result = run(likes_rising(), [replace(u, text=None) for u in scales], listener)
    assert "text" not in result["summary"]["all"]
    assert set(result["items"][0]["edits"]) == {"second", "self"}


def test_some_texts(scales: Manifest, listener, likes_rising) -> None:
    some = [replace(u, text=None) if i % 2 else u for i, u in enumerate(scales)]
    rates = run(likes_rising(), some, listener)["summary"]["all"]
    assert rates["text"]["wer"]["original"]["n"] == 5
    assert rates["self"]["wer"]["original"]["n"] == 10


def test_disagreement_leaves_out_and_says_so(scales: Manifest, listener, likes_rising) -> None:
    result = evaluate_resynthesis(
        of(likes_rising()), list(scales), judge=listener, second=Mishears(listener, all_of=4), normalizer=Basic()
    )
    assert result["summary"]["all"]["utterances"] == 10
    assert result["summary"]["agreed"]["utterances"] == 9
    assert result["summary"]["agreed"]["left_out"] == 1
    both = [result["summary"][s]["second"]["wer"]["original"]["value"] for s in ("agreed", "all")]
    assert both[0] < both[1]


def test_failing_does_not_pay(scales: Manifest, listener, likes_rising) -> None:
    result = run(likes_rising(fails=(2, 5)), scales, listener)
    assert (result["asked"], result["answered"], result["failed"]) == (10, 8, 2)
    assert [f["id"] for f in result["failures"]] == ["s1", "s4"]
    assert result["summary"]["all"]["utterances"] == 10
    assert result["summary"]["all"]["text"]["wer"]["resynthesis"]["value"] == pytest.approx(2 / 10)
    assert result["items"][1]["edits"]["text"]["wer"]["resynthesis"]["deletions"] == 8
    # What comes after a failure is still compared with itself.
    assert result["items"][9]["heard"]["resynthesis"] == result["items"][9]["text"]


def test_silence_is_a_failure(scales: Manifest, listener) -> None:
    class Mute:
        def resynthesize(self, audio: Audio, *, voice: int | str | None = None) -> Audio:
            return Audio(0 * audio.samples, audio.sample_rate)

    result = run(Mute(), scales, listener)
    assert result["failed"] == 10
    assert "the resynthesis of s0 is silent" in result["failures"][0]["reason"]
    assert result["summary"]["all"]["text"]["wer"]["resynthesis"]["value"] == 1


def test_an_original_that_cannot_be_read_is_left_out(scales: Manifest, listener, likes_rising, tmp_path: Path) -> None:
    manifest = [*scales, replace(scales[0], id="gone", path=tmp_path / "gone.wav")]
    result = run(likes_rising(), manifest, listener)
    assert (result["asked"], result["answered"], result["failed"]) == (11, 10, 1)
    assert result["summary"]["all"]["utterances"] == 10


def test_order_and_chunks_change_nothing(scales: Manifest, listener, likes_rising, monkeypatch) -> None:
    def go(utterances):
        return evaluate_resynthesis(
            of(likes_rising(shift=300.0)), utterances, judge=listener, second=listener, normalizer=Basic()
        )

    whole = go(list(scales))
    assert go(list(scales)[::-1]) == whole
    monkeypatch.setattr("lalia.evaluation.resynthesis._CHUNK", 3)
    assert go(list(scales)) == whole


def test_progress_is_told(scales: Manifest, listener, likes_rising) -> None:
    seen = []
    run(likes_rising(), scales, listener, progress=lambda a, b: seen.append((a, b)))
    assert seen == [(10, 10)]


def test_disagreement() -> None:
    assert disagreement("a b c d", "a b c x") == 0.25
    assert disagreement("chapter 2", "chapter 2 after two years") == disagreement("a b c d e", "a b") == 0.6
    assert disagreement("", "") == 0
    assert disagreement("", "a") == 1


def test_summary_of_nothing() -> None:
    assert summarize([]) == {s: {"utterances": 0, "left_out": 0} for s in ("all", "agreed")}
