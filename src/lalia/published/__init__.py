"""Checkpoints that others published, recognised by their own files and turned into a recipe with its weights.

One module for each family of upstream. It knows files and names; sizes come from the files, so that a small checkpoint
of the same form is a small model.
"""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from lalia.checkpoints.tensors import read_config
from lalia.published import llama_omni, moshi
from lalia.recipe import Recipe
from lalia.tokenizers import Mimi

__all__ = ["FAMILIES", "Published", "codec", "recognise"]


class Published(Protocol):
    """How checkpoints of one family are read."""

    def recognises(self, folder: Path) -> bool:
        """Whether a folder is of this family, by its files and what they say.

        :raises WeightsError: it is, but damaged.
        """
        ...

    def recipe(self, folder: Path, name: str) -> Recipe:
        """The recipe with the sizes of the checkpoint.

        :param name: what tokenizers are to call the folder: a path or a hub id.
        :raises WeightsError: it is a variant that the recipe cannot be.
        """
        ...

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        """The weights of its language models by the names of ``Model.module``, as they are stored.

        :raises WeightsError: a tensor is missing, unknown or damaged.
        """
        ...

    def missing(self, name: str) -> str:
        """One line on what the checkpoint does not hold and the model therefore cannot do; else empty.

        :param name: what to call it.
        """
        ...


FAMILIES: tuple[Published, ...] = (moshi.KYUTAI, moshi.TRANSFORMERS, llama_omni.LLAMA_OMNI)


def recognise(folder: Path) -> Published | None:
    """The family of a folder; None where no family knows it.

    :raises WeightsError: it is of one, but damaged.
    """
    return next((family for family in FAMILIES if family.recognises(folder)), None)


def codec(folder: Path, name: str) -> Mimi.Config | None:
    """The codec that a folder holds alone, without a model that speaks with it; None where it holds none.

    :param name: what the codec is to call the folder: a path or a hub id.
    :raises WeightsError: its ``config.json`` is damaged.
    """
    if not (folder / "config.json").is_file():
        return None
    said = read_config(folder)
    if said.get("model_type") != "mimi":
        return None
    whole = Mimi.Config(name, num_codebooks=1, architecture=said)
    return replace(whole, num_codebooks=min(Mimi.Config.num_codebooks, whole.most_codebooks))
