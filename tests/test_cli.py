import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from lalia import __version__
from lalia.cli import speech
from lalia.cli.console import progress
from lalia.errors import LaliaError
from lalia.recipes import find

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "chat",
    "transcribe",
    "say",
    "continue",
    "resynthesize",
    "score",
    "tokenize",
    "fit-units",
    "fit-codec",
    "train",
    "eval",
    "compare",
    "listening-test",
    "serve",
    "recipes",
    "fetch",
    "doctor",
)


def program(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m lalia`` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | options.pop("env", {})
    command = [sys.executable, "-m", "lalia", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment, **options)


# -- help and usage -----------------------------------------------------------------------------


def test_every_command_explains_itself(lalia: Any) -> None:
    ran = lalia("--help")
    assert ran.status == 0
    assert re.findall(r"^  ([a-z][a-z-]+)  ", ran.out, re.MULTILINE) == list(COMMANDS)
    assert lalia() == ran
    for command in COMMANDS:
        ran = lalia(command, "--help")
        assert ran.status == 0
        assert ran.out.startswith(f"Usage: lalia {command}")
        assert ran.err == ""
        options = re.findall(r"^  (?:-\w, )?(--[a-z-]+).*\n?", ran.out, re.MULTILINE)
        assert "--json" in options


def test_the_version_is_that_of_the_package(lalia: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert __version__ == project["version"]
    assert lalia("--version").out == f"lalia {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("continu", "x"), "No such command 'continu'. Did you mean 'continue'? See lalia --help."),
        (("continue",), "Missing argument 'AUDIO'. See lalia continue --help."),
        (("score", "x", "--reduction", "max"), "Invalid value for '--reduction'"),
        (("continue", "x", "--second", "3"), "No such option: --second"),
        (("continue", "x", "--seconds", "three"), "Invalid value for '--seconds'"),
        (("train", "gslm", "-o", "x"), "Missing option '--data'. See lalia train --help."),
        (("tokenize", "x", "-o", "y", "--world", "0"), "Invalid value for '--world'"),
        (("fetch", "whisper-base", "--source", "moon"), "Invalid value for '--source'"),
    ],
)
def test_wrong_command_lines_are_one_line(arguments: tuple[str, ...], message: str, lalia: Any) -> None:
    ran = lalia(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message}")
    assert ran.err.count("\n") == 1
    assert "--help." in ran.err


def test_nothing_private_of_typer_is_used() -> None:
    for path in (ROOT / "src" / "lalia").rglob("*.py"):
        assert "_click" not in path.read_text(), path


# -- what becomes of errors ---------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let ``lalia doctor`` raise something."""

    def prepare(error: BaseException) -> None:
        def examine(**_: Any) -> None:
            raise error

        monkeypatch.setattr("lalia.doctor.examine", examine)

    return prepare


def test_a_fault_of_lalia_is_one_line_and_status_1(lalia: Any, failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LALIA_DEBUG", raising=False)
    failing(TypeError("this\nshould not be"))
    ran = lalia("doctor")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        "fault: TypeError: this should not be. Please report this with the command; "
        "LALIA_DEBUG=1 shows where it happened.\n"
    )
    monkeypatch.setenv("LALIA_DEBUG", "1")
    ran = lalia("doctor")
    assert ran.status == 1
    assert "Traceback" in ran.err
    assert "should not be" in ran.err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (LaliaError("A.\n B."), 2, "error: A. B."),
        (KeyboardInterrupt(), 130, "Stopped."),
        (OSError(28, "No space left on device"), 2, "error: No space left on device. Choose another place"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied. Choose another place"),
        (FileNotFoundError(2, "No such file", "/x"), 1, "fault: FileNotFoundError"),
        (RecursionError(), 1, "fault: RecursionError. Please"),
    ],
)
def test_errors_have_their_status(error: BaseException, status: int, line: str, lalia: Any, failing: Any) -> None:
    failing(error)
    ran = lalia("doctor")
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(line)
    assert ran.err.count("\n") == 1


