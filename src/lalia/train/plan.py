"""What a run is to be: the recipe as it will be trained, on the data that there are."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lalia.config import from_dict, override, to_dict
from lalia.errors import ConfigError, DataError, RecipeError
from lalia.model import Model, bundled
from lalia.recipe import Recipe, Stream, slices_of
from lalia.store import holds, read_description, read_weights
from lalia.streams import Discrete
from lalia.tokenizers import Mel, SSLUnits
from lalia.train.material import Material
from lalia.train.needs import streams_of_stages
from lalia.vocoders import Channels, CodecDecoder, GriffinLim, Vocoder

__all__ = ["Plan", "Tell", "check_overrides", "lend", "make_plan"]

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """A recipe on data.

    :param lender: the bundled model whose vocoder is taken.
    """

    recipe: Recipe
    lender: Path | None = None


def make_plan(
    recipe: Recipe,
    material: Material,
    *,
    stage: str | None,
    tiny: bool,
    overrides: Mapping[str, str],
    seed: int | None,
    tell: Tell,
) -> Plan:
    """
    :param recipe: of the size that it will have.
    :param tiny: take the tokenizers of the data, and a vocoder that is ready.
    :raises RecipeError: the data are of another tokenizer than the recipe's.
    :raises DataError: a stream of the recipe is not in the data.
    """
    plan = Plan(_on_streams(recipe, material, streams_of_stages(recipe, stage), tiny, tell))
    trains_vocoder = any(s.name == stage and s.task.trains_vocoder for s in recipe.stages)
    if tiny and recipe.vocoder is not None and not trains_vocoder:
        plan = _with_ready_vocoder(plan.recipe, material, tell)
    recipe = plan.recipe
    recipe = _overridden(recipe, overrides)
    if seed is not None:
        recipe = replace(recipe, stages=tuple(replace(s, trainer=replace(s.trainer, seed=seed)) for s in recipe.stages))
    return replace(plan, recipe=recipe)


def check_overrides(recipe: Recipe, overrides: Mapping[str, str]) -> None:
    """Refuse what cannot be set before any work is done for it.

    What the data decide, the streams and the vocoder, is known later.

    :raises ConfigError: there is no such field, or the value is not of its kind.
    """
    _overridden(recipe, {p: t for p, t in overrides.items() if p.split(".")[0] not in {"streams", "vocoder"}})


def _overridden(recipe: Recipe, overrides: Mapping[str, str]) -> Recipe:
    for path, text in overrides.items():
        recipe = override(recipe, _by_number(path, recipe), text)
    return recipe


def _on_streams(recipe: Recipe, material: Material, needed: Collection[str], tiny: bool, tell: Tell) -> Recipe:
    """The recipe over the tokenizers of the data."""
    streams = dict(recipe.streams)
    for name, stream in streams.items():
        if name not in material.info:
            if name not in needed:
                continue
            raise DataError(
                f"{material.folders[0]} has no stream {name!r}, which {recipe.name!r} needs; it has "
                f"{', '.join(material.info)}. Tokenize with --stream {name}."
            )
        made = material.info[name]
        held = from_dict(made.tokenizer)
        if to_dict(stream.tokenizer) == to_dict(held):
            continue
        if not tiny:
            raise RecipeError(
                f"{material.folders[0]} was tokenized by {made.name} ({made.sha256[:12]}), which is not the tokenizer "
                f"of {recipe.name!r}. Tokenize with that, or train the --tiny form, which takes the data's."
            )
        tell(f"Stream {name!r}: the tokenizer of the data, {made.name} ({made.sha256[:12]})")
        streams[name] = replace(stream, tokenizer=held)
    for name in recipe.streams.keys() - material.info.keys():
        # What is stored as slices has their tokenizer.
        if slices := slices_of(recipe.streams, name):
            streams[name] = replace(streams[name], tokenizer=streams[slices[0]].tokenizer)
    ratio = _stretch(recipe.streams, streams)
    stages = tuple(replace(s, task=s.task.stretched(ratio)) for s in recipe.stages) if ratio > 1 else recipe.stages
    return replace(recipe, streams=streams, vocoder=_of_data(recipe, streams), stages=stages)


def _stretch(before: Mapping[str, Stream], now: Mapping[str, Stream]) -> float:
    """How many times as many frames the data have as the recipe's own tokenizers would give."""
    rates = [(s.spec.frame_rate, now[n].spec.frame_rate) for n, s in before.items()]
    return max((new / old for old, new in rates if old is not None and new is not None), default=1.0)


