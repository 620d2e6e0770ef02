"""A repository as Kyutai writes them: a language model, Mimi and a text tokenizer side by side, all in their own form.

``config.json`` names the files and has the sizes of the language model. The first repositories have none and hold
Moshi 7B, under names that are always the same (``moshi/models/loaders.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalia.checkpoints.tensors import read_config
from lalia.errors import WeightsError

__all__ = ["Repository", "find"]

_LM = "model.safetensors"
_MIMI = "tokenizer-*-checkpoint*.safetensors"
_TEXT = "tokenizer_spm_*.model"


@dataclass(frozen=True)
class Repository:
    """Where what is.

    :param config: of the language model, as ``config.json`` has it; empty without one.
    :param mimi_config: the sizes of Mimi, where they are not the published ones.
    """

    config: Mapping[str, Any]
    lm: Path
    mimi: Path
    text: Path
    mimi_config: Mapping[str, Any] | None = None


def find(folder: Path) -> Repository | None:
    """The repository that a folder is; None where it is none of Kyutai's.

    :raises WeightsError: one of its files is missing, or its ``config.json`` is damaged.
    """
    config: Mapping[str, Any] = {}
    if (folder / "config.json").is_file():
        config = read_config(folder)
        if "dep_q" not in config:
            return None
    elif not any(folder.glob(_MIMI)):
        return None
    sizes = config.get("mimi_config_name")
    return Repository(
        config,
        _file(folder, config.get("moshi_name", _LM)),
        _file(folder, config.get("mimi_name", _MIMI)),
        _file(folder, config.get("tokenizer_name", _TEXT)),
        None if sizes is None else read_config(folder, str(sizes)),
    )


def _file(folder: Path, name: str) -> Path:
    """A file by its name, or the first that looks like it."""
    # A name that leads elsewhere, to another repository for instance, is none of this folder.
    found = sorted(folder.glob(name)) if Path(name).name == name else []
    if not found:
        raise WeightsError(f"{folder} lacks {name}, as Kyutai's repositories have it. Fetch it again.")
    return found[0]
