"""The template of a conversation: what stands around the turns, as the text LM was taught."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from lalia.errors import ConfigError
from lalia.recipe import Recipe

__all__ = ["Template", "templated"]

_SYSTEM, _USER, _REPLY, _AGAIN = "\ue000", "\ue001", "\ue002", "\ue003"
"""Characters of the private use area, which no text has, to find again what is between them."""


@dataclass(frozen=True)
class Template:
    """Texts with the names of special tokens in them.

    :param system: before the instructions, and behind them up to the first turn of the user.
    :param reply: from the end of a turn of the user to the beginning of the reply.
    :param again: from the end of a reply to the beginning of the next turn of the user.
    """

    system: tuple[str, str]
    reply: str
    again: str

    def before(self, instructions: str) -> str:
        """All that stands before the first turn of the user."""
        return self.system[0] + instructions + self.system[1]

    @classmethod
    def of(cls, tokenizer: Any, name: str) -> "Template":
        """That of a Hugging Face tokenizer; a plain one, where it has none.

        :param name: of the model, for the message.
        :raises ConfigError: it cannot hold instructions, or changes what is said.
        """
        if not getattr(tokenizer, "chat_template", None):
            return cls(("", "\n\n"), "\n", "\n\n")
        talk = [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": _USER},
            {"role": "assistant", "content": _REPLY},
            {"role": "user", "content": _AGAIN},
        ]
        try:
            whole = str(tokenizer.apply_chat_template(talk, tokenize=False))
            opened = str(tokenizer.apply_chat_template(talk[:2], tokenize=False, add_generation_prompt=True))
            before, rest = whole.split(_SYSTEM)
            first, rest = rest.split(_USER)
            again, _ = rest.split(_REPLY)[1].split(_AGAIN)
            reply = opened.split(_USER)[1]
        except Exception as error:  # noqa: BLE001  a template is a program, and raises what it likes
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"The chat template of {name!r} does not hold instructions, a question and a reply ({reason}). "
                "Choose a model that was taught to talk."
            ) from None
        return cls((before, first), reply, again)


def templated(recipe: Recipe, names: Collection[str], tokenizer: Callable[[str], Any]) -> Recipe:
    """The recipe whose streams around a turn always hold the template, as a conversation begins with it.

    :param names: the streams that are needed: without these, nothing is changed.
    :param tokenizer: gives the tokenizer of a stream by name.
    :raises ConfigError: the text LM's template does not fit.
    """
    talk = recipe.talk
    if talk is None or not {talk.before, talk.after} & set(names):
        return recipe
    text = tokenizer(talk.before)
    template = Template.of(text.tokenizer, text.config.name)
    held = {talk.before: template.before(talk.system), talk.after: template.reply}
    streams = {n: replace(s, text=held[n]) if n in held else s for n, s in recipe.streams.items()}
    return replace(recipe, streams=streams)
