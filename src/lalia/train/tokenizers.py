"""Which tokenizers a run has in place of those of the recipe: named ones, and bundled ones for tiny forms."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lalia.config import Configuration
from lalia.errors import LaliaError, RecipeError
from lalia.model import bundled, load_tokenizer
from lalia.recipe import Recipe
from lalia.store import holds, read_description
from lalia.tokenizers import Codec, SSLUnits, States, Style, Text
from lalia.train.plan import Tell
from lalia.vocoders import CodecDecoder

__all__ = ["with_bundled", "with_tokenizers"]


def with_tokenizers(recipe: Recipe, named: Mapping[str, str | Path]) -> tuple[Recipe, dict[Configuration, Any]]:
    """A recipe over tokenizers that are ready.

    :param named: a saved tokenizer or a model, by the stream that it is for. Streams that had the same tokenizer as
        that stream, and the decoder of a codec among them, change with it.
    :returns: the recipe, and the tokenizers by configuration.
    :raises RecipeError: there is no such stream, or it has too few codebooks.
    :raises CheckpointError: there is no such tokenizer.
    """
    ready: dict[Configuration, Any] = {}
    for name, source in named.items():
        if name not in recipe.streams:
            close = difflib.get_close_matches(name, recipe.streams, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(recipe.streams)}."
            raise RecipeError(f"{recipe.name!r} has no stream {name!r}. {hint}")
        tokenizer = load_tokenizer(source)
        ready[tokenizer.config] = tokenizer
        recipe = _replaced(recipe, recipe.streams[name].tokenizer, tokenizer.config)
    return recipe, ready


def _replaced(recipe: Recipe, old: Configuration, new: Configuration) -> Recipe:
    """The recipe with another tokenizer wherever it has this one, and with what keeps its time."""
    changed = [n for n, s in recipe.streams.items() if s.tokenizer == old]
    streams = {n: replace(s, tokenizer=new) if n in changed else s for n, s in recipe.streams.items()}
    for name, stream in streams.items():
        own = stream.tokenizer
        if stream.aligned_to in changed and isinstance(own, Text.Config | States.Config):
            rate = streams[stream.aligned_to].spec.frame_rate
            assert rate is not None, "what has no clock keeps no time"
            streams[name] = replace(stream, tokenizer=replace(own, rate=rate))
    vocoder = recipe.vocoder
    if isinstance(vocoder, CodecDecoder.Config) and vocoder.stream in changed:
        vocoder = replace(vocoder, codec=new)
    return replace(recipe, streams=streams, vocoder=vocoder)


def with_bundled(
    recipe: Recipe, ready: Mapping[Configuration, Any], tell: Tell
) -> tuple[Recipe, dict[Configuration, Any]]:
    """A tiny recipe over the units and the codec that are bundled, where its own would be those of random networks.

    :param ready: tokenizers that are built already, by configuration: they stay.
    :returns: the recipe, and all tokenizers that are built.
    """
    return _with_codec(*_with_units(recipe, dict(ready), tell), tell)


def _with_units(recipe: Recipe, built: dict[Configuration, Any], tell: Tell) -> tuple[Recipe, dict[Configuration, Any]]:
    lender = _bundled("recipe", SSLUnits)
    if lender is None:
        return recipe, built
    before, streams = len(built), dict(recipe.streams)
    for name, stream in recipe.streams.items():
        own = stream.tokenizer
        if isinstance(own, Style.Config) and own not in built:
            # Clusters of its own, of what the same encoder hears.
            heard = ("encoder", "layer", "windows", "pretrained", "architecture")
            streams[name] = replace(stream, tokenizer=replace(own, **{f: getattr(lender.config, f) for f in heard}))
        elif isinstance(own, SSLUnits.Config) and own not in built:
            config = replace(lender.config, deduplicate=own.deduplicate)
            if config not in built:
                built[config] = units = SSLUnits(config, lender.encoder)
                units.load_weights(lender.weights())
            streams[name] = replace(stream, tokenizer=config)
    if len(built) > before:
        tell(f"Units: those of {lender.config.encoder}, layer {lender.config.layer}, that a bundled model has")
    return replace(recipe, streams=streams), built


def _with_codec(recipe: Recipe, built: dict[Configuration, Any], tell: Tell) -> tuple[Recipe, dict[Configuration, Any]]:
    own = [s.tokenizer for s in recipe.streams.values() if hasattr(s.tokenizer, "build_synthesizer")]
    needed: list[Any] = [config for config in dict.fromkeys(own) if config not in built]
    lender: Codec | None = _bundled("tokenizer", Codec) if needed else None
    if lender is None:
        return recipe, built
    for old in needed:
        books = old.spec.kind.num_codebooks
        if books > lender.config.quantizer.num_books:
            continue
        config = replace(lender.config, num_codebooks=books)
        built[config] = codec = Codec(config)
        codec.load_weights(lender.weights())
        recipe = _replaced(recipe, old, config)
        rate = config.spec.frame_rate
        tell(f"Codec: {books} codebooks of the bundled one, at {rate:g} Hz, in place of {old.owner.__name__}")
    return recipe, built


def _bundled(kind: str, wanted: Any) -> Any:
    """The first tokenizer of a type that is bundled, alone or with a model; None where its encoder is not here."""
    for name, folder in bundled().items():
        if holds(folder, kind):
            made = read_description(folder, kind)[0]
            config = made.streams[made.speech_stream].tokenizer if kind == "recipe" else made
            if not isinstance(config, wanted.Config):
                continue
            try:
                found = load_tokenizer(name)
            except LaliaError:
                continue
            if isinstance(found, wanted):
                return found
    return None
