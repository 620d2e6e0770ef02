"""Training a recipe: from token shards to a model directory, stage by stage, resumable."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lalia.config import from_dict, override, to_dict
from lalia.data import SPLITS, Manifest, Mixture, MixtureDataset, Source, TokenDataset
from lalia.errors import CheckpointError, DataError, LaliaError, OutputError, RecipeError
from lalia.files import atomic_write
from lalia.model import Model, bundled, open_tokenizer
from lalia.recipe import Recipe, Stream
from lalia.store import read_description, read_weights
from lalia.training import Trainer
from lalia.training.distributed import is_main, process_group
from lalia.training.stages import StageData, TrainStage

__all__ = ["TOKENIZERS", "train"]

TOKENIZERS = "tokenizers"
"""Beside token shards: what made each stream, in a folder by its name."""

PLAN = "plan.json"
"""In a run: the recipe as it is trained."""


def train(
    recipe: Recipe,
    data: Sequence[str | Path],
    run: str | Path,
    *,
    stage: str | None = None,
    tiny: bool = False,
    overrides: Mapping[str, str] | None = None,
    resume: bool = False,
    seed: int = 0,
    device: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train the stages of a recipe on folders of token shards.

    The run gets ``plan.json``, ``stages/NAME/`` (checkpoints and metrics) and, after each stage, the model
    itself (``recipe.json``, ``model.safetensors``), which every command takes as ``--model``.

    :param stage: only this one, from where the run stands.
    :param tiny: the smallest form of the recipe, over the tokenizer of the data.
    :param overrides: fields of the recipe by dotted path, as YAML.
    :param resume: go on where a run stopped; the same command gives the same plan.
    :raises RecipeError: the data are of another tokenizer than the recipe's.
    """
    run = Path(run)
    with process_group(device) as world:
        folders = [Path(d) for d in data]
        recipe = _plan(recipe, folders, tiny, overrides or {}, tell)
        _remember(recipe, run, resume)
        torch.manual_seed(seed)
        model = _build(recipe, folders, tell)
        model.module.to(world.device)
        if stage is not None:
            _only(recipe, stage)
            if (run / "recipe.json").exists():
                model.load_tensors(_own(read_weights(run)), str(run))
        for part in recipe.stages:
            if stage in (None, part.name):
                tell(f"Stage {part.name}")
                _run_stage(model, part, folders, run, resume, seed)
                if is_main():
                    model.save(run)
        if not recipe.stages and is_main():
            model.save(run)
    return run


def _plan(
    recipe: Recipe, folders: Sequence[Path], tiny: bool, overrides: Mapping[str, str], tell: Callable[[str], None]
) -> Recipe:
    if not folders:
        raise DataError("There are no data to train on. Give --data, a folder that `lalia tokenize` wrote.")
    made = {name: info for folder in folders for name, info in TokenDataset(folder).info.items()}
    if tiny:
        recipe = recipe.tiny()
    streams = dict(recipe.streams)
    for name, stream in streams.items():
        if name not in made:
            raise DataError(
                f"{folders[0]} has no stream {name!r}, which {recipe.name!r} needs; it has {', '.join(made)}. "
                f"Tokenize with --stream {name}."
            )
        held = from_dict(made[name].tokenizer)
        if to_dict(stream.tokenizer) == to_dict(held):
            continue
        if not tiny:
            raise RecipeError(
                f"{folders[0]} was tokenized by {made[name].name} ({made[name].sha256[:12]}), which is not the tokenizer of "
                f"{recipe.name!r}. Tokenize with that, or train the --tiny form, which takes the data's."
            )
        tell(f"Stream {name!r}: the tokenizer of the data, {made[name].name} ({made[name].sha256[:12]})")
        streams[name] = Stream(held, channel=stream.channel)
    vocoder = recipe.vocoder
    if tiny and not any(s.task.trains_vocoder for s in recipe.stages):
        found = _vocoder_for({n: i.sha256 for n, i in made.items()})
        if found is not None:
            vocoder = found.recipe.vocoder
    recipe = replace(recipe, streams=streams, vocoder=vocoder)
    for path, text in overrides.items():
        recipe = override(recipe, path, text)
    return recipe


