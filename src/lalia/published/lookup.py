"""Recipes by name, without a dependency on any of them."""

import importlib

from lalia.recipe import Recipe

__all__ = ["published_recipe"]


def published_recipe(name: str) -> Recipe:
    """``lalia.recipes.NAME.NAME()``."""
    recipe: Recipe = getattr(importlib.import_module(f"lalia.recipes.{name}"), name)()
    return recipe
