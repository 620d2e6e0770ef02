"""Files that are whole or not there, and the hash that tells whether they are the right ones."""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lalia.errors import OutputError

__all__ = ["atomic_write", "sha256"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends well, and vanishes if not.

    A symbolic link is followed: what it points to is replaced, the link stays.

    :raises OutputError: the folder does not exist or cannot be written, the disk is full, or ``path`` is
        something that may not be replaced (a directory, a device).
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except OSError:
        mode = stat.S_IFREG  # not there, or not to be seen: opening will tell
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path} is a directory. Name a file to write.")
    if not stat.S_ISREG(mode):
        # Renaming over /dev/null would leave the machine without one.
        raise OutputError(f"{path} is a device or a pipe. Name a file to write.")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        # Not tempfile, whose files are private: this one has the permissions that the user's umask gives.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}). Choose another folder.") from None
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise OutputError(
                f"{path} cannot be written ({error.strerror}). Make room, or choose another disk."
            ) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
