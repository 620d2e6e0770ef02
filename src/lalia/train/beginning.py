"""What a run begins with: a trained model, as far as it fits the recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lalia.config import Configuration
from lalia.errors import CheckpointError
from lalia.model import Model, find
from lalia.model.text_lm import fetched_of, with_text_lm
from lalia.model.weights import split_tensors
from lalia.recipe import Recipe
from lalia.store import DESCRIPTION, matches, read_description, read_weights

__all__ = ["Beginning"]

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Beginning:
    """A trained model, as far as it fits.

    :param tensors: its weights.
    :param learned: what its tokenizers learned, by stream; only of those that the recipe has too.
    :param fetched: patterns of the weights that it does not have, for they are as others published them.
    """

    folder: Path
    tensors: Mapping[str, Tensor]
    learned: Mapping[str, Mapping[str, Tensor]]
    fetched: tuple[str, ...]

    @classmethod
    def of(cls, name: str | Path, recipe: Recipe, *, lm: str | None) -> "Beginning":
        """
        :param name: as for ``find``.
        :param lm: the text LM that the recipe has in place of the model's own, if it has.
        :raises CheckpointError: there is no such model.
        """
        folder = find(name)
        described = (folder / DESCRIPTION).is_file()
        theirs, more = read_description(folder, "recipe") if described else (None, _NOTHING)
        tensors, learned = split_tensors(read_weights(folder))
        fetched = tuple(more.get("fetched", ()))
        if lm is not None and theirs is not None and theirs.talk is not None:
            own = theirs.talk.lm
            theirs, fetched = with_text_lm(theirs, lm), (*fetched, *fetched_of(own))
            tensors = {n: t for n, t in tensors.items() if not n.startswith(f"lms.{own}.")}
        same = {
            n
            for n, s in recipe.streams.items()
            if theirs is not None and n in theirs.streams and theirs.streams[n].tokenizer == s.tokenizer
        }
        return cls(folder, tensors, {n: t for n, t in learned.items() if n in same}, tuple(dict.fromkeys(fetched)))

    def tokenizers(self, recipe: Recipe, ready: Mapping[Configuration, Any]) -> dict[Configuration, Any]:
        """The tokenizers that have learned something, by configuration, beside those that are ``ready``."""
        made = dict(ready)
        for name, tensors in self.learned.items():
            config: Any = recipe.streams[name].tokenizer
            if config not in made:
                made[config] = tokenizer = config.build()
                tokenizer.load_weights(tensors)
        return made

    def give(self, model: Model, tell: Callable[[str], None]) -> None:
        """Give a model the weights that have the name and the shape of one of its own.

        :raises CheckpointError: nothing fits.
        """
        own = model.module.state_dict()
        there = {n: t for n, t in self.tensors.items() if n in own}
        fitting = {n: t for n, t in there.items() if t.shape == own[n].shape}
        if not fitting:
            raise CheckpointError(
                f"{self.folder} has no weights that fit this recipe. Begin with a model of the same recipe."
            )
        model.module.load_state_dict(fitting, strict=False)
        model.fetched = tuple(p for p in self.fetched if not any(matches(n, (p,)) for n in fitting))
        left = f"; {len(there) - len(fitting)} of other shapes were left out" if len(fitting) < len(there) else ""
        tell(f"Begun with {len(fitting)} of {len(own)} tensors of {self.folder}{left}")
