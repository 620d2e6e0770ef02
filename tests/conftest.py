"""What holds for every test: no network, the same random numbers each time, two threads at most."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

# For the test process and for every program that a test starts.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "2")
torch.set_num_threads(min(2, torch.get_num_threads()))

# Time depends on the machine, and a counterexample that comes and goes helps nobody.
hypothesis.settings.register_profile("lalia", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("lalia")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries that draw from the global state are to be repeatable too


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Connections to other machines fail, at once and by name."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address[0]}")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()
