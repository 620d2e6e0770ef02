"""Checkpoints that others published, recognised by their own files and turned into a recipe with its weights.

One module for each family of upstream. It knows files and names; sizes come from the files, so that a small checkpoint
of the same form is a small model.
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from lalia.published import llama_omni, moshi
from lalia.recipe import Recipe

__all__ = ["FAMILIES", "Published", "recognise"]


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

    def missing(self, folder: Path) -> str:
        """One line on what the checkpoint does not hold and the model therefore cannot do; else empty."""
        ...


FAMILIES: tuple[Published, ...] = (moshi.KYUTAI, moshi.TRANSFORMERS, llama_omni.LLAMA_OMNI)


def recognise(folder: Path) -> Published | None:
    """The family of a folder; None where no family knows it.

    :raises WeightsError: it is of one, but damaged.
    """
    return next((family for family in FAMILIES if family.recognises(folder)), None)
