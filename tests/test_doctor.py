import builtins
import importlib.metadata
import importlib.util
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lalia import doctor
from lalia.checkpoints import KNOWN
from lalia.checkpoints.cache import place
from lalia.doctor import Finding, examine


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LALIA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def find(name: str, **kwargs: Any) -> Finding:
    return next(f for f in examine(**kwargs) if f.name == name)


def pretend_installed(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str | None]) -> None:
    """Some distributions have another version, or (None) are absent."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = versions[name] if name in versions else real(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_sound_machine() -> None:
    findings = examine()
    names = [f.name for f in findings]
    assert {"python", "platform", "cpu", "memory", "torch", "packages", "torchaudio", "audio", "cache"} <= set(names)
    assert "hub" not in names
    assert all(f.status in ("ok", "warn", "fail") and f.detail and "\n" not in f.detail for f in findings)
    assert all(f.cure for f in findings if f.status != "ok")
    assert not [f for f in findings if f.status == "fail"]


def test_nothing_touches_the_network_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert not [f for f in examine(thorough=True) if "network" in f.detail]


def test_hub_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in find("hub", network=True).detail
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    asked: list[str] = []

    def session(head: Callable[..., object]) -> Callable[[], object]:
        return lambda: SimpleNamespace(head=head)

    monkeypatch.setattr(huggingface_hub, "get_session", session(lambda url, timeout: asked.append(url)))
    assert find("hub", network=True).status == "ok"
    assert asked == [huggingface_hub.constants.ENDPOINT]

    def fail(url: str, timeout: float) -> None:
        raise ConnectionError("no route\nto anything")

    monkeypatch.setattr(huggingface_hub, "get_session", session(fail))
    found = find("hub", network=True)
    assert (found.status, "no route" in found.detail) == ("warn", True)


@pytest.mark.parametrize("check", ["_python", "_cpu", "_torch", "_breakers", "_cache", "_weights"])
def test_never_raises(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("something\nunforeseen")

    monkeypatch.setattr(doctor, check, broken)
    found = find(check[1:])
    assert found.status == "warn"
    assert "RuntimeError: something" in found.detail
    assert len(examine()) > 5


@pytest.mark.parametrize("name", ["torchaudio", "torchcodec"])
def test_breakers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    assert find(name).status == "ok"
    (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = find(name)
    assert (found.status, found.cure) == ("fail", f"Run: pip uninstall {name}")


def test_breaker_that_is_only_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, {"torchaudio": "2.11.0"})
    assert find("torchaudio").status == "fail"


@pytest.mark.parametrize(
    ("users", "pkg_resources", "cure"),
    [
        (("webrtcvad",), False, "pip install webrtcvad-wheels"),
        (("webrtcvad", "pyworld"), False, "setuptools<81"),
        (("webrtcvad",), True, None),
        ((), False, None),
    ],
)
def test_users_of_pkg_resources(
    monkeypatch: pytest.MonkeyPatch, users: tuple[str, ...], pkg_resources: bool, cure: str | None
) -> None:
    pretend_installed(monkeypatch, {name: "1.0" if name in users else None for name in doctor.NEEDS_PKG_RESOURCES})
    real = importlib.util.find_spec
    there = SimpleNamespace() if pkg_resources else None
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: there if name == "pkg_resources" else real(name, *rest)
    )
    found = [f for f in examine() if f.name == "pkg_resources"]
    assert [cure in f.cure for f in found if cure] == [True] * bool(cure)
    assert len(found) == bool(cure)


def test_torch_for_cuda_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert find("torch").status == "ok"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = find("torch")
    assert (found.status, "CUDA 13.0" in found.detail) == ("warn", True)


def test_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = SimpleNamespace(name="H200", total_memory=140_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)
    details = [f.detail for f in examine() if f.name == "torch"]
    assert ["cuda:0 H200, 140 GB" in details[0], "cuda:1" in details[1], len(details)] == [True, True, 2]


@pytest.mark.parametrize(("module", "name"), [("torch", "torch"), ("soundfile", "audio")])
def test_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    real = builtins.__import__

    def without(wanted: str, *rest: Any, **kwargs: Any) -> Any:
        if wanted == module:
            raise OSError("lib.so: cannot open shared object file")
        return real(wanted, *rest, **kwargs)

    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    found = find(name)
    assert (found.status, "lib.so" in found.detail) == ("fail", True)


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, {"soxr": None, "transformers": "4.57.1", "jiwer": None})
    failed = {f.detail: f.cure for f in examine() if f.name == "packages" and f.status == "fail"}
    assert failed["missing: soxr"] == "Run: pip install soxr"
    assert "transformers>=5" in failed["transformers 4.57.1 is too old"]
    assert "jiwer absent" in find("optional packages").detail


def test_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "FLAC": "", "OGG": ""})
    found = find("audio")
    assert (found.status, "not MP3" in found.detail) == ("warn", True)


def test_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> None:
    assert find("cache").status == "ok"
    assert not home.exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("LALIA_HOME", str(tmp_path / "file"))
    assert find("cache").status == "fail"
    monkeypatch.setenv("LALIA_HOME", str(tmp_path))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    assert find("cache").status == "warn"


def test_weights(home: Path) -> None:
    weights = KNOWN["whisper-tiny.en"]
    name = "weights whisper-tiny.en"
    absent = find(name)
    assert (absent.status, absent.cure) == ("warn", "Run: lalia fetch whisper-tiny.en")
    folder = place(weights)
    folder.mkdir(parents=True)
    assert find(name).status == "fail"
    for file in weights.files:
        with (folder / file.name).open("wb") as out:
            out.truncate(file.size)
    assert find(name).status == "ok"
    changed = find(name, thorough=True)
    assert (changed.status, "was changed" in changed.detail) == ("fail", True)


FILES = {
    "/proc/cpuinfo": "processor : 0\nmodel name : Some CPU\nflags : fpu avx2 avx512_bf16 amx_bf16\n",
    "/proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n",
}


@pytest.mark.parametrize(
    ("extra", "name", "status", "detail"),
    [
        ({}, "cpu", "ok", "Some CPU, avx2 avx512_bf16 amx_bf16"),
        ({"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, "cpu", "warn", "0.5 usable cores"),
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, "cpu", "ok", "4 usable cores"),
        ({}, "memory", "ok", "16.4 GB, 8.2 GB free"),
        ({"/proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 900000 kB\n"}, "memory", "warn", "0.9 GB free"),
        (
            {"/sys/fs/cgroup/memory.max": "3000000000\n", "/sys/fs/cgroup/memory.current": "1500000000\n"},
            "memory",
            "warn",
            "3.0 GB, 1.5 GB free",
        ),
        ({"/sys/fs/cgroup/memory.max": "max\n"}, "memory", "ok", "16.4 GB"),
    ],
)
def test_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, str], name: str, status: str, detail: str
) -> None:
    monkeypatch.setattr(doctor, "_read", lambda path: (FILES | extra).get(path, ""))
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    found = find(name)
    assert found.status == status
    assert detail in found.detail
