"""A model as a directory: ``recipe.json`` beside ``model.safetensors``.

``recipe.json`` has the resolved recipe and the identity of every tokenizer; the weights are those that
lalia trained (language models, vocoder, quantisers). Third-party encoders are named, and fetched.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lalia.config import from_dict, to_dict
from lalia.errors import CheckpointError, LaliaError, OutputError
from lalia.files import atomic_write, sha256
from lalia.version import __version__

__all__ = [
    "DESCRIPTION",
    "directory_identity",
    "holds",
    "matches",
    "read_description",
    "read_weights",
    "write_description",
    "write_weights",
]

DESCRIPTION, WEIGHTS = "recipe.json", "model.safetensors"
_FORMAT = 1


def write_description(folder: Path, kind: str, config: Any, **more: Any) -> None:
    """Write ``recipe.json``: what this directory holds, as tagged plain data.

    :raises OutputError: the folder cannot be written.
    """
    data = {"format": _FORMAT, "lalia": __version__, kind: to_dict(config), **more}
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    _make(folder)
    with atomic_write(folder / DESCRIPTION) as path:
        path.write_text(text, encoding="utf-8")


def read_description(folder: Path, kind: str, *, trust: tuple[str, ...] = ()) -> tuple[Any, dict[str, Any]]:
    """The configuration that ``write_description`` wrote, and whatever else is in the file.

    :raises CheckpointError: no such file, or it does not hold a ``kind``.
    """
    path = folder / DESCRIPTION
    data = _read(folder)
    if kind not in data:
        raise CheckpointError(f"{path} holds no {kind}. Name another directory.")
    try:
        return from_dict(data[kind], trust=trust), {k: v for k, v in data.items() if k != kind}
    except LaliaError as error:
        raise CheckpointError(f"{path}: {error}") from None


def holds(folder: Path, kind: str) -> bool:
    """Whether a directory holds a ``kind``.

    :raises CheckpointError: no such file, or it is damaged.
    """
    return kind in _read(folder)


def _read(folder: Path) -> Mapping[str, Any]:
    path = folder / DESCRIPTION
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} has no {DESCRIPTION}. Name a directory that lalia wrote.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is damaged ({reason}). Copy or export it again.") from None
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{path} is damaged (it is no object). Copy or export it again.")
    if data.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is of format {data.get('format')}, this is {_FORMAT}. Update lalia.")
    return data


def write_weights(folder: Path, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None) -> None:
    """Write ``model.safetensors``; floating-point tensors as ``dtype`` if given.

    :raises OutputError: the folder cannot be written, or the disk is full.
    """
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, t in tensors.items():
        t = t.detach().cpu()
        t = (t.to(dtype) if dtype is not None and t.is_floating_point() else t).contiguous()
        # The format has no shared memory: a tensor under a second name is copied, and only then.
        kept[name] = t.clone() if t.untyped_storage().data_ptr() in seen else t
        seen.add(t.untyped_storage().data_ptr())
    _make(folder)
    with atomic_write(folder / WEIGHTS) as path:
        mode = path.stat().st_mode
        try:
            save_file(kept, path, metadata={"format": "pt"})
            # It makes a private file of its own in place of ours.
            path.chmod(mode)
        except SafetensorError as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f"{folder / WEIGHTS} cannot be written ({reason}). Make room there.") from None


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether the name of a weight is of one of the fnmatch patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def read_weights(folder: Path, *, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors of ``model.safetensors``.

    A directory whose description says ``"weights": {"of": "mini", "without": [...]}`` has those of the directory of
    that name beside it, without the ones that match the fnmatch patterns.

    :raises CheckpointError: missing or damaged.
    """
    if (folder / DESCRIPTION).is_file() and (lent := _read(folder).get("weights")) is not None:
        found = read_weights(folder.parent / lent["of"], device=device)
        return {n: t for n, t in found.items() if not matches(n, lent.get("without", ()))}
    path = folder / WEIGHTS
    if not path.exists():
        raise CheckpointError(f"{folder} has no {WEIGHTS}. Train it to the end, or copy it whole.")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Copy or export it again.") from None


def directory_identity(folder: Path) -> str | None:
    """SHA-256 of the description, whichever lalia wrote it, and of the weights of a directory, wherever it lies.

    Weights may be lent (see `read_weights`), or in several files, as others publish them; None where there are none.

    :raises CheckpointError: the description is damaged.
    """
    known = dict(_read(folder)) if (folder / DESCRIPTION).is_file() else {}
    lent = known.get("weights")
    files = sorted((folder if lent is None else folder.parent / lent["of"]).glob("*.safetensors"))
    if not files:
        return None
    said = {k: v for k, v in known.items() if k != "lalia"}
    lines = [json.dumps(said, sort_keys=True), *(f"{file.name} {sha256(file)}" for file in files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}). Choose another folder.") from None
