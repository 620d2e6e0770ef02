"""The file that a benchmark leaves: what was measured, on what, by what, and every item of it."""

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from lalia.data import Utterance
from lalia.files import atomic_write, sha256
from lalia.version import __version__

__all__ = [
    "FORMAT",
    "Named",
    "code_identity",
    "data_identity",
    "environment",
    "file_identity",
    "finite",
    "save_result",
    "tool",
]

FORMAT = 1


@cache
def code_identity() -> str:
    """SHA-256 of the source of lalia as it is here, committed or not, shortened to 128 bits."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def file_identity(path: Path) -> str:
    """SHA-256 of a file; ``missing`` where there is none."""
    return sha256(path) if path.is_file() else "missing"


def data_identity(utterances: Iterable[Utterance]) -> str:
    """SHA-256 of what a manifest lists and of its sound, whatever the order and wherever the files lie (128 bits).

    Times of words are not part of it: they are found anew where they are missing.
    """

    def line(u: Utterance) -> str:
        sound = file_identity(u.path)
        return json.dumps({**u.to_dict(), "path": sound, "words": None}, sort_keys=True)

    return hashlib.sha256("\n".join(sorted(map(line, utterances))).encode()).hexdigest()[:32]


def environment() -> dict[str, str]:
    """Versions of what computes."""
    names = ("torch", "transformers", "numpy", "soundfile", "soxr")
    found = {"lalia": __version__, "code": code_identity(), "python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


class Named(Protocol):
    """What takes part in a measurement: recognisers, normalisers, models that judge."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


def tool(part: Named) -> dict[str, str]:
    """The name and the version of something that took part."""
    return {"name": part.name, "version": part.version}


def save_result(result: Mapping[str, Any], path: str | Path) -> Path:
    """Write a result as JSON, whole or not at all; what is not a number is null.

    :raises OutputError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    with atomic_write(target) as temporary:
        text = json.dumps(finite(result), ensure_ascii=False, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


def finite(value: Any) -> Any:
    """Data in which what is not a number is null, for JSON has no other word for it."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
