"""Recipes: one file for each published system, data only. ``lalia.recipes.NAME.NAME()`` is the recipe."""
