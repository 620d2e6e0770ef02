"""What surrounds an update: random seeds, devices, module modes and signals."""

import hashlib
import random
import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from lalia.device import malloc_trim

__all__ = ["Interrupts", "MemoryGuard", "evaluating", "seed_everything", "to_device", "train_mode"]


def seed_everything(*key: int | str) -> None:
    """Seed Python, NumPy and PyTorch (every device) with a hash of ``key``."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "little"))  # noqa: NPY002 - the one that libraries draw from
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with every tensor in it on ``device``; containers and dataclasses keep their type."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    # Before any ``to`` of its own, which need not be about devices.
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: to_device(getattr(batch, f.name), device) for f in fields(batch) if f.init})
    return batch.to(device) if callable(getattr(batch, "to", None)) else batch


def train_mode(modules: Sequence[nn.Module]) -> None:
    """Training mode, except for submodules whose parameters are all frozen.

    Those stay in evaluation mode: a frozen encoder has no dropout, and its statistics do not drift.
    """
    for module in modules:
        module.train()
        for part in module.modules():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()


@contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule is in the mode it had.

    Not ``torch.inference_mode``: a table that a module caches in there could not be trained through later.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


class Interrupts:
    """Notes Ctrl-C and SIGTERM inside a ``with`` block, so that the step can be finished and saved.

    ``received`` is the signal that came. A second Ctrl-C raises ``KeyboardInterrupt`` at once. Outside the
    main thread, where Python takes no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def propagate(self) -> None:
        """Raise what the signal would have: ``KeyboardInterrupt``, or ``SystemExit(143)`` for SIGTERM."""
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)


class MemoryGuard:
    """Gives back to Linux what the C library keeps of freed memory.

    Batches of ever new lengths leave it in pieces that fit nothing: training of a small model on a CPU grew by
    megabytes at every step, more than half of them free.
    """

    _ROOM = 256 << 20
    """Growth in bytes before anything is given back: pages that are needed again cost time."""

    def __init__(self) -> None:
        self._trim = malloc_trim()
        self._least = 0

    def check(self) -> None:
        """Give back if the process has grown since."""
        if self._trim is not None and resident_bytes() > self._least + self._ROOM:
            self._trim(0)
            self._least = resident_bytes()


def resident_bytes() -> int:
    """The memory that this process occupies now (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
