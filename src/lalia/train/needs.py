"""Which streams the stages of a run learn from: one that learns to spell needs no sound."""

from lalia.recipe import Recipe, slices_of
from lalia.training.tasks import System
from lalia.vocoders import Chain

__all__ = ["streams_of_stages"]


def streams_of_stages(recipe: Recipe, stage: str | None) -> tuple[str, ...]:
    """The streams that are needed, in the order of the recipe; those that are stored in slices need not be whole.

    :param stage: the only one that is run, if one is.
    """
    system = System(recipe.lms, recipe.vocoder, recipe.specs)
    each = [s.task.needs(system) for s in recipe.stages_of(stage)]
    needed = {name for names in each for name in names or ()}
    if not each or any(names is None for names in each):
        needed |= _used(recipe)
    return tuple(n for n in recipe.streams if n in needed and not slices_of(recipe.streams, n))


def _used(recipe: Recipe) -> set[str]:
    """The streams that some language model reads or predicts, or that the vocoder reads."""
    used = {s for lm in recipe.lms.values() for s in (*lm.layout.streams, *lm.heads)}
    used |= set() if recipe.vocoder is None else set(recipe.vocoder.reads)
    if isinstance(recipe.vocoder, Chain.Config):
        # What its parts make is what they learn to make.
        used |= {s for stage in recipe.vocoder.stages for s in (stage.stream, *stage.made)}
    return used
