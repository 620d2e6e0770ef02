"""What holds for every test: no network, the same random numbers each time, two cores at most."""

import contextlib
import io
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import soundfile
import torch

# For the test process and for every program that a test starts.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# A process that shares the tests with others has one core, one that is alone two.
_THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
os.environ.setdefault("OMP_NUM_THREADS", str(_THREADS))
torch.set_num_threads(min(_THREADS, torch.get_num_threads()))

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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For layers so small that they take longer to share than to compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -- a tiny model, recordings and the program, for every test that needs them --------------------


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out)


@pytest.fixture(scope="session")
def lalia() -> Callable[..., Ran]:
    """``lalia("score", path)`` runs a command in this process."""
    from lalia.cli import main

    def run(*arguments: Any) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([str(a) for a in arguments])
        return Ran(status, out.getvalue(), err.getvalue())

    return run


def _noise(seconds: float, sample_rate: int = 16000, *, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Bursts of noise of changing colour [n, channels]: what speech is to a tokenizer with random weights."""
    chance = np.random.default_rng(seed)
    n = round(seconds * sample_rate)
    knots = np.arange(0, n + sample_rate // 4, sample_rate // 8)
    size, colour = (np.interp(np.arange(n), knots, chance.uniform(0, 1, len(knots))) for _ in range(2))
    white = chance.standard_normal((n, channels))
    dull = np.apply_along_axis(lambda x: np.convolve(x, np.ones(8) / 3, "same"), 0, white)
    mixed = colour[:, None] * white + (1 - colour[:, None]) * dull
    return np.clip(0.2 * size[:, None] * mixed, -1, 1).astype(np.float32)


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """``noise(seconds, sample_rate, channels=1, seed=0)``: sound to write to a file."""
    return _noise


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of sound in a file."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, _noise(5.0), 16000)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model of random weights, which needs nothing from outside."""
    from lalia.model import Model
    from lalia.recipes import find

    torch.manual_seed(0)
    recipe = find("mini-gslm").tiny()
    tokenizer: Any = recipe.streams["units"].tokenizer.build()  # type: ignore[attr-defined]
    # Centres drawn by lot, as if learned.
    tokenizer.load_weights(dict(tokenizer.named_buffers(recurse=False)))
    folder = tmp_path_factory.mktemp("tiny")
    Model(recipe, learned={"units": tokenizer.weights()}, identities={"units": tokenizer.identity}).save(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings, in a folder for each speaker."""
    root = tmp_path_factory.mktemp("corpus")
    for speaker in range(8):
        (root / f"speaker{speaker}").mkdir()
        for i in range(3):
            path = root / f"speaker{speaker}" / f"{speaker}-{i}.wav"
            soundfile.write(path, _noise(2.0 + 0.5 * i, seed=10 * speaker + i), 16000)
    return root


@pytest.fixture(scope="session")
def shards(corpus: Path, tiny: Path, lalia: Callable[..., Ran], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens of the corpus, as ``lalia tokenize`` writes them."""
    folder = tmp_path_factory.mktemp("shards") / "tokens"
    ran = lalia("tokenize", corpus, "-o", folder, "--tokenizer", tiny)
    assert ran.status == 0, ran.err
    return folder


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is smaller still, for recordings of an hour."""
    from lalia.model import Model
    from lalia.recipes import find

    torch.manual_seed(0)
    recipe = find("mini-gslm").tiny()
    units: Any = recipe.streams["units"].tokenizer
    architecture = {**units.architecture, "conv_dim": [8] * 7, "hidden_size": 8, "intermediate_size": 8}
    architecture |= {"num_hidden_layers": 1, "num_conv_pos_embedding_groups": 2, "num_conv_pos_embeddings": 4}
    stream = replace(recipe.streams["units"], tokenizer=replace(units, architecture=architecture, layer=1))
    lm = recipe.lms["ulm"]
    backbone = replace(lm.backbone, num_layers=1, dim=32, num_heads=2, num_kv_heads=2, ffn_dim=32)  # type: ignore[call-arg]
    vocoder = replace(recipe.vocoder, dim=8, ffn_dim=8, num_layers=1)  # type: ignore[type-var, call-arg]
    recipe = replace(recipe, streams={"units": stream}, lms={"ulm": replace(lm, backbone=backbone)}, vocoder=vocoder)
    tokenizer: Any = stream.tokenizer.build()  # type: ignore[attr-defined]
    # Centres drawn by lot, as if learned.
    tokenizer.load_weights(dict(tokenizer.named_buffers(recurse=False)))
    folder = tmp_path_factory.mktemp("light")
    Model(recipe, learned={"units": tokenizer.weights()}, identities={"units": tokenizer.identity}).save(folder)
    return folder


@pytest.fixture
def small_encoder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``fit-units`` listens with the tiny model's encoder of random weights, which nobody has to fetch."""
    from lalia.store import read_description
    from lalia.tokenizers import SSLUnits

    units: Any = read_description(tiny, "recipe")[0].streams["units"].tokenizer
    plain = SSLUnits.Config.build

    def build(config: Any, *arguments: Any, **options: Any) -> Any:
        changed = replace(config, encoder=units.encoder, pretrained=False, architecture=units.architecture)
        return plain(changed, *arguments, **options)

    monkeypatch.setattr(SSLUnits.Config, "build", build)
