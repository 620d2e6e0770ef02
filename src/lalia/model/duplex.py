"""From a recipe to full duplex: who hears what, and who says what."""

from typing import TYPE_CHECKING, Any

from lalia.encoders import Windows
from lalia.errors import ConfigError
from lalia.lm import Prompt, Sampler
from lalia.realtime.duplex import Duplex, DuplexSession, Ear, Pen
from lalia.recipe import Recipe
from lalia.streams import Streams
from lalia.tokenizers import SSLUnits, Text
from lalia.vocoders import Channels

if TYPE_CHECKING:
    from lalia.model.model import Model

__all__ = ["duplex", "duplex_lm", "duplex_session", "sides"]

_WINDOWS = Windows(block=0.16, before=1.6, after=0.08)
"""A quarter of a second late; longer before and shorter blocks cost more, at each block the encoder hears all of it."""


def duplex_lm(recipe: Recipe) -> str | None:
    """The language model that hears and speaks at once: one of streams of two sides, none of which ever ends."""
    for name, lm in recipe.lms.items():
        layout = lm.layout
        if set(layout.streams) <= recipe.streams.keys() and not layout.ends(recipe.specs):
            if len({recipe.streams[s].channel for s in layout.streams}) == 2:
                return name
    return None


def sides(recipe: Recipe, side: str | None = None) -> tuple[str | None, str]:
    """The channel on which the model speaks, and that of the user.

    :param side: of two speakers who are alike, the one that the model is; the last when not given.
    :raises ConfigError: the model does not hear and speak at once, or has no such side.
    """
    name = duplex_lm(recipe)
    if name is None:
        raise ConfigError(f"Model {recipe.name!r} does not hear and speak at once. Choose another, like moshi.")
    channels = list(dict.fromkeys(recipe.streams[s].channel for s in recipe.lms[name].layout.streams))
    named = [c for c in channels if c is not None]
    if len(named) == 1:
        if side is not None:
            raise ConfigError(f"Model {recipe.name!r} has one side to speak on. Leave out the side {side!r}.")
        return None, named[0]
    own = named[-1] if side is None else side
    if own not in named:
        raise ConfigError(f"Model {recipe.name!r} has the sides {' and '.join(named)}, not {own!r}. Choose one.")
    return own, next(c for c in named if c != own)


def duplex(
    model: "Model",
    *,
    side: str | None = None,
    voice: int | str | None = None,
    windows: Windows = _WINDOWS,
    **settings: Any,
) -> Duplex:
    """A model whose sessions hear and speak at the same time.

    :param side: as for ``sides``.
    :param voice: of the vocoder.
    :param windows: how units of an encoder that sees both ways are heard: what comes after a block, and the block
        itself, are waited for.
    :param settings: see ``Duplex``.
    :raises ConfigError: the model does not, or a stream of the user cannot be heard as it comes.
    """
    recipe = model.recipe
    _, user = sides(recipe, side)
    lm: Any = model.lms[duplex_lm(recipe) or ""]
    ears, pens = {}, {}
    for name in lm.layout.streams:
        stream, tokenizer = recipe.streams[name], model.tokenizer(name)
        if isinstance(tokenizer, Text):
            silent = {tokenizer.config.pad, tokenizer.config.end_of_pad, tokenizer.config.end}
            silent_ids = frozenset(i for i in silent if i is not None)
            pens[name] = Pen(tokenizer.stream, silent_ids, user=stream.channel == user)
        elif stream.channel == user:
            if not hasattr(tokenizer, "init_state"):
                raise ConfigError(f"The tokenizer of {name!r} takes whole recordings. Choose a model that streams.")
            if isinstance(tokenizer, SSLUnits):
                tokenizer = tokenizer.with_windows(windows)
            ears[name] = Ear(tokenizer, stream.take)
    vocoder, spoken = model.vocoder, {}
    if isinstance(vocoder, Channels):
        # One speaks for each side: the user speaks for himself.
        own = next((s for s in vocoder.reads if s not in ears), None)
        vocoder = vocoder.vocoder
        spoken = {} if own is None else {vocoder.reads[0]: own}
    elif vocoder is not None:
        spoken = {s: s for s in vocoder.reads}
    if vocoder is not None and (not spoken or not set(spoken.values()) <= set(lm.heads)):
        raise ConfigError(
            f"The vocoder of {recipe.name!r} reads {', '.join(spoken.values()) or 'nothing of its own side'}, which is "
            "not what the language model says as it hears. Choose another model."
        )
    speaker = None if vocoder is None or voice is None else model.voice(voice)
    return Duplex(lm, ears, pens=pens, vocoder=vocoder, spoken=spoken, speaker=speaker, **settings)


def duplex_session(
    model: "Model",
    *,
    sampler: Sampler | None = None,
    seed: int = 0,
    prompt: Prompt | Streams | None = None,
    **settings: Any,
) -> DuplexSession:
    """A session alone; see ``duplex`` for its settings, and ``Duplex.open``."""
    return duplex(model, **settings).open(sampler=sampler, seed=seed, prompt=prompt)
