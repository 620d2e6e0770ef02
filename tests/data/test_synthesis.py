import json
import math
import random
import shutil
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.data import Manifest, Word, discover
from lalia.data.synthesis import (
    Espeak,
    Flite,
    Kokoro,
    Spoken,
    assign_parts,
    clean_text,
    is_speakable,
    passages,
    shuffled,
    split_sentences,
    synthesize_corpus,
)
from lalia.errors import AudioError, ConfigError, DataError, MissingDependency, WeightsError

RATE = 8000
SENTENCES = tuple(f"This is sentence {'very ' * (i % 5)}number {chr(97 + i)}" for i in range(26))


class Tones:
    """Reads a text as a tone: its length says how long, its voice how high."""

    name = "tones"
    voices = ("high", "low")

    def __init__(self, refuse: str | None = None, stop_after: float = math.inf) -> None:
        self.refuse, self.stop_after = refuse, stop_after
        self.spoken: list[tuple[str, str, float]] = []

    def speak(self, text: str, voice: str, speed: float = 1.0) -> Spoken:
        if len(self.spoken) >= self.stop_after:
            raise KeyboardInterrupt
        self.spoken.append((text, voice, speed))
        if self.refuse is not None and self.refuse in text:
            raise AudioError(f"tones cannot read out {text!r}. Leave it out.")
        t = torch.arange(round(len(text) * 0.02 / speed * RATE)) / RATE
        audio = Audio(0.5 * torch.sin(2 * math.pi * (800 if voice == "high" else 200) * t), RATE)
        # One phone for each letter.
        return Spoken(audio, tuple(Word(c, 0.02 * i, 0.02 * (i + 1)) for i, c in enumerate(text)))


