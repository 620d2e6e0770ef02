"""Voices of a vocoder, by number or by name."""

import difflib

from lalia.errors import ConfigError
from lalia.recipe import Recipe

__all__ = ["find_voice"]


def find_voice(recipe: Recipe, count: int, voice: int | str | None) -> int | None:
    """The number of a voice, or None where none is asked for.

    :param count: voices of the vocoder.
    :param voice: a name that the recipe gives, or a number from 0, also as text.
    :raises ConfigError: there is no such voice.
    """
    if voice is None:
        return None
    names = recipe.voice_names[:count]
    if isinstance(voice, str) and voice in names:
        return names.index(voice)
    number = int(voice) if isinstance(voice, int) or voice.strip().isdecimal() else None
    if number is not None and 0 <= number < count:
        return number
    close = difflib.get_close_matches(str(voice), names, n=1)
    numbers = f"a number from 0 to {count - 1}" if count > 1 else "0"
    known = numbers + (f", or {', '.join(names)}" if names else "")
    hint = f"Did you mean {close[0]!r}?" if close else f"Give {known}."
    raise ConfigError(f"Model {recipe.name!r} has no voice {voice!r}. {hint}")
