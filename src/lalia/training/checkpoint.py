"""Checkpoints of a run: directories that are whole or not there.

``checkpoint-000100/`` holds one safetensors file per group of tensors, ``state.json`` with everything else,
and ``complete.json`` with the size and SHA-256 of each. It is filled under a temporary name and renamed, and
whatever does not match its own hashes (a full disk, a lost power supply, a bad copy) is passed over.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lalia.errors import CheckpointError, OutputError
from lalia.files import sha256

__all__ = ["Tensors", "copy_into", "latest", "load", "path_of", "prune", "save", "steps", "write_directory"]

Tensors = Mapping[str, Mapping[str, Tensor]]
"""Groups of named tensors; each group becomes ``GROUP.safetensors``."""

FORMAT = 1
_MARKER = "complete.json"


@contextmanager
def write_directory(target: str | Path) -> Iterator[Path]:
    """An empty temporary directory that takes the place of ``target`` when the block ends well.

    :raises OutputError: the parent cannot be written.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.part")
    replaced = target.with_name(f".{target.name}.old")
    try:
        if replaced.exists() and not target.exists():
            os.rename(replaced, target)  # killed between the two renames below
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror}). Choose another folder.") from None
    try:
        yield temporary
        shutil.rmtree(replaced, ignore_errors=True)
        if target.exists():
            os.rename(target, replaced)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def path_of(run: str | Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return Path(run) / f"checkpoint-{step:06d}"


def steps(run: str | Path) -> list[int]:
    """The steps of all checkpoints of a run, damaged ones included, in order."""
    found = (re.fullmatch(r"checkpoint-(\d{6,})", p.name) for p in Path(run).glob("checkpoint-*") if p.is_dir())
    return sorted(int(match[1]) for match in found if match)


def save(run: str | Path, step: int, tensors: Tensors, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of a step.

    :param state: plain data; ``step`` and ``format`` are added.
    :raises OutputError: the folder cannot be written, or the disk is full.
    """
    path = path_of(run, step)
    with write_directory(path) as directory:
        try:
            for group, named in tensors.items():
                save_file({name: _storable(t) for name, t in named.items()}, directory / f"{group}.safetensors")
            text = json.dumps({**state, "step": step, "format": FORMAT}, indent=1)
            (directory / "state.json").write_text(text, encoding="utf-8")
            files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(directory.iterdir())}
            (directory / _MARKER).write_text(json.dumps(files, indent=1), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"{path} cannot be written ({error}). Free some space, or choose another folder."
            ) from None
    return path


def _storable(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    # A view into a larger storage (weights of a flattened RNN) would be refused, or drag all of it along.
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        files = json.loads((path / _MARKER).read_text(encoding="utf-8"))
        for name, expected in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}"
            if sha256(file) != expected["sha256"]:
                return f"{name} does not match its SHA-256"
        return None if "state.json" in files else "state.json is not listed"
    except FileNotFoundError:
        return f"{_MARKER} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_MARKER} cannot be read ({error})"


def latest(run: str | Path) -> int | None:
    """The step of the newest checkpoint that is whole, or None where there is no checkpoint at all.

    A damaged one is passed over with a warning.

    :raises CheckpointError: there are checkpoints, but all are damaged.
    """
    found = steps(run)
    for step in reversed(found):
        damage = _damage(path_of(run, step))
        if damage is None:
            return step
        warnings.warn(f"{path_of(run, step)} is damaged ({damage}) and ignored.", stacklevel=2)
    if found:
        raise CheckpointError(f"{run} has no undamaged checkpoint. Start again in another folder.")
    return None


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors and the state of a checkpoint.

    :raises CheckpointError: it is missing, damaged, or of another version of the format.
    """
    path = Path(path)
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = {p.stem: load_file(p, device=str(device)) for p in sorted(path.glob("*.safetensors"))}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Name another checkpoint.") from None
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {state.get('format')}, but this lalia reads {FORMAT}. Use the version that wrote it."
        )
    return tensors, state


def copy_into(targets: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy saved tensors over those of the same names.

    :raises CheckpointError: a name or a shape differs; the first is named.
    """
    cure = "Resume with the recipe that made it, or choose another run folder."
    for name, target in targets.items():
        if name not in saved:
            raise CheckpointError(f"{path} has no parameter {name!r}, which the model has. {cure}")
        if saved[name].shape != target.shape:
            raise CheckpointError(
                f"{path} has {name!r} of shape {tuple(saved[name].shape)}, the model {tuple(target.shape)}. {cure}"
            )
    for name in saved:
        if name not in targets:
            raise CheckpointError(f"{path} has a parameter {name!r}, which the model has not. {cure}")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(saved[name])


def prune(run: str | Path, keep: int, *, newest: int, best: int | None = None) -> None:
    """Delete all but the last ``keep`` checkpoints up to step ``newest``, the best one, and what a killed run left."""
    for left in Path(run).glob(".checkpoint-*.part"):
        shutil.rmtree(left, ignore_errors=True)
    ours = [step for step in steps(run) if step <= newest]
    for step in ours[: max(0, len(ours) - keep)]:
        if step != best:
            shutil.rmtree(path_of(run, step), ignore_errors=True)
