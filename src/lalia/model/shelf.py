"""Where models and tokenizers are found: bundled ones by name, others by their directory."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lalia.checkpoints import hub
from lalia.config import Configuration
from lalia.errors import CheckpointError, WeightsError
from lalia.model.model import Model
from lalia.store import DESCRIPTION, holds, read_description, read_weights, write_description, write_weights

__all__ = ["bundled", "find", "load", "load_tokenizer", "open_tokenizer", "save_tokenizer"]


def bundled() -> dict[str, Path]:
    """The models that come with lalia, by name: in the wheel, or in the checkout beside ``src``."""
    package = Path(__file__).resolve().parents[1]
    found = {}
    for root in (package.parents[1] / "models", package / "models"):
        if root.is_dir():
            found.update({p.parent.name: p.parent for p in sorted(root.glob(f"*/{DESCRIPTION}"))})
    return found


def find(name: str | Path) -> Path:
    """The directory of a model: a bundled name, a path, or a hub id (``owner/name``).

    :raises CheckpointError: there is no such model.
    :raises WeightsError: the hub does not have it, or cannot be reached.
    """
    models = bundled()
    if str(name) in models:
        return models[str(name)]
    path = Path(name).expanduser()
    if (path / DESCRIPTION).is_file():
        return path
    if path.is_dir():
        finished = sorted(path.glob(f"stages/*/*/{DESCRIPTION}"))
        if finished:
            raise CheckpointError(f"{path} is a run that has not ended. Name {finished[-1].parent} instead.")
        raise CheckpointError(f"{path} has no {DESCRIPTION}. Name a directory that lalia wrote.")
    if path.exists():
        raise CheckpointError(f"{path} is a file. Name the directory of a model.")
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name)) and not path.parent.exists():
        return _from_hub(str(name))
    close = difflib.get_close_matches(str(name).replace("_", "-"), models, n=1)
    hint = (
        f"Did you mean {close[0]!r}?"
        if close
        else f"Bundled are {', '.join(sorted(models)) or 'none'}; or name a directory or a hub id."
    )
    raise CheckpointError(f"There is no model {str(name)!r}. {hint}")


def _from_hub(name: str) -> Path:
    try:
        return hub.snapshot(name, offline=True, description=DESCRIPTION)
    except WeightsError:
        return hub.snapshot(name, description=DESCRIPTION)


def load(name: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """A model by the name under which it is bundled, from a directory, or from the hub.

    :raises CheckpointError: there is no such model, or it is damaged.
    """
    return Model.load(find(name), device=device, dtype=dtype)


def load_tokenizer(name: str | Path) -> Any:
    """A tokenizer of speech: a model's (bundled or a directory), or one that was saved alone.

    :raises LaliaError: there is none by that name.
    """
    folder = find(name)
    if not holds(folder, "tokenizer"):
        model = Model.load(folder)
        return model.tokenizer(model.speech_stream)
    config, more = read_description(folder, "tokenizer")
    return open_tokenizer(config, read_weights(folder), more.get("identity"))


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Write a tokenizer alone: its configuration, what it learned (nothing yet, where it is to), and its identity."""
    write_weights(Path(folder), tokenizer.weights())
    write_description(Path(folder), "tokenizer", tokenizer.config, identity=tokenizer.identity)


def open_tokenizer(config: Configuration, weights: Mapping[str, Tensor], identity: str | None) -> Any:
    """A tokenizer from its configuration and weights.

    :raises CheckpointError: it is not the one that was saved.
    """
    tokenizer: Any = config.build()  # type: ignore[attr-defined]
    if weights:
        tokenizer.load_weights(weights)
    if identity is not None and tokenizer.identity != identity:
        raise CheckpointError(
            f"The tokenizer is {tokenizer.identity[:12]}, but {identity[:12]} was saved. Fetch its encoder again."
        )
    return tokenizer
