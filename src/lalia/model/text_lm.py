"""Another text LM in a model that is talked to: nothing else changes, for what it hears is its own embeddings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lalia.checkpoints import fetch
from lalia.errors import ConfigError, WeightsError
from lalia.lm import HF, Linear, SpeechLM
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Manner, SoftText, Text, Transcript

__all__ = ["fetched_of", "with_text_lm"]


def fetched_of(lm: str) -> tuple[str, ...]:
    """Patterns of the weights of a language model that come with its pretrained backbone, by its name in the recipe."""
    return tuple(f"lms.{lm}.{part}" for part in ("start", "backbone.*", "tables.*", "heads.*"))


def with_text_lm(recipe: Recipe, name: str) -> Recipe:
    """The recipe over another text LM.

    Soft text is made of the LM's own embeddings, and the speech decoder reads letters: an LM of any size and vocabulary
    fits without training. A stage of ``DistillText`` fits what it hears to it more closely.

    :param name: known weights, a directory, or a hub id, of a causal LM that was taught to talk. A directory is kept
        with its full path.
    :raises ConfigError: the recipe has no text LM that is talked to.
    :raises WeightsError: there is no such LM.
    """
    talk = recipe.talk
    lm = recipe.lms.get(talk.lm) if talk is not None else None
    if talk is None or lm is None or not isinstance(lm.backbone, HF.Config):
        raise ConfigError(f"Model {recipe.name!r} is not talked to by a text LM. Leave out the other LM.")
    place = Path(name).expanduser()
    name = str(place.resolve()) if place.is_dir() else name
    config = _config(name)
    text = Text.Config(name, vocabulary_size=config.vocab_size, end=_end(config, name))
    tied = bool(getattr(config, "tie_word_embeddings", False))

    def changed(stream: Stream) -> Stream:
        own = stream.tokenizer
        if isinstance(own, Text.Config):
            return replace(stream, tokenizer=text)
        if isinstance(own, Transcript.Config):
            return replace(stream, tokenizer=replace(own, text=text))
        if isinstance(own, SoftText.Config | Manner.Config):
            return replace(stream, tokenizer=replace(own, text=name, dim=_width(config)))
        return stream

    other: SpeechLM.Config = replace(
        lm, backbone=HF.Config(name), heads={**lm.heads, talk.reply: Linear.Config(tied=tied)}
    )
    return replace(
        recipe,
        streams={n: changed(s) for n, s in recipe.streams.items()},
        lms={**recipe.lms, talk.lm: other},
    )


def _config(name: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(fetch(name))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise WeightsError(f"{name!r} is no language model that can be read ({reason}). Name another.") from None


def _width(config: Any) -> int:
    """Of the embeddings; OPT has some that are narrower than its layers."""
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)


def _end(config: Any, name: str) -> int:
    """The id that ends a reply; of several, the last: the others end texts."""
    end = config.eos_token_id
    end = end[-1] if isinstance(end, list) else end
    if end is None:
        raise ConfigError(f"{name!r} does not say which token ends a text. Name a model that was taught to talk.")
    return int(end)
