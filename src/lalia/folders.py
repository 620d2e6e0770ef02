"""Folders that a command fills: checked before the work, and taken away again when nothing came of it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lalia.errors import LaliaError, OutputError
from lalia.files import atomic_write

__all__ = ["check_writable", "output_folder"]


class _Enough(Exception):
    """Leaves a block that writes, without writing."""


def check_writable(path: str | Path) -> None:
    """Say so before the work, not after it, when a file cannot be written.

    :raises OutputError: it is a directory, or its folder is missing or closed.
    """
    try:
        with atomic_write(path):
            raise _Enough
    except _Enough:
        pass


@contextmanager
def output_folder(path: str | Path, *, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A folder, made with its parents when missing.

    When the block fails by a caller's mistake, what it put into a folder that was missing or empty goes again,
    and every folder that was made.

    :param keep: whether there is something in it that must stay, asked after a failure.
    :raises OutputError: it is a file, or cannot be made or written.
    """
    folder = Path(path)
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    empty = bool(missing) or (folder.is_dir() and not any(folder.iterdir()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"{folder} is a file. Name a folder.") from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}). Choose another folder.") from None
    try:
        check_writable(folder / "probe")
        yield folder
    except LaliaError:
        if empty and not keep():
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            for made in missing:
                made.rmdir()
        raise
