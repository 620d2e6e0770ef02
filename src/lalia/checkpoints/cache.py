"""The folder of converted weights: whole entries only, and one maker of each at a time."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lalia.checkpoints.known import KnownWeights
from lalia.errors import OutputError
from lalia.files import sha256

__all__ = ["cache_dir", "cached", "finish", "place", "staging", "verify"]


def cache_dir() -> Path:
    """``$LALIA_HOME``, else ``$XDG_CACHE_HOME/lalia``, else ``~/.cache/lalia``; it may not exist yet."""
    if home := os.environ.get("LALIA_HOME"):
        return Path(home).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "lalia"


def place(weights: KnownWeights) -> Path:
    """Where the converted files lie; a different result of the conversion has a place of its own."""
    identity = hashlib.sha256("".join(file.name + file.sha256 for file in weights.files).encode())
    return cache_dir() / "weights" / f"{weights.name}-{identity.hexdigest()[:8]}"


def cached(weights: KnownWeights) -> Path | None:
    """The folder of these weights in the cache, if it is there with every file at its size."""
    folder = place(weights)
    try:
        whole = folder.is_dir() and all((folder / file.name).stat().st_size == file.size for file in weights.files)
    except OSError:
        return None
    return folder if whole else None


def verify(weights: KnownWeights, folder: Path) -> list[str]:
    """The names of the files that are missing or whose SHA-256 is not that of the table."""
    return [f.name for f in weights.files if not (folder / f.name).is_file() or sha256(folder / f.name) != f.sha256]


@contextmanager
def staging(target: Path, waiting: Callable[[], None]) -> Iterator[Path]:
    """A folder beside ``target`` to prepare it in, which only this process has, and which vanishes afterwards.

    What is to stay is renamed by `finish` before the block ends.

    :param waiting: called once when another process is at it already.
    :raises OutputError: the cache cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The system frees the lock of a killed process.
        lock = FileLock(target.parent / f".{target.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            for stale in target.parent.glob(f".{target.name}.*.part"):
                shutil.rmtree(stale, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
    except OSError as error:
        raise OutputError(
            f"The cache {target.parent} cannot be written ({error.strerror or error}). "
            "Make room there, or set LALIA_HOME to another folder."
        ) from None


def finish(folder: Path, target: Path) -> None:
    """Give a prepared folder its final name, in the place of what is there; only inside `staging`."""
    if target.exists():
        os.replace(target, folder.parent / "replaced")
    os.replace(folder, target)