def _of_data(recipe: Recipe, streams: Mapping[str, Stream]) -> Vocoder.Config | None:
    """The vocoder for the tokenizers of the data: the decoder of a codec is that of its stream."""
    vocoder = recipe.vocoder
    if isinstance(vocoder, CodecDecoder.Config):
        return replace(vocoder, codec=streams[vocoder.stream].tokenizer)
    return vocoder


def _with_ready_vocoder(recipe: Recipe, material: Material, tell: Tell) -> Plan:
    """A tiny recipe with a vocoder that speaks at once, where its own would take days to learn it."""
    left_out = [s.name for s in recipe.stages if s.task.trains_vocoder]
    stages = tuple(s for s in recipe.stages if not s.task.trains_vocoder)
    own = f"; --stage {left_out[0]} trains the recipe's own" if left_out else ""
    vocoder = recipe.vocoder
    if vocoder is None or isinstance(vocoder, CodecDecoder.Config):
        return Plan(recipe)
    read: str = getattr(vocoder, "stream", "")
    for name, folder in bundled().items():
        lent = _speaks(folder, recipe.streams[read], material.learned.get(read))
        if lent is None or lent.vocoder is None:
            continue
        tell(f"Vocoder: that of {name}, which speaks these very units{own}")
        theirs: Any = replace(lent.vocoder, stream=read)  # type: ignore[call-arg]
        if isinstance(vocoder, Channels.Config):
            theirs = replace(vocoder, vocoder=theirs)
        return Plan(replace(recipe, vocoder=theirs, voices=lent.voice_names, stages=stages), folder)
    if isinstance(vocoder, Channels.Config):
        return Plan(recipe)
    spec, own_tokenizer = recipe.specs[read], recipe.streams[read].tokenizer
    if isinstance(own_tokenizer, Mel.Config) and own_tokenizer.n_fft % own_tokenizer.hop == 0:
        tell(f"Vocoder: Griffin-Lim on the mel spectra{own}")
        return Plan(replace(recipe, vocoder=_inverse(read, own_tokenizer), voices=(), stages=stages))
    plain = isinstance(spec.kind, Discrete) and spec.kind.num_codebooks == 1
    if not plain or spec.frame_rate is None or 16000 % (2 * spec.frame_rate):
        return Plan(recipe)
    tell(f"Vocoder: Griffin-Lim on the mean spectrum of each unit in the data{own}")
    return Plan(replace(recipe, vocoder=GriffinLim.Config(read, upsample=2), voices=(), stages=stages))


def _inverse(stream: str, mel: Mel.Config) -> GriffinLim.Config:
    """What makes sound of mel spectra without having learned to."""
    return GriffinLim.Config(
        stream,
        sample_rate=mel.sample_rate,
        overlap=mel.n_fft // mel.hop,
        bins=mel.bins,
        fmin=mel.fmin,
        fmax=mel.fmax,
    )


def _speaks(folder: Path, stream: Stream, learned: Mapping[str, Tensor] | None) -> Recipe | None:
    """The recipe of a bundled model whose vocoder speaks the units of a stream, whether or not repeats are removed."""
    own = stream.tokenizer
    if not holds(folder, "recipe") or not isinstance(own, SSLUnits.Config) or not learned:
        return None
    lent: Recipe = read_description(folder, "recipe")[0]
    name = getattr(lent.vocoder, "stream", "")
    theirs = lent.streams[name].tokenizer if name in lent.streams else None
    if not isinstance(theirs, SSLUnits.Config) or replace(theirs, deduplicate=own.deduplicate) != own:
        return None
    weights = read_weights(folder)
    same = all(torch.equal(weights[f"tokenizers.{name}.{part}"].float(), tensor) for part, tensor in learned.items())
    return lent if same else None


def lend(plan: Plan, model: Model, tell: Tell) -> None:
    """Give the model the vocoder that the plan takes from a bundled one."""
    if plan.lender is None or model.vocoder is None:
        return
    lent = Model.load(plan.lender)
    taker = model.vocoder.vocoder if isinstance(model.vocoder, Channels) else model.vocoder
    try:
        assert lent.vocoder is not None
        taker.load_state_dict(lent.vocoder.state_dict())
    except RuntimeError:
        tell("Vocoder: untrained, because --set has changed it")


def _by_number(path: str, recipe: Recipe) -> str:
    """``stages.pretrain.trainer.max_steps`` by the number of the stage."""
    head, *rest = path.split(".")
    names = [s.name for s in recipe.stages]
    if head != "stages" or not rest or rest[0].isdigit():
        return path
    if rest[0] not in names:
        raise ConfigError(
            f"--set {path} names no stage of {recipe.name!r}. Name one of {', '.join(names) or 'none'}, or a number."
        )
    return ".".join([head, str(names.index(rest[0])), *rest[1:]])
