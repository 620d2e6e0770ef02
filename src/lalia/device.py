"""Where models run, and the memory that they leave."""

import ctypes
import os
import sys
from collections.abc import Callable

import torch

from lalia.errors import LaliaError

__all__ = ["bound_kernels", "device_of", "give_back", "malloc_trim"]

_KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"


def device_of(device: str | None) -> torch.device | None:
    """A device by name; None where none is named.

    :raises LaliaError: this machine does not have it.
    """
    if device is None:
        return None
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise LaliaError(f"The device {device!r} cannot be used ({reason}). Give cpu, or leave it out.") from None
    return chosen


def bound_kernels() -> None:
    """Have oneDNN keep its kernels for the last 128 shapes, in place of 1024, if it has none yet and nobody said else.

    Every turn of a conversation is of other lengths: of mini, it would take a megabyte more with each. A training has
    more kernels in one step, and does without this.
    """
    os.environ.setdefault(*_KERNELS)


def give_back() -> None:
    """Have the C library give the system the memory that was freed, which it keeps where what is in use lies between.

    Done by glibc alone; elsewhere nothing happens.
    """
    trim = malloc_trim()
    if trim is not None:
        trim(0)


def malloc_trim() -> Callable[[int], int] | None:
    """What does it: another C library than glibc (musl) has no such function."""
    found: Callable[[int], int] | None = None
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
