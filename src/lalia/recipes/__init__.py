"""Recipes: one file for each published system, data only. ``lalia.recipes.NAME.NAME()`` is the recipe."""

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from lalia.errors import RecipeError

if TYPE_CHECKING:
    from lalia.recipe import Recipe

__all__ = ["find", "names"]


def names() -> list[str]:
    """The recipes that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> "Recipe":
    """The recipe of a name; ``-`` is as good as ``_``.

    :raises RecipeError: there is none.
    """
    known = names()
    module = name.replace("-", "_").lower()
    if module not in known:
        close = difflib.get_close_matches(module, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There is {', '.join(known)}."
        raise RecipeError(f"There is no recipe {name!r}. {hint}")
    recipe: Recipe = getattr(importlib.import_module(f"lalia.recipes.{module}"), module)()
    return recipe