def contents(folder: Path) -> dict[str, bytes]:
    """Everything but the report, which tells times."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != "report.json"}


# -- text ---------------------------------------------------------------------------------------

PROSE = st.text(alphabet="ab CD\n\t.,;!?—“”\"’_'-é1", max_size=80)


@given(PROSE)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean_text(clean_text(text)) == clean_text(text)


@given(PROSE)
def test_sentences_are_the_text(text: str) -> None:
    sentences = split_sentences(text)
    assert " ".join(sentences) == clean_text(text)
    assert all(s == s.strip() and s for s in sentences)


@given(PROSE)
def test_nothing_but_punctuation_and_space_is_changed(text: str) -> None:
    letters = [c for c in text if c.isalnum()]
    assert [c for c in clean_text(text) if c.isalnum()] == letters


def test_sentences_of_a_page() -> None:
    page = "“Call me\n  Ishmael.” Some years ago—never mind how long—I thought;  it’s _true_!\nWhy?"
    assert split_sentences(page) == [
        "Call me Ishmael.",
        "Some years ago, never mind how long, I thought;",
        "it's true!",
        "Why?",
    ]


@pytest.mark.parametrize(
    ("sentence", "good"),
    [
        ("Call me when the ship is in.", True),
        ("It's late, isn't it?", True),
        ("Two words", False),
        ("In 1851 it was printed.", False),
        ("The café is shut now.", False),
        ("See www/x for the rest", False),
        ("word " * 40 + "word", False),
    ],
)
def test_speakable(sentence: str, good: bool) -> None:
    assert is_speakable(sentence) is good


@given(st.lists(st.integers(1, 12)), st.integers(1, 30))
def test_passages(lengths: list[int], least: int) -> None:
    sentences = [" ".join([chr(97 + i % 26)] * n) for i, n in enumerate(lengths)]
    found = passages(sentences, least)
    joined = " ".join(found)
    assert " ".join(sentences).startswith(joined)
    assert all(len(p.split()) >= least for p in found)
    assert sum(lengths) - len(joined.split()) < least  # only a short rest is left out


@given(st.lists(st.text(max_size=2)), st.integers())
def test_shuffling_keeps_each_once(texts: list[str], seed: int) -> None:
    assert Counter(shuffled(texts, seed)) == Counter(set(texts))
    assert shuffled(texts, seed) == shuffled(texts, seed)


# -- who reads what -----------------------------------------------------------------------------


def test_parts_depend_on_the_place_alone() -> None:
    voices, speeds = {"high": 1.0, "low": 2.0}, (0.8, 1.0, 1.2)
    whole = list(assign_parts(SENTENCES, voices, speeds, seed=3))
    assert whole[:7] == list(assign_parts(SENTENCES[:7], voices, speeds, seed=3))
    assert whole != list(assign_parts(SENTENCES, voices, speeds, seed=4))
    assert [p.text for p in whole] == list(SENTENCES)


def test_weights_are_shares() -> None:
    parts = list(assign_parts(["x"] * 4000, {"a": 3.0, "b": 1.0, "c": 0.0}, (1.0, 1.5), seed=0))
    count = Counter(p.voice for p in parts)
    assert set(count) == {"a", "b"}
    # Four standard deviations of a binomial.
    assert abs(count["a"] - 3000) < 4 * math.sqrt(4000 * 0.75 * 0.25)
    assert abs(sum(p.speed == 1.5 for p in parts) - 2000) < 4 * math.sqrt(1000)


# -- the corpus ---------------------------------------------------------------------------------


def test_a_corpus(tmp_path: Path) -> None:
    report = synthesize_corpus(SENTENCES, Tones(), ("high", "low"), tmp_path / "new" / "corpus", speaker="x-{voice}")
    manifest = discover(tmp_path / "new" / "corpus")
    assert [u.text for u in manifest] == list(SENTENCES)
    assert {u.speaker for u in manifest} == {"x-high", "x-low"}
    for u in manifest:
        audio = u.load()
        assert audio.sample_rate == RATE
        assert audio.seconds == pytest.approx(u.duration)
        assert u.id.endswith(str(u.speaker))
        # What the synthesizer tells of its phonemes is kept, on the disk as well.
        assert u.phones is not None
        assert "".join(p.text for p in u.phones) == u.text
        assert u.phones[2] == Word(u.text[2], 0.04, 0.06)  # type: ignore[index]
        spectrum = torch.fft.rfft(audio.samples[0, 0]).abs()
        peak = float(spectrum.argmax()) / audio.seconds
        assert peak == pytest.approx(800 if u.speaker == "x-high" else 200, rel=0.02)
    assert report.complete
    assert (report.done, report.total, report.skipped) == (26, 26, ())
    assert report.hours == pytest.approx(manifest.seconds / 3600)
    assert json.loads((tmp_path / "new" / "corpus" / "report.json").read_text())["done"] == 26


def test_speed_and_rate(tmp_path: Path) -> None:
    synthesize_corpus(SENTENCES[:4], Tones(), ["low"], tmp_path / "slow", speeds=(0.5,), sample_rate=16_000)
    synthesize_corpus(SENTENCES[:4], Tones(), ["low"], tmp_path / "fast", speeds=(2.0,))
    slow, fast = Manifest.load(tmp_path / "slow/manifest.jsonl"), Manifest.load(tmp_path / "fast/manifest.jsonl")
    assert slow.seconds == pytest.approx(4 * fast.seconds, rel=0.01)
    assert soundfile.info(str(slow[0].path)).samplerate == 16_000


def test_a_stopped_run_ends_in_the_same_files(tmp_path: Path) -> None:
    options = {"speeds": (0.9, 1.1), "seed": 5}
    synthesize_corpus(SENTENCES, Tones(), Tones.voices, tmp_path / "peace", **options)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        synthesize_corpus(SENTENCES, Tones(stop_after=9), Tones.voices, tmp_path / "war", **options)  # type: ignore[arg-type]
    assert len(Manifest.load(tmp_path / "war/manifest.jsonl")) == 9
    # As after a kill: no manifest, a file half copied, and one that was being written.
    (tmp_path / "war/manifest.jsonl").unlink()
    broken = sorted((tmp_path / "war").glob("*.flac"))[4]
    broken.write_bytes(broken.read_bytes()[:20])
    (tmp_path / "war/.00009.flac.abc.part").write_bytes(b"fLaC")
    tones = Tones()
    synthesize_corpus(SENTENCES, tones, Tones.voices, tmp_path / "war", **options)  # type: ignore[arg-type]
    assert len(tones.spoken) == 26 - 9 + 1
    assert contents(tmp_path / "war") == contents(tmp_path / "peace")


def test_more_speech_keeps_what_is_there(tmp_path: Path) -> None:
    first = synthesize_corpus(SENTENCES, Tones(), Tones.voices, tmp_path, speech_seconds=3.0)
    before = contents(tmp_path)
    assert 3.0 <= 3600 * first.hours < 4.0
    tones = Tones()
    second = synthesize_corpus(SENTENCES, tones, Tones.voices, tmp_path, speech_seconds=8.0)
    assert len(tones.spoken) == second.done - first.done
    after = contents(tmp_path)
    assert all(after[name] == data for name, data in before.items() if name.endswith(".flac"))
    assert Manifest.load(tmp_path / "manifest.jsonl").seconds >= 8.0
    # Asked for less again: the manifest names no more than that, and nothing is read out.
    third = synthesize_corpus(SENTENCES, Tones(stop_after=0), Tones.voices, tmp_path, speech_seconds=3.0)
    assert third.done == first.done
    assert contents(tmp_path)["manifest.jsonl"] == before["manifest.jsonl"]


def test_no_time_left(tmp_path: Path) -> None:
    synthesize_corpus(SENTENCES[:26], Tones(), Tones.voices, tmp_path, speech_seconds=3.0)
    done = len(Manifest.load(tmp_path / "manifest.jsonl"))
    report = synthesize_corpus(SENTENCES, Tones(stop_after=0), Tones.voices, tmp_path, max_seconds=0.0)
    assert not report.complete
    assert report.done == done


def test_a_sentence_that_fails_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    report = synthesize_corpus(SENTENCES, Tones(refuse="number c"), Tones.voices, folder)
    (skipped,) = report.skipped
    assert "cannot read out" in skipped.reason
    assert report.done == 25
    assert [u.text for u in Manifest.load(folder / "manifest.jsonl")] == [
        s for s in SENTENCES if not s.endswith("number c")
    ]
    # It is tried again, but changes nobody else's voice.
    again = synthesize_corpus(SENTENCES, Tones(), Tones.voices, folder)
    assert again.done == 26
    synthesize_corpus(SENTENCES, Tones(), Tones.voices, tmp_path / "whole")
    assert contents(tmp_path / "whole") == contents(folder)


def test_silence_is_no_speech(tmp_path: Path) -> None:
    class Mute(Tones):
        def speak(self, text: str, voice: str, speed: float = 1.0) -> Spoken:
            audio = super().speak(text, voice, speed).audio
            return Spoken(Audio(torch.zeros_like(audio.samples), RATE) if text.endswith("b") else audio)

    report = synthesize_corpus(SENTENCES, Mute(), Tones.voices, tmp_path)
    assert "silent" in report.skipped[0].reason
    assert report.done == 25


@pytest.mark.parametrize(("limit", "match"), [(5, "5 sentences in a row"), (99, "None of 26 sentences")])
def test_a_synthesizer_that_never_works(tmp_path: Path, limit: int, match: str) -> None:
    with pytest.raises(DataError, match=match):
        synthesize_corpus(SENTENCES, Tones(refuse=""), Tones.voices, tmp_path, max_failures=limit)
    assert not (tmp_path / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"speeds": (1.0, 1.1)}, "speeds"),
        ({"sentences": SENTENCES[1:]}, "sentences, sha256"),
        ({"voices": ("low",)}, "voices"),
    ],
)
def test_two_corpora_do_not_mix(tmp_path: Path, change: dict[str, object], named: str) -> None:
    arguments = {"sentences": SENTENCES, "synthesizer": Tones(), "voices": Tones.voices, "folder": tmp_path}
    synthesize_corpus(**arguments, speech_seconds=1.0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"other {named}. Choose"):
        synthesize_corpus(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"voices": ("middle",)}, "no voice 'middle'. It has high, low"),
        ({"voices": {"low": -1.0}}, "weight -1"),
        ({"voices": {"low": 0.0}}, "No voice"),
        ({"voices": ()}, "No voice"),
        ({"speeds": ()}, "No speed"),
        ({"sentences": ()}, "no sentences"),
    ],
)
def test_wrong_requests(tmp_path: Path, change: dict[str, object], match: str) -> None:
    arguments = {"sentences": SENTENCES, "synthesizer": Tones(), "voices": Tones.voices, "folder": tmp_path / "x"}
    with pytest.raises((ConfigError, DataError), match=match):
        synthesize_corpus(**(arguments | change))  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


# -- flite --------------------------------------------------------------------------------------

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


def test_flite_absent() -> None:
    with pytest.raises(WeightsError, match=r"no program 'flite-of-nowhere' on the PATH\. Install flite"):
        Flite("flite-of-nowhere")


@needs_flite
def test_flite_speaks() -> None:
    flite = Flite()
    assert {"slt", "rms"} <= set(flite.voices)
    plain = flite.speak("The quick brown fox jumps over the lazy dog.", "slt").audio
    assert plain.sample_rate == 16_000
    assert 1.5 < plain.seconds < 5
    slow = flite.speak("The quick brown fox jumps over the lazy dog.", "slt", 0.5).audio
    assert slow.seconds == pytest.approx(2 * plain.seconds, rel=0.1)
    again = flite.speak("The quick brown fox jumps over the lazy dog.", "slt").audio
    assert torch.equal(again.samples, plain.samples)
    other = flite.speak("The quick brown fox jumps over the lazy dog.", "rms").audio
    assert not torch.equal(other.samples[..., :8000], plain.samples[..., :8000])
    # What looks like an option is text.
    assert flite.speak("--help is a word", "slt").audio.seconds > 0.5


@needs_flite
@pytest.mark.parametrize(
    ("text", "voice", "speed", "error", "match"),
    [
        ("Hello there.", "nobody", 1.0, ConfigError, "no voice 'nobody'"),
        ("Hello there.", "slt", 9.0, ConfigError, "speed of 9"),
        (" ... ", "slt", 1.0, AudioError, "cannot read out ' ... '"),
        ("", "slt", 1.0, AudioError, "cannot read out ''"),
    ],
)
def test_flite_refuses(text: str, voice: str, speed: float, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Flite().speak(text, voice, speed)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_speaks() -> None:
    espeak = Espeak()
    plain, slow = (espeak.speak("The quick brown fox jumps.", "en-us+m3", speed).audio for speed in (1.0, 0.6))
    assert 0.8 < plain.seconds < 4
    assert slow.seconds > 1.3 * plain.seconds
    assert not torch.equal(espeak.speak("The quick brown fox jumps.", "en-gb+f2").audio.samples, plain.samples)
    with pytest.raises(ConfigError, match="no voice 'slt'"):
        espeak.speak("Hello.", "slt")
    with pytest.raises(WeightsError, match="Install espeak-ng"):
        Espeak("espeak-of-nowhere")


def test_a_program_that_fails(tmp_path: Path) -> None:
    program = tmp_path / "flite"
    program.write_text('#!/bin/sh\n[ "$1" = -lv ] && echo "Voices available: one two" && exit\nexit 3\n')
    program.chmod(0o755)
    flite = Flite(str(program))
    assert flite.voices == ("one", "two")
    with pytest.raises(AudioError, match=r"cannot read out 'Hello\.' \(exit status 3\)"):
        flite.speak("Hello.", "one")


@needs_flite
def test_flite_makes_a_corpus(tmp_path: Path) -> None:
    sentences = ["The sea was calm.", "A ship came in.", "Nobody was on board of it."]
    report = synthesize_corpus(sentences, Flite(), {"slt": 1, "kal16": 1}, tmp_path, speaker="flite-{voice}")
    assert report.done == 3
    assert {u.speaker for u in Manifest.load(tmp_path / "manifest.jsonl")} <= {"flite-slt", "flite-kal16"}


# -- Kokoro -------------------------------------------------------------------------------------


@pytest.fixture
def kokoro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kokoro]:
    """Makes one over a stand-in for the package, which tells what it was asked."""

    class Engine:
        def __init__(self, model: str, voices: str) -> None:
            if Path(model).read_bytes() != b"onnx":
                raise RuntimeError("Protobuf parsing failed.\nMore of it")

        def create_timed(
            self, text: str, *, voice: str, speed: float, lang: str
        ) -> tuple[np.ndarray, int, list[types.SimpleNamespace]]:
            if text == "Hm.":
                raise ValueError("Nothing to synthesize, 'Hm.' produced no phonemes")
            if text == "Hush.":
                return np.zeros(24_000, np.float32), 24_000, []
            frequency = {"en-us": 300, "en-gb": 400, "fr-fr": 500}[lang]
            t = np.arange(round(24_000 / speed)) / 24_000
            # An export that tells no durations gives no times.
            times = [types.SimpleNamespace(phoneme="h", start=0.0, end=1 / 3)] if lang == "en-us" else []
            return (0.3 * np.sin(2 * np.pi * frequency * t)).astype(np.float32), 24_000, times

    package = types.ModuleType("kokoro_onnx")
    package.Kokoro = Engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kokoro_onnx", package)
    names = ("af_heart", "bm_george", "ff_siwis", "jf_alpha", "zf_xiaobei")
    np.savez(tmp_path / "voices.npz", **{n: np.zeros((2, 1, 256), np.float32) for n in names})

    def make(model: bytes = b"onnx") -> Kokoro:
        (tmp_path / "model.onnx").write_bytes(model)
        return Kokoro(tmp_path / "model.onnx", tmp_path / "voices.npz")

    return make


def test_kokoro_speaks_the_language_of_the_voice(kokoro: Callable[..., Kokoro]) -> None:
    engine = kokoro()
    assert engine.voices == ("af_heart", "bm_george", "ff_siwis")
    for voice, frequency in (("af_heart", 300), ("bm_george", 400), ("ff_siwis", 500)):
        audio = engine.speak("Good morning.", voice, 0.5).audio
        assert (audio.sample_rate, audio.seconds) == (24_000, 2.0)
        spectrum = torch.fft.rfft(audio.samples[0, 0]).abs()
        assert float(spectrum.argmax()) / audio.seconds == frequency
    assert engine.speak("Good morning.", "af_heart").phones == (Word("h", 0.0, 0.3333),)
    assert engine.speak("Bonjour.", "ff_siwis").phones is None


@pytest.mark.parametrize(
    ("text", "voice", "error", "match"),
    [
        ("Hm.", "af_heart", AudioError, "produced no phonemes"),
        ("Hush.", "af_heart", AudioError, "is silent"),
        ("Hello.", "jf_alpha", ConfigError, "no voice 'jf_alpha'"),
    ],
)
def test_kokoro_refuses(
    kokoro: Callable[..., Kokoro], text: str, voice: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        kokoro().speak(text, voice)


def test_kokoro_without_its_files(kokoro: Callable[..., Kokoro], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.onnx does not exist\. Name the ONNX model"):
        Kokoro(tmp_path / "none.onnx", tmp_path / "voices.npz")
    with pytest.raises(WeightsError, match=r"are not Kokoro \(Protobuf parsing failed"):
        kokoro(b"text")
    (tmp_path / "voices.npz").write_bytes(b"text")
    with pytest.raises(WeightsError, match="are not Kokoro"):
        kokoro()


def test_kokoro_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    for name in ("model.onnx", "voices.npz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(MissingDependency, match=r"pip install 'lalia\[tts-data\]'"):
        Kokoro(tmp_path / "model.onnx", tmp_path / "voices.npz")


def test_order_does_not_touch_the_global_random_numbers() -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    shuffled(SENTENCES, 1)
    list(assign_parts(SENTENCES, {"a": 1.0}, (1.0,), 0))
    assert random.random() == expected