def test_warnings_are_one_line_and_those_of_others_are_none(lalia: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(**_: Any) -> list[Any]:
        warnings.warn_explicit("of lalia", UserWarning, str(Path(speech.__file__)), 1)
        warnings.warn_explicit("of others", UserWarning, "/usr/lib/other.py", 1)
        return []

    monkeypatch.setattr("lalia.doctor.examine", examine)
    monkeypatch.delenv("LALIA_DEBUG", raising=False)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert lalia("doctor").err == "warning: of lalia\n"
    assert warnings.showwarning is before


def test_the_reader_of_the_output_may_leave() -> None:
    command = f"{sys.executable} -m lalia recipes --json | true; echo ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=True)
    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_interrupted_while_it_works(
    lalia: Any, clip: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of ten minutes of speech."""
    from lalia.lm import SpeechLM

    plain = SpeechLM.generate

    def generate(*arguments: Any, **options: Any) -> Iterator[Any]:
        for i, part in enumerate(plain(*arguments, **options)):
            if i == 3:
                signal.raise_signal(signal.SIGINT)
            yield part

    monkeypatch.setattr(SpeechLM, "generate", generate)
    ran = lalia("continue", clip, "-o", tmp_path / "out.wav", "--model", tiny, "--seconds", 600)
    assert (ran.status, ran.out, ran.err) == (130, "", "Stopped.\n")
    assert not list(tmp_path.iterdir())


# -- what the commands do -----------------------------------------------------------------------


def test_as_a_program(clip: Path, tiny: Path, tmp_path: Path) -> None:
    ran = program("score", clip, "missing.wav", "--model", tiny, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: missing.wav does not exist. Check the path.\n"


def test_continue(lalia: Any, clip: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    options = ("--model", tiny, "--seconds", 1, "--prompt-seconds", 2)
    ran = lalia("continue", clip, "-o", out, *options, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json.keys() == {"audio", "sample_rate", "seconds", "prompt_seconds", "tokens", "timings"}
    assert ran.json["timings"].keys() == {"encode_ms", "generate_ms", "vocode_ms", "total_ms", "rtf"}
    assert ran.json["seconds"] == pytest.approx(3.0, abs=0.03)
    assert soundfile.info(out).samplerate == ran.json["sample_rate"] == 16000
    first = out.read_bytes()
    ran = lalia("continue", clip, "-o", out, *options)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"{out}: 3.0 s of speech, the first 2.0 s of it the prompt; made in ")
    assert out.read_bytes() == first
    lalia("continue", clip, "-o", out, *options, "--seed", 5)
    assert out.read_bytes() != first


def test_resynthesize_in_a_voice(lalia: Any, clip: Path, tiny: Path, tmp_path: Path) -> None:
    sounds = []
    first, second = find("mini-gslm").tiny().voice_names
    for i, voice in enumerate(((), ("--voice", "0"), ("--voice", first), ("--voice", second))):
        ran = lalia("resynthesize", clip, "-o", tmp_path / f"{i}.wav", "--tokenizer", tiny, *voice, "--json")
        assert (ran.status, ran.err) == (0, "")
        assert ran.json.keys() == {"audio", "sample_rate", "seconds", "tokens", "tokens_per_second", "timings"}
        assert ran.json["seconds"] == pytest.approx(5.0, abs=0.02)
        sounds.append((tmp_path / f"{i}.wav").read_bytes())
    assert sounds[0] == sounds[1] == sounds[2] != sounds[3]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_the_suffix_is_the_format(suffix: str, lalia: Any, clip: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out.{suffix}"
    assert lalia("resynthesize", clip, "-o", out, "--tokenizer", tiny).status == 0
    assert soundfile.info(out).duration == pytest.approx(5.0, abs=0.1)


def test_score(lalia: Any, clip: Path, tiny: Path) -> None:
    ran = lalia("score", clip, clip, "--model", tiny, "--json")
    assert (ran.status, ran.err) == (0, "")
    first, second = ran.json
    assert first == second
    assert first["path"] == str(clip)
    assert first["log_prob"] == first["sum"] == pytest.approx(first["mean"] * first["tokens"])
    assert first["sum"] < 0 > first["end_log_prob"]
    ran = lalia("score", clip, "--model", tiny, "--reduction", "mean")
    assert ran.out == f"{first['mean']:.4f}\t{first['tokens']}\t{clip}\n"


def test_where_and_how_precise(lalia: Any, clip: Path, tiny: Path) -> None:
    exact, rounded = (lalia("score", clip, "--model", tiny, "--json", "--dtype", t) for t in ("float32", "bfloat16"))
    assert (exact.status, rounded.status) == (0, 0), rounded.err
    assert exact.json[0]["sum"] != rounded.json[0]["sum"] == pytest.approx(exact.json[0]["sum"], rel=0.02)
    ran = lalia("score", clip, "--model", tiny, "--device", "toaster")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "The device 'toaster' cannot be used" in ran.err


def test_tokenize_resumes_and_keeps_its_tokenizer(lalia: Any, corpus: Path, tiny: Path, tmp_path: Path) -> None:
    from lalia.model import load_tokenizer

    shards = tmp_path / "new" / "shards"
    ran = lalia("tokenize", corpus, "-o", shards, "--tokenizer", tiny, "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["total"], ran.json["done"], ran.json["skipped"]) == (24, 24, 0)
    assert ran.json["identity"] == load_tokenizer(shards / "tokenizers" / "units").identity
    before = {p: p.stat().st_mtime_ns for p in shards.glob("*.parquet")}
    ran = lalia("tokenize", corpus, "-o", shards, "--tokenizer", shards / "tokenizers" / "units")
    assert ran.status == 0, ran.err
    assert "24 of 24 recordings" in ran.out
    assert {p: p.stat().st_mtime_ns for p in shards.glob("*.parquet")} == before


@pytest.mark.parametrize("stream", ["a/b", "a.b", "", "../x", "1st"])
def test_names_of_streams(stream: str, lalia: Any, corpus: Path, tiny: Path, tmp_path: Path) -> None:
    ran = lalia("tokenize", corpus, "-o", tmp_path / "shards", "--tokenizer", tiny, "--stream", stream)
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())


def test_fit_units(lalia: Any, corpus: Path, small_encoder: None, tmp_path: Path) -> None:
    (corpus / "speaker0" / "broken.wav").write_text("no sound")
    options = ("--clusters", 6, "--passes", 3)
    try:
        ran = lalia("fit-units", corpus, "-o", tmp_path / "units", *options, "--json")
    finally:
        (corpus / "speaker0" / "broken.wav").unlink()
    assert ran.status == 0, ran.err
    assert (ran.json["clusters"], ran.json["skipped"]) == (6, 1)
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("skipped ")
    again = lalia("fit-units", corpus, "-o", tmp_path / "again", *options, "--json")
    assert again.json["identity"] == ran.json["identity"]
    other = lalia("fit-units", corpus, "-o", tmp_path / "other", *options, "--seed", 1, "--json")
    assert other.json["identity"] != ran.json["identity"]
    made = lalia("tokenize", corpus, "-o", tmp_path / "shards", "--tokenizer", tmp_path / "units", "--json")
    assert made.json["identity"] == ran.json["identity"]
    ran = lalia("fit-units", corpus, "-o", tmp_path / "units", *options)
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "holds a tokenizer or a model already" in ran.err


def test_more_clusters_than_frames(lalia: Any, clip: Path, small_encoder: None, tmp_path: Path) -> None:
    ran = lalia("fit-units", clip, "-o", tmp_path / "units", "--clusters", 4000)
    assert (ran.status, ran.out) == (2, "")
    assert "cannot make 4000 clusters" in ran.err
    assert not list(tmp_path.iterdir())


def test_fetch_lists_what_it_knows(lalia: Any) -> None:
    rows = lalia("fetch", "--json").json
    assert {"name", "about", "licence", "hub", "here"} == rows[0].keys()
    assert "whisper-tiny.en" in lalia("fetch").out
    ran = lalia("fetch", "whisper-huge")
    assert (ran.status, ran.err.count("\n")) == (2, 1)


def test_doctor(lalia: Any) -> None:
    rows = lalia("doctor", "--json").json
    assert {row["status"] for row in rows} <= {"ok", "warn", "fail"}
    assert len(lalia("doctor").out.splitlines()) == len(rows)


def test_progress_is_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lalia.cli.console._EVERY_SECONDS", 0.0)
    with progress("Working", "s") as report:
        report(1.0, 4.0)
        report(3.0, 0.0)
    assert capsys.readouterr().err == "Working: 25 % (1 of 4 s)\nWorking: (3 of 0 s)\n"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    from lalia.cli.console import show

    show({"a": [float("nan"), 1.0], "b": (float("inf"),)}, "", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.0], "b": [None]}
