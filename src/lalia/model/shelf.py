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
from lalia.device import device_of
from lalia.errors import CheckpointError, WeightsError
from lalia.model.model import Model
from lalia.published import codec, recognise
from lalia.store import DESCRIPTION, holds, read_description, read_weights, write_description, write_weights

__all__ = ["bundled", "find", "holds_tokenizer", "load", "load_tokenizer", "open_tokenizer", "save_tokenizer"]


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

    It is one that lalia wrote, or a checkpoint that others published (``lalia.published``).

    :raises CheckpointError: there is no such model.
    :raises WeightsError: the hub does not have it, or cannot be reached.
    """
    models = bundled()
    if str(name) in models:
        return models[str(name)]
    path = Path(name).expanduser()
    if path.is_dir() and _known(path):
        return path
    if path.is_dir():
        finished = sorted(path.glob(f"stages/*/*/{DESCRIPTION}"))
        if finished:
            raise CheckpointError(f"{path} is a run that has not ended. Name {finished[-1].parent} instead.")
        raise CheckpointError(
            f"{path} has no {DESCRIPTION}, and is no checkpoint of a published model that lalia knows. "
            "Name a directory that lalia wrote, or one as Moshi or LLaMA-Omni were published."
        )
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
    for offline in (True, False):
        try:
            folder = hub.snapshot(name, offline=offline)
            if _known(folder):
                return folder
        except WeightsError:
            # A cache may have some of its files only.
            if not offline:
                raise
    raise CheckpointError(
        f"{name} on the hub is neither a model that lalia wrote nor a published one that it knows. Name another."
    )


def _known(folder: Path) -> bool:
    described = (folder / DESCRIPTION).is_file()
    return described or recognise(folder) is not None or codec(folder, hub.name_of(folder)) is not None


def holds_tokenizer(folder: Path) -> bool:
    """Whether a directory that ``find`` gave holds a tokenizer alone."""
    if (folder / DESCRIPTION).is_file():
        return holds(folder, "tokenizer")
    return codec(folder, hub.name_of(folder)) is not None


def load(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    lm: str | None = None,
) -> Model:
    """A model by the name under which it is bundled, from a directory, or from the hub.

    :param lm: a text LM in place of the one that it is talked to by: known weights, a directory or a hub id.
    :raises CheckpointError: there is no such model, or it is damaged.
    :raises LaliaError: this machine has no such device.
    """
    place = device_of(device) if isinstance(device, str) else device
    return Model.load(find(name), device=place or "cpu", dtype=dtype, lm=lm)


def load_tokenizer(name: str | Path) -> Any:
    """A tokenizer of speech: a model's (bundled, a directory or published), or one that was saved or published alone.

    :raises LaliaError: there is none by that name.
    """
    folder = find(name)
    if not (folder / DESCRIPTION).is_file():
        name, published = hub.name_of(folder), recognise(folder)
        config: Any = codec(folder, name)
        if published is not None:
            # Without the language models beside it.
            recipe = published.recipe(folder, name)
            config = recipe.streams[recipe.speech_stream].tokenizer
        return config.build()
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
