"""Which streams the stages of a run learn from: one that learns to spell needs no sound."""

from lalia.recipe import Recipe
from lalia.training.stages import System

__all__ = ["streams_of_stages"]


def streams_of_stages(recipe: Recipe, stage: str | None) -> set[str]:
    """The streams that are needed.

    :param stage: the only one that is run, if one is.
    """
    system = System(recipe.lms, recipe.vocoder, recipe.specs)
    each = [s.task.needs(system) for s in recipe.stages if stage in (None, s.name)]
    if not each or any(needed is None for needed in each):
        return set(recipe.streams)
    return {name for needed in each for name in needed or ()}
