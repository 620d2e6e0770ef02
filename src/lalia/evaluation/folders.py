"""Folders of sound that an evaluation leaves beside its result."""

import hashlib
from pathlib import Path

from lalia.errors import OutputError

__all__ = ["file_name", "make_folder"]


def make_folder(path: str | Path) -> Path:
    """The folder, made where it does not exist.

    :raises OutputError: it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}). Choose another folder.") from None
    return folder


def file_name(name: str) -> str:
    """An id as a file name of its own: what could lead out of the folder is replaced."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")
    # Two ids that differ only in what was replaced stay apart.
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
