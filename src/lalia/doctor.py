"""What this machine has, and what on it is known to break speech models."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lalia.checkpoints import KNOWN, cache_dir, cached, verify
from lalia.checkpoints.cache import place

__all__ = ["Finding", "Status", "examine"]

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``cure`` is empty where nothing needs one."""

    name: str
    status: Status
    detail: str
    cure: str = ""


CORE = ("numpy", "pyarrow", "pyyaml", "rich", "safetensors", "soundfile", "soxr", "tokenizers", "transformers", "typer")
OPTIONAL = ("ctranslate2", "faster-whisper", "huggingface-hub", "jiwer", "lhotse", "tensorboard")

BREAKERS = {
    "torchaudio": "its mere presence makes the speech models of transformers fail to import where it cannot load",
    "torchcodec": "it is found by other packages and fails to load where its libraries are missing",
}
NEEDS_PKG_RESOURCES = ("pyworld", "resemblyzer", "webrtcvad")
FORMATS = ("WAV", "FLAC", "OGG", "MP3")
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")

_GB = 1e9
_LITTLE_MEMORY = 2 * _GB
_LITTLE_SPACE = 1 * _GB


def examine(*, network: bool = False, thorough: bool = False) -> list[Finding]:
    """Look at everything; never raises.

    :param network: also ask whether the hub can be reached. Nothing touches the network otherwise.
    :param thorough: also hash the weights in the cache.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "platform": _platform,
        "cpu": _cpu,
        "memory": _memory,
        "torch": _torch,
        "packages": _packages,
        "breakers": _breakers,
        "audio": _audio,
        "cache": _cache,
        "weights": lambda: _weights(thorough),
    }
    if network:
        checks["hub"] = _hub
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            findings.extend(check())
        except Exception as error:  # noqa: BLE001  a broken machine is what this is for
            findings.append(Finding(name, "warn", f"cannot be examined: {_brief(error)}", "Look at it by hand."))
    return findings


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} ({platform.python_implementation()}) at {sys.executable}"
    yield Finding("python", "ok" if good else "fail", detail, "" if good else "Install Python 3.11 or later.")


def _platform() -> Iterator[Finding]:
    yield Finding("platform", "ok", platform.platform())


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu() -> Iterator[Finding]:
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) / int(period))
    lines = dict(line.split(":", 1) for line in _read("/proc/cpuinfo").splitlines() if ":" in line)
    fields = {key.strip().lower(): value.strip() for key, value in lines.items()}
    flags = set(fields.get("flags", fields.get("features", "")).split())
    present = [feature for feature in CPU_FEATURES if feature in flags]
    model = fields.get("model name") or platform.processor() or platform.machine()
    detail = f"{cores:g} usable cores, {model}" + (f", {' '.join(present)}" if present else "")
    if cores < 2:
        yield Finding("cpu", "warn", detail, "Training and synthesis will be slow: give it two cores or more.")
    else:
        yield Finding("cpu", "ok", detail)


def _memory() -> Iterator[Finding]:
    table = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    if "MemTotal" in table:
        total, available = (
            int(table.get(key, table["MemTotal"]).split()[0]) * 1024 for key in ("MemTotal", "MemAvailable")
        )
    else:
        total = available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    used = _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and int(limit) < total:
        total = int(limit)
        available = min(available, total - (int(used) if used.isdigit() else 0))
    detail = f"{total / _GB:.1f} GB, {available / _GB:.1f} GB free"
    if available < _LITTLE_MEMORY:
        yield Finding("memory", "warn", detail, f"Free memory: {_LITTLE_MEMORY / _GB:.0f} GB are needed.")
    else:
        yield Finding("memory", "ok", detail)


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "fail", f"cannot be imported ({_brief(error)})", "Install it again: pip install torch")
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    version = f"{torch.__version__}, {torch.get_num_threads()} threads"
    if cuda:
        for i in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(i)
            detail = f"{version}, cuda:{i} {device.name}, {device.total_memory / _GB:.0f} GB"
            yield Finding("torch", "ok", detail)
    elif torch.backends.mps.is_available():
        yield Finding("torch", "ok", f"{version}, mps")
    elif built:
        why = f" ({str(caught[0].message).splitlines()[0][:120]})" if caught else ""
        yield Finding(
            "torch",
            "warn",
            f"{version}, built for CUDA {built}, but no GPU can be used{why}",
            "Update the GPU's driver; without a GPU, the CPU build of torch is some gigabytes smaller.",
        )
    else:
        yield Finding("torch", "ok", f"{version}, cpu")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    core = {name: _version(name) for name in CORE}
    missing = [name for name, version in core.items() if version is None]
    if missing:
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", f"Run: pip install {' '.join(missing)}")
    transformers = core["transformers"] or ""
    if transformers and not int(transformers.split(".")[0]) >= 5:
        yield Finding(
            "packages", "fail", f"transformers {transformers} is too old", "Run: pip install -U 'transformers>=5'"
        )
    yield Finding("packages", "ok", ", ".join(f"{name} {version}" for name, version in core.items() if version))
    optional = {name: _version(name) for name in OPTIONAL}
    detail = ", ".join(f"{name} {version or 'absent'}" for name, version in optional.items())
    yield Finding("optional packages", "ok", detail)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None or _version(name) is not None


def _breakers() -> Iterator[Finding]:
    for name, why in BREAKERS.items():
        if _is_installed(name):
            yield Finding(name, "fail", f"is installed: {why}", f"Run: pip uninstall {name}")
        else:
            yield Finding(name, "ok", "is not installed, which is right")
    users = [name for name in NEEDS_PKG_RESOURCES if _version(name)]
    if users and importlib.util.find_spec("pkg_resources") is None:
        cure = "pip install webrtcvad-wheels" if users == ["webrtcvad"] else "pip install 'setuptools<81'"
        detail = f"{', '.join(users)} cannot be imported: setuptools {_version('setuptools')} has no pkg_resources"
        yield Finding("pkg_resources", "warn", detail, f"Run: {cure}")


def _audio() -> Iterator[Finding]:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        yield Finding(
            "audio", "fail", f"soundfile cannot be imported ({_brief(error)})", "Install libsndfile, or soundfile anew."
        )
        return
    known = soundfile.available_formats()
    missing = [name for name in FORMATS if name not in known]
    detail = f"libsndfile {soundfile.__libsndfile_version__} reads {', '.join(n for n in FORMATS if n in known)}"
    if missing:
        yield Finding("audio", "warn", f"{detail}, not {', '.join(missing)}", "Update: pip install -U soundfile")
    else:
        yield Finding("audio", "ok", f"{detail} and {len(known) - len(FORMATS)} more")


def _cache() -> Iterator[Finding]:
    folder = cache_dir()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Finding(
            "cache", "fail", f"{folder} cannot be written ({error.strerror})", "Set LALIA_HOME to another folder."
        )
        return
    free = shutil.disk_usage(existing).free
    detail = f"{folder}, {free / _GB:.1f} GB free"
    if free < _LITTLE_SPACE:
        yield Finding("cache", "warn", detail, "Make room there, or set LALIA_HOME to another folder.")
    else:
        yield Finding("cache", "ok", detail)


def _weights(thorough: bool) -> Iterator[Finding]:
    for weights in KNOWN.values():
        name, cure = f"weights {weights.name}", f"Run: lalia fetch {weights.name}"
        size = f"{weights.size / 1e6:.0f} MB"
        folder = cached(weights)
        if folder is None:
            broken = place(weights).exists()
            detail = f"incomplete in {place(weights)}" if broken else f"not fetched yet ({size})"
            yield Finding(name, "fail" if broken else "warn", detail, cure)
        elif thorough and (wrong := verify(weights, folder)):
            yield Finding(name, "fail", f"{folder / wrong[0]} was changed", f"Delete {folder}, then: {cure[5:]}")
        else:
            yield Finding(name, "ok", f"{folder} ({size}, {'SHA-256 verified' if thorough else 'sizes right'})")


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "warn", "HF_HUB_OFFLINE is set", "Unset it to fetch from the hub.")
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # noqa: BLE001  the transport's own exceptions are not part of the hub's interface
        detail = f"{constants.ENDPOINT} cannot be reached ({_brief(error)})"
        yield Finding("hub", "warn", detail, "Check the network, or set HF_ENDPOINT to a mirror.")
    else:
        yield Finding("hub", "ok", f"{constants.ENDPOINT} can be reached")
