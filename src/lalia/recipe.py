"""Recipes: a whole system as plain data, checked when it is written down.

A recipe says which streams there are, which language models read and predict them, and what turns
streams into sound. ``config.to_dict`` and ``from_dict`` keep it beside the weights.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol, runtime_checkable

import torch

from lalia.config import Configuration
from lalia.errors import LaliaError, RecipeError
from lalia.lm import SpeechLM
from lalia.streams import StreamSpec
from lalia.training.stages import TrainStage
from lalia.vocoders import Vocoder

__all__ = ["Recipe", "Stream", "count_parameters"]


@runtime_checkable
class TokenizerConfig(Protocol):
    """A tokenizer's configuration knows what its stream will hold before anything is built.

    One that reads speech also has a ``sample_rate``.
    """

    @property
    def spec(self) -> StreamSpec: ...


@dataclass(frozen=True)
class Stream(Configuration):
    """Where a stream comes from.

    :param tokenizer: what makes it of audio or text.
    :param channel: whose side of the conversation it is; None where there is one.
    """

    tokenizer: Configuration
    _: KW_ONLY
    channel: str | None = None

    @property
    def spec(self) -> StreamSpec:
        if not isinstance(self.tokenizer, TokenizerConfig):
            raise RecipeError(
                f"{type(self.tokenizer).__qualname__} does not say what its stream holds. Give it a spec."
            )
        return self.tokenizer.spec

    @property
    def sample_rate(self) -> int | None:
        """Of the sound that the tokenizer reads, in Hz; None where it reads text."""
        return getattr(self.tokenizer, "sample_rate", None)


@dataclass(frozen=True, kw_only=True)
class Recipe(Configuration):
    """One published system.

    :param name: the module of ``lalia.recipes``.
    :param paper: where it is from.
    :param streams: by name.
    :param lms: by name, in the order in which they run.
    :param vocoder: what makes sound of streams; None where the system makes none.
    :param stages: how it is trained, in order.
    :param voices: names of the vocoder's voices, in order; those of the stage that trains it when not given.
    :param published_parameters: of the language models, where the source gives it.
    :raises RecipeError: parts that do not fit; the message names them.
    """

    name: str
    paper: str
    streams: Mapping[str, Stream]
    lms: Mapping[str, SpeechLM.Config]
    vocoder: Vocoder.Config | None = None
    stages: tuple[TrainStage, ...] = ()
    voices: tuple[str, ...] = ()
    published_parameters: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        specs = self.specs
        for name, lm in self.lms.items():
            try:
                known = lm.layout.all_specs(specs)
            except LaliaError as error:
                raise RecipeError(f"Recipe {self.name!r}, LM {name!r}: {error}") from None
            for part, used in (("inputs", lm.inputs), ("heads", lm.heads)):
                for stream in used:
                    if stream not in known:
                        raise RecipeError(
                            f"Recipe {self.name!r}: {part} of LM {name!r} name stream {stream!r}, but its layout has "
                            f"{', '.join(known)}. Fix the name or the layout."
                        )
        read = getattr(self.vocoder, "stream", None)
        if self.vocoder is not None and read not in specs:
            raise RecipeError(
                f"Recipe {self.name!r}: the vocoder reads stream {read!r}, but there is {', '.join(specs)}. "
                "Name one of them."
            )
        names = [s.name for s in self.stages]
        if len(set(names)) < len(names):
            raise RecipeError(f"Recipe {self.name!r} has stages {', '.join(names)}. Give each a name of its own.")
        for stage in self.stages:
            stage.check(self.name, tuple(self.lms), self.vocoder)

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """What each stream holds."""
        return {name: s.spec for name, s in self.streams.items()}

    @property
    def voice_names(self) -> tuple[str, ...]:
        """The voices that have a name, from voice 0 on."""
        named = (getattr(stage.task, "voices", ()) for stage in self.stages)
        return self.voices or next((v for v in named if v), ())


def count_parameters(recipe: Recipe) -> dict[str, int]:
    """Parameters of each language model and of the vocoder, without memory for any."""
    counts = {}
    with torch.device("meta"):
        for name, config in recipe.lms.items():
            counts[name] = sum(p.numel() for p in config.build(recipe.specs).parameters())
        if recipe.vocoder is not None:
            counts["vocoder"] = sum(p.numel() for p in recipe.vocoder.build(recipe.specs).parameters())
    return counts
