import json
import shutil
from pathlib import Path

import pytest
import torch

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.errors import ConfigError, DataError
from lalia.evaluation.asr import Whisper, read_segments
from lalia.evaluation.text import WhisperEnglish, word_edits

FIRST = 1000


def stamps(*parts: float | str) -> list[int]:
    """Tokens: letters are text, numbers are times in seconds."""
    return [FIRST + round(p * 50) if isinstance(p, float) else ord(p) for p in parts]


@pytest.mark.parametrize(
    ("ids", "goes_on", "text", "reached"),
    [
        (stamps(0.0, "a", "b", 2.0), False, "ab", 2.0),
        (stamps(0.0, "a", 1.0, 1.0, "b", 4.0), False, "ab", 4.0),
        (stamps(0.0, "a", 1.0, 1.0, "b"), False, "ab", 10.0),  # open to the end of the recording
        (stamps(0.0, "a", 1.0, 1.0, "b"), True, "a", 1.0),  # cut in two: left to the next window
        (stamps(0.0, "a", "b"), True, "ab", 10.0),
        (stamps(0.0, "a", 1.0, 1.0), False, "a", 1.0),
        (stamps(0.0, "a", 0.2), False, "a", 10.0),  # would hardly advance
        (stamps(0.0, "a", 12.0), False, "a", 10.0),
        (stamps("a", "b"), False, "ab", 10.0),
        ([], False, "", 10.0),
        ([*stamps(0.0, "a", 3.0), 999, 999], False, "a", 3.0),  # ids between are special tokens
    ],
)
def test_segments(ids: list[int], goes_on: bool, text: str, reached: float) -> None:
    said, covered = read_segments(ids, num_text=500, first_timestamp=FIRST, seconds=10.0, goes_on=goes_on)
    assert "".join(map(chr, said)) == text
    assert covered == reached


def speech(seconds: float, seed: int) -> Audio:
    return Audio(0.1 * torch.randn(round(seconds * 16000), generator=torch.Generator().manual_seed(seed)), 16000)


def test_a_batch_gives_what_its_recordings_give_alone(tiny_whisper: Path) -> None:
    rows = [speech(s, i) for i, s in enumerate((1.0, 3.5, 2.0))]
    together = Whisper(tiny_whisper, batch_size=3)(rows)
    assert together == [Whisper(tiny_whisper, batch_size=1)([row])[0] for row in rows]
    assert any(together)


def test_a_loop_is_cut(tiny_whisper: Path) -> None:
    # With random weights there is nothing but loops.
    (text,) = Whisper(tiny_whisper, resume=False)([speech(1.0, 0)])
    assert len(text.replace(" ", "")) <= 16 + 10


def test_resumes_where_it_stopped_early(tiny_whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[float]] = []

    def stops_after_two_seconds(self, windows, goes_on):
        heard.append([round(w.seconds, 2) for w in windows])
        return [(f"{w.seconds:.0f}", min(2.0, w.seconds)) for w in windows]

    monkeypatch.setattr(Whisper, "_decode", stops_after_two_seconds)
    rows = [speech(5.5, 0), speech(2.5, 1)]
    assert Whisper(tiny_whisper, batch_size=2)(rows) == ["6 4 2", "2"]
    assert heard == [[5.5, 2.5], [3.5], [1.5]]
    assert Whisper(tiny_whisper, resume=False)(rows) == ["6", "2"]
    # Silence after the speech is nothing that was left out.
    quiet = Audio(torch.cat([rows[1].samples, torch.zeros(1, 1, 80000)], dim=-1), 16000)
    assert Whisper(tiny_whisper)([quiet]) == ["8"]


def test_long_recordings_go_on_window_by_window(tiny_whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def reads(self, windows, goes_on):
        asked.extend((round(w.seconds, 1), more) for w, more in zip(windows, goes_on, strict=True))
        return [("x", 29.0 if w.seconds == 30.0 else w.seconds) for w in windows]

    monkeypatch.setattr(Whisper, "_decode", reads)
    assert Whisper(tiny_whisper, resume=False)([speech(70.0, 0)]) == ["x x x"]
    assert asked == [(30.0, True), (30.0, True), (12.0, False)]


def test_alignment_covers_the_text_in_order(tiny_whisper: Path) -> None:
    words = Whisper(tiny_whisper).align(speech(3.0, 0), "ab,  cde . fg.")
    assert [w.text for w in words] == ["ab,", "cde", "fg."]
    times = [t for w in words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= 3.0
    assert all(w.end > w.start for w in words)


def test_the_first_merge_is_put_back(tiny_whisper: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_whisper, tmp_path / "copy")
    data = json.loads((folder / "tokenizer.json").read_text())
    whole = Whisper(tiny_whisper)._encoder().encode(" the tea", add_special_tokens=False).tokens
    assert whole == ["\u0120t", "h", "e", "\u0120t", "e", "a"]
    data["model"]["merges"] = [m for m in data["model"]["merges"] if tuple(m) != ("\u0120", "t")]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert Whisper(folder)._encoder().encode(" the tea", add_special_tokens=False).tokens == whole


def test_transformers_keeps_its_settings(tiny_whisper: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    Whisper(tiny_whisper)([speech(1.0, 0)])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr().err == ""


def test_alignment_of_nothing_and_of_too_much(tiny_whisper: Path) -> None:
    whisper = Whisper(tiny_whisper)
    assert whisper.align(speech(1.0, 0), "  ") == ()
    with pytest.raises(DataError, match=r"does not fit 1\.00 s"):
        whisper.align(speech(1.0, 0), "abc " * 40)
    with pytest.raises(DataError, match=r"lasts 31\.0 s"):
        whisper.align(speech(31.0, 0), "abc")


def test_other_rates_and_channels(tiny_whisper: Path) -> None:
    audio = speech(2.0, 0).to(44100)
    stereo = Audio(torch.cat([audio.samples, audio.samples], dim=1), 44100)
    whisper = Whisper(tiny_whisper)
    assert whisper([stereo]) == whisper([audio])
    with pytest.raises(DataError, match="has 2 rows"):
        whisper([Audio.batch([speech(1.0, 0), speech(1.0, 1)])])


def test_versions_tell_what_matters(tiny_whisper: Path) -> None:
    versions = {
        Whisper(tiny_whisper).version,
        Whisper(tiny_whisper, resume=False).version,
        Whisper(tiny_whisper, num_beams=2).version,
    }
    assert len(versions) == 3
    assert Whisper(tiny_whisper, batch_size=7).version in versions
    with pytest.raises(ConfigError, match="batch_size 0"):
        Whisper(tiny_whisper, batch_size=0)


def test_hears_real_speech(recordings: list[Path]) -> None:
    """The real recogniser on a real recording, where its weights are at hand."""
    if cached(KNOWN["whisper-tiny.en"]) is None:
        pytest.skip("needs the weights of whisper-tiny.en")
    path = next((p for p in recordings if p.stem == "201-122255-0000"), None)
    if path is None:
        pytest.skip("needs a certain recording")
    whisper, audio = Whisper("whisper-tiny.en"), Audio.load(path)
    said = "then up got little john and taking the bag of gold which he thrust into his bosom"
    (text,) = whisper([audio])
    assert word_edits(said, WhisperEnglish()(text)).rate < 0.15
    words = {w.text.strip(",."): w for w in whisper.align(audio, text)}
    # As faster-whisper has it, with whisper-base (seconds); the times of whisper-tiny.en are late.
    for name, start in {"Little": 1.16, "taking": 2.24, "gold": 3.08, "bosom": 4.48}.items():
        assert -0.1 < words[name].start - start < 0.35
