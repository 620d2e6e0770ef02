"""Whom a model answers, among all who can be heard."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lalia.errors import ConfigError
from lalia.nn.transformer import Transformer
from lalia.realtime.addressee import Addressee, Every, Learned, Near, WakeWord

if TYPE_CHECKING:
    from lalia.model.model import Model

__all__ = ["addressee", "learned"]


def addressee(model: "Model", *, near: bool, asked: bool, wake: Sequence[str]) -> Addressee | None:
    """See ``Model.addressee``."""
    judges: list[Addressee] = [Near()] if near else []
    judges += [WakeWord(wake)] if wake else []
    judges += [model.asked] if asked else []
    return Every(*judges) if judges else None


def learned(model: "Model") -> Learned:
    """See ``Model.asked``."""
    talk = model.recipe.talk
    spelling = None if talk is None else getattr(model.tokenizer(talk.question), "spelling", None)
    lm = None if talk is None else getattr(model.lms[talk.lm].backbone, "model", None)
    if spelling is None or not isinstance(lm, Transformer):
        raise ConfigError(f"Model {model.recipe.name!r} cannot tell who is asked. Choose another, like mini.")
    return Learned(spelling, lm)