def _vocoder_for(identities: Mapping[str, str]) -> Model | None:
    """A bundled model whose vocoder speaks these very tokens."""
    for folder in bundled().values():
        config, more = read_description(folder, "recipe")
        stream: str = getattr(config.vocoder, "stream", "")
        if stream in identities and more.get("tokenizers", {}).get(stream) == identities[stream]:
            return Model.load(folder)
    return None


def _remember(recipe: Recipe, run: Path, resume: bool) -> None:
    path = run / PLAN
    if path.exists():
        before = json.loads(path.read_text())
        if not resume:
            raise OutputError(f"{run} holds a run already. Go on with --resume, or name another folder.")
        if _lasting(before) != _lasting(to_dict(recipe)):
            raise CheckpointError(f"{run} was started with other settings. Give the same ones, or name another folder.")
    if is_main():
        try:
            run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{run} cannot be made ({error.strerror}). Choose another folder.") from None
        with atomic_write(path) as part:
            part.write_text(json.dumps(to_dict(recipe), indent=2) + "\n")


def _lasting(plan: Any) -> Any:
    """A plan without what may change when it is resumed: for how long it is trained, and what is reported."""
    if isinstance(plan, Mapping):
        free = ("max_steps", "max_seconds", "log_every", "eval_every", "save_every", "keep_checkpoints", "tensorboard")
        return {k: _lasting(v) for k, v in plan.items() if k not in free}
    return [_lasting(v) for v in plan] if isinstance(plan, list) else plan


def _build(recipe: Recipe, folders: Sequence[Path], tell: Callable[[str], None]) -> Model:
    identities, learned = {}, {}
    for name in recipe.streams:
        for folder in folders:
            home = folder / TOKENIZERS / name
            if not (home / "recipe.json").exists():
                continue
            config, more = read_description(home, "tokenizer")
            learned[name] = read_weights(home)
            open_tokenizer(config, learned[name], more.get("identity"))
            identities[name] = more["identity"]
            break
    model = Model(recipe, learned=learned, identities=identities)
    lender = _vocoder_for(identities)
    if lender is not None and model.vocoder is not None and lender.recipe.vocoder == recipe.vocoder:
        assert lender.vocoder is not None
        model.vocoder.load_state_dict(lender.vocoder.state_dict())
        tell(f"Vocoder: that of {lender.recipe.name}, which speaks the same units")
    elif model.vocoder is not None and not any(s.task.trains_vocoder for s in recipe.stages):
        tell("Vocoder: untrained, because no stage trains it and no bundled one speaks these units")
    return model


def _only(recipe: Recipe, stage: str) -> TrainStage:
    for part in recipe.stages:
        if part.name == stage:
            return part
    raise LaliaError(f"{recipe.name!r} has no stage {stage!r}. It has {', '.join(s.name for s in recipe.stages)}.")


def _run_stage(model: Model, stage: TrainStage, folders: Sequence[Path], run: Path, resume: bool, seed: int) -> None:
    stage.freeze(model.module)
    prepared = stage.task.prepare(model, _stage_data(stage.data or folders), seed)
    trainer: Trainer = stage.trainer.build(
        prepared.objective,
        prepared.batches,
        run / "stages" / stage.name,
        validation=prepared.validation,
        save_model=model.save,
    )
    trainer.fit(resume=resume)


def _stage_data(folders: Sequence[str | Path]) -> StageData:
    """The training part of all folders, and what is held out of them (by speaker)."""

    def part(split: str) -> MixtureDataset | None:
        sources = []
        for folder in folders:
            if len(TokenDataset(folder).split(split, SPLITS)):
                sources.append(Source(str(folder), split=split))
        return Mixture(tuple(sources)).open() if sources else None

    train_part, dev = part("train"), part("dev")
    if train_part is None:
        raise DataError(f"{', '.join(map(str, folders))}: no speaker falls to the training part. Give more data.")
    utterances = [
        u for f in folders if (Path(f) / "manifest.jsonl").exists() for u in Manifest.load(Path(f) / "manifest.jsonl")
    ]
    return StageData(train_part, dev, Manifest({u.id: u for u in utterances}.values()))


def _own(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {n: t for n, t in tensors.items() if not n.startswith("tokenizers.")}
