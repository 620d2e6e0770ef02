"""Whatever a user may hand over: the right result, or one line that says what is wrong, and nothing left behind."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
RATE = 16000
SPEAKING = ("continue", "resynthesize")
LISTENING = (*SPEAKING, "score")
FILLING = ("tokenize", "fit-units")


def sound(path: Path, samples: np.ndarray, rate: int = RATE, **options: Any) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def loud(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * rate))[:, None] / rate
    return np.repeat(0.3 * np.sin(2 * np.pi * 200 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)), channels, axis=1)


def with_value(value: float) -> np.ndarray:
    samples = loud(1.0).astype(np.float32)
    samples[8000] = value
    return samples


def text(path: Path) -> Path:
    path.write_text("This is not sound.\n" * 20)
    return path


def cut(path: Path) -> Path:
    sound(path, loud(4.0))
    path.write_bytes(path.read_bytes()[:9000])
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def touched(path: Path) -> Path:
    path.touch()
    return path


BAD: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "missing": ("a.wav", lambda path: path),
    "text": ("a.wav", text),
    "empty file": ("a.wav", touched),
    "no samples": ("a.wav", lambda path: sound(path, loud(0.0))),
    "one sample": ("a.wav", lambda path: sound(path, loud(1 / RATE))),
    "silence": ("a.wav", lambda path: sound(path, 0 * loud(1.0))),
    "NaN": ("a.wav", lambda path: sound(path, with_value(float("nan")), subtype="FLOAT")),
    "infinity": ("a.wav", lambda path: sound(path, with_value(float("inf")), subtype="FLOAT")),
    "cut off": ("a.flac", cut),
    "directory": ("a.wav", folder),
}
"""A file name, and what makes the file."""


def contents(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*")}


def refuses(ran: Any, home: Path, before: set[str]) -> None:
    """One line, status 2, nothing on standard output, and the folder as it was."""
    assert ran.status == 2, ran
    assert ran.err.startswith("error: "), ran.err
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.rstrip().count(". ") >= 1, f"no cure: {ran.err}"
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert contents(home) == before


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", LISTENING)
def test_bad_recordings_are_refused(command: str, kind: str, lalia: Any, tiny: Path, tmp_path: Path) -> None:
    name, make = BAD[kind]
    path = make(tmp_path / name)
    before = contents(tmp_path)
    ran = lalia(command, path, "--model", tiny, *(["-o", tmp_path / "out.wav"] if command in SPEAKING else []))
    refuses(ran, tmp_path, before)
    assert name in ran.err


@pytest.mark.parametrize("kind", BAD)
def test_a_corpus_of_one_bad_recording_is_refused(kind: str, lalia: Any, tiny: Path, tmp_path: Path) -> None:
    name, make = BAD[kind]
    path = make(tmp_path / name)
    before = contents(tmp_path)
    refuses(lalia("tokenize", path, "-o", tmp_path / "made" / "shards", "--tokenizer", tiny), tmp_path, before)


@pytest.mark.parametrize("kind", BAD)
def test_units_are_not_fitted_on_a_bad_recording(kind: str, lalia: Any, small_encoder: None, tmp_path: Path) -> None:
    name, make = BAD[kind]
    path = make(tmp_path / name)
    before = contents(tmp_path)
    refuses(lalia("fit-units", path, "-o", tmp_path / "made" / "units", "--clusters", "4"), tmp_path, before)


def test_a_folder_that_was_empty_is_empty_again(lalia: Any, tiny: Path, tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 0 * loud(1.0))
    (tmp_path / "shards").mkdir()
    ran = lalia("tokenize", tmp_path / "a.wav", "-o", tmp_path / "shards", "--tokenizer", tiny)
    refuses(ran, tmp_path, {"a.wav", "shards"})


def test_bad_files_in_a_corpus_are_skipped_and_counted(lalia: Any, tiny: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("one.wav", "two.wav"):
        sound(corpus / name, loud(1.5))
    kinds = ("text", "empty file", "one sample", "silence", "NaN", "cut off")
    for i, kind in enumerate(kinds):
        name, make = BAD[kind]
        make(corpus / f"bad{i}{Path(name).suffix}")
    ran = lalia("tokenize", corpus, "-o", tmp_path / "shards", "--tokenizer", tiny, "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["total"], ran.json["done"], ran.json["skipped"]) == (2 + len(kinds), 2, len(kinds))
    told = [line for line in ran.err.splitlines() if line.startswith("skipped ")]
    assert len(told) == len(kinds)
    assert json.loads((tmp_path / "shards" / "report.json").read_text())["done"] == 2


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (96000, 2), (44100, 1)])
def test_any_rate_and_two_channels(rate: int, channels: int, lalia: Any, tiny: Path, tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", loud(2.0, rate, channels), rate)
    out = tmp_path / "out.wav"
    ran = lalia("resynthesize", path, "-o", out, "--tokenizer", tiny, "--json")
    assert ran.status == 0, ran.err
    assert soundfile.info(out).frames == pytest.approx(2.0 * RATE, abs=320)
    assert ran.json["seconds"] == pytest.approx(2.0, abs=0.02)
    ran = lalia("continue", path, "-o", out, "--model", tiny, "--prompt-seconds", 1, "--seconds", 1, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["seconds"] == pytest.approx(2.0, abs=0.02)
    assert lalia("score", path, "--model", tiny, "--json").json[0]["tokens"] > 10
    ran = lalia("tokenize", path, "-o", tmp_path / "shards", "--tokenizer", tiny, "--json")
    assert (ran.status, ran.json["done"]) == (0, 1)


def test_the_rate_changes_little_of_what_is_heard(lalia: Any, tiny: Path, tmp_path: Path) -> None:
    scores = []
    for rate, channels in ((16000, 1), (48000, 2)):
        path = sound(tmp_path / f"{rate}.flac", loud(3.0, rate, channels), rate, subtype="PCM_24")
        scores.append(lalia("score", path, "--model", tiny, "--reduction", "mean", "--json").json[0]["log_prob"])
    assert scores[0] == pytest.approx(scores[1], abs=0.3)


# -- where it is to be written ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["missing/out.wav", "clip.wav/out.wav", ".", "out.xyz", "out.mat", "/proc/out.wav"])
@pytest.mark.parametrize("command", SPEAKING)
def test_outputs_that_cannot_be_written(command: str, where: str, lalia: Any, tiny: Path, tmp_path: Path) -> None:
    path = sound(tmp_path / "clip.wav", loud(1.0))
    before = contents(tmp_path)
    refuses(lalia(command, path, "-o", tmp_path / where, "--model", tiny), tmp_path, before)


@pytest.mark.parametrize("command", SPEAKING)
def test_a_closed_folder(command: str, lalia: Any, tiny: Path, tmp_path: Path) -> None:
    path = sound(tmp_path / "clip.wav", loud(1.0))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("nothing is closed to this user")
    refuses(lalia(command, path, "-o", closed / "out.wav", "--model", tiny), tmp_path, contents(tmp_path))


@pytest.mark.parametrize("where", ["clip.wav", "clip.wav/shards", "/proc/lalia/shards"])
def test_folders_that_cannot_be_made(where: str, lalia: Any, tiny: Path, small_encoder: None, tmp_path: Path) -> None:
    path = sound(tmp_path / "clip.wav", loud(1.0))
    for command in FILLING:
        more = ("--tokenizer", tiny) if command == "tokenize" else ("--clusters", 4)
        refuses(lalia(command, path, "-o", tmp_path / where, *more), tmp_path, {"clip.wav"})


def test_what_was_there_stays_when_a_command_fails(lalia: Any, tiny: Path, tmp_path: Path) -> None:
    out = sound(tmp_path / "out.wav", loud(1.0))
    before = out.read_bytes()
    sound(tmp_path / "a.wav", 0 * loud(1.0))
    assert lalia("resynthesize", tmp_path / "a.wav", "-o", out, "--tokenizer", tiny).status == 2
    assert out.read_bytes() == before


# -- numbers, names and standard input ----------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--seconds", "0"),
        ("--seconds", "-1"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--seconds", "100000"),
        ("--prompt-seconds", "0"),
        ("--prompt-seconds", "nan"),
        ("--prompt-seconds", "0.001"),
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--seed", "-1"),
        ("--voice", "nobody"),
        ("--voice", "99"),
        ("--voice", "-1"),
        ("--model", "nothing"),
    ],
    ids=" ".join,
)
def test_values_out_of_range(options: tuple[str, ...], lalia: Any, tiny: Path, tmp_path: Path) -> None:
    path = sound(tmp_path / "clip.wav", loud(1.0))
    model = () if "--model" in options else ("--model", tiny)
    refuses(lalia("continue", path, "-o", tmp_path / "out.wav", *model, *options), tmp_path, {"clip.wav"})


@pytest.mark.parametrize("command", LISTENING)
def test_standard_input(command: str, lalia: Any, tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
    path = sound(tmp_path / "clip.flac", loud(1.0))
    more = ["-o", tmp_path / "out.wav"] if command in SPEAKING else []
    more += ["--seconds", 1] if command == "continue" else []
    for data, status in ((path.read_bytes(), 0), (b"", 2), (b"no sound at all", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        ran = lalia(command, "-", "--model", tiny, *more)
        assert ran.status == status, ran.err
        if status:
            assert ran.err.startswith("error: standard input")
            assert ran.err.count("\n") == 1


def test_one_bad_recording_among_several_is_told_before_any_result(lalia: Any, tiny: Path, tmp_path: Path) -> None:
    good = sound(tmp_path / "good.wav", loud(1.0))
    refuses(lalia("score", good, tmp_path / "bad.wav", "--model", tiny), tmp_path, {"good.wav"})


# -- an hour ------------------------------------------------------------------------------------

HOUR = """
import resource, sys
from lalia.cli import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
hour, model, out = sys.argv[1:]
for arguments in (
    ["score", hour, "--model", model, "--json"],
    ["resynthesize", hour, "-o", out + ".flac", "--tokenizer", model, "--json"],
    ["continue", hour, "-o", out + ".wav", "--model", model, "--seconds", "1", "--json"],
):
    if status := main(arguments):
        sys.exit(status)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_an_hour(light: Path, noise: Any, tmp_path: Path) -> None:
    """In memory that is that of the samples, a few times over, and not that of features or attention."""
    minute = noise(60.0, 8000)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 8000, 1, compression_level=0) as file:
        for i in range(60):
            file.write(np.roll(minute, 997 * i, axis=0))
    command = [sys.executable, "-c", HOUR, str(tmp_path / "hour.flac"), str(light), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    score, spoken, continued, kilobytes = ran.stdout.splitlines()
    assert json.loads(score)[0]["tokens"] > 50_000
    assert json.loads(spoken)["seconds"] == pytest.approx(3600, abs=0.05)
    assert soundfile.info(tmp_path / "out.flac").duration == pytest.approx(3600, abs=0.05)
    assert json.loads(continued)["seconds"] == pytest.approx(4.0, abs=0.05)
    assert int(kilobytes) < 2_000_000
