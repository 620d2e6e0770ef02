"""The run: every stage in turn, each starting from the best that the one before it found."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lalia.config import Configuration, to_dict
from lalia.device import device_of
from lalia.errors import OutputError, RecipeError
from lalia.folders import output_folder
from lalia.model import Model
from lalia.model.text_lm import with_text_lm
from lalia.nn.lora import merge_lora, merged
from lalia.recipe import Recipe
from lalia.store import DESCRIPTION, matches, read_description
from lalia.streams import Discrete
from lalia.train.beginning import Beginning
from lalia.train.material import Material
from lalia.train.memory import remember
from lalia.train.plan import Plan, check_overrides, lend, make_plan
from lalia.train.preparing import prepare_all
from lalia.train.tokenizers import with_tokenizers
from lalia.training import Trainer, TrainStage, checkpoint
from lalia.training.distributed import broadcast, is_main, process_group
from lalia.vocoders import GriffinLim

__all__ = ["claim", "train"]

_FIT_SECONDS = 1800.0
"""Of recordings that Griffin-Lim's spectra are taken from."""


def train(
    recipe: Recipe,
    data: Sequence[str | Path],
    run: str | Path,
    *,
    stage: str | None = None,
    tiny: bool = False,
    tokenizers: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, str] | None = None,
    lm: str | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Path:
    """Train the stages of a recipe on folders of token shards, or recordings; under torchrun, by every process.

    The run gets ``plan.json``, ``stages/NAME/`` (checkpoints and metrics) and, after each stage, the model
    itself (``recipe.json``, ``model.safetensors``), which every command takes as ``--model``. It is the best of
    the stage on held-out speakers, where there are any.

    :param stage: only this one, from where the run stands.
    :param tiny: the smallest form of the recipe, over the tokenizer of the data, with a vocoder that is ready:
        a bundled one that speaks the same units, or else Griffin-Lim. The stages that train a vocoder are left
        out, unless ``stage`` names one of them.
    :param tokenizers: saved ones or models, by the stream whose tokenizer they take the place of.
    :param overrides: fields of the recipe by dotted path, as YAML; stages by name or number.
    :param lm: a text LM in place of the recipe's: known weights, a directory or a hub id (see ``with_text_lm``).
    :param init: a model to begin with: whatever of its weights has the name and the shape of one of this recipe's, and
        what its tokenizers learned; that of the stage when not given. A run that has begun goes on from its own.
    :param resume: go on where a run stopped; the same settings give the same plan.
    :param seed: of everything random; the recipe's when not given.
    :param tell: called with what is worth knowing.
    :param progress: called with seconds done and in all while recordings are tokenized.
    :raises RecipeError: the data are of another tokenizer than the recipe's, or there is no such stage.
    :raises OutputError: the folder holds something else, or another process is training in it.
    """
    run = Path(run)
    with process_group(device_of(device)) as world:
        say = tell if tell is not None and is_main() else _silent
        if stage is not None:
            _check_stage(recipe, stage)
        if lm is not None:
            recipe = with_text_lm(recipe, lm)
        if tiny:
            recipe = recipe.tiny()
        elif init is None:
            init = next((s.init for s in recipe.stages_of(stage)), None)
        recipe, ready = with_tokenizers(recipe, tokenizers or {})
        begun = None if init is None else Beginning.of(init, recipe, lm=lm)
        ready = ready if begun is None else begun.tokenizers(recipe, ready)
        check_overrides(recipe, overrides or {})
        material = Material.open(
            prepare_all(recipe, data, tiny=tiny, tell=say, ready=ready, stage=stage, progress=progress)
        )
        # Told once it is clear that there will be a run: a request that is refused is refused in one line.
        notes: list[str] = []
        plan = make_plan(
            recipe, material, stage=stage, tiny=tiny, overrides=overrides or {}, seed=seed, tell=notes.append
        )
        notes += [
            f"Stream {name!r}: its tokenizer is not kept beside the shards; the model cannot listen"
            for name, stream in plan.recipe.streams.items()
            if name in material.info and name not in material.learned and _learns(stream.tokenizer)
        ]
        stages = plan.recipe.stages_of(stage)
        torch.manual_seed(stages[0].trainer.seed if stages else 0)
        model = _build(plan.recipe, material, begun)
        with claim(run, "stages/*") if is_main() else nullcontext():
            if is_main():
                made_by = {n: material.identities[n] for n in plan.recipe.streams if n in material.identities}
                remember(
                    run,
                    {"recipe": to_dict(plan.recipe), "tokenizers": made_by},
                    begun=any(checkpoint.steps(run / "stages" / s.name) for s in stages),
                    resume=resume,
                )
                for note in notes:
                    say(note)
                _start(model, plan, material, run, begun, say)
                _keep_what_changes(model, stages)
            model.module.to(world.device)
            broadcast([*model.module.parameters(), *model.module.buffers()])
            for part in stages:
                say(f"Stage {part.name}")
                _run_stage(model, part, material, run, resume)
            if not stages and is_main():
                model.save(run)
    return run


def _silent(text: str) -> None:
    pass


def _learns(tokenizer: Configuration) -> bool:
    """Whether a tokenizer is more than its configuration and weights of others."""
    return hasattr(getattr(tokenizer, "owner", None), "weights")


def _check_stage(recipe: Recipe, stage: str) -> None:
    names = [s.name for s in recipe.stages]
    if stage not in names:
        close = difflib.get_close_matches(stage, names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(names) or 'none'}."
        raise RecipeError(f"{recipe.name!r} has no stage {stage!r}. {hint}")


@contextmanager
def claim(run: Path, checkpoints: str) -> Iterator[None]:
    """The folder of the run, for this process alone; it goes again when the run fails before its first checkpoint.

    :param checkpoints: where in it they lie, as a pattern.
    :raises OutputError: another process has it, or it cannot be made.
    """

    def trained() -> bool:
        return any(checkpoint.steps(folder) for folder in run.glob(checkpoints))

    with output_folder(run, keep=trained):
        lock = FileLock(run / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"Another process is training in {run}. Wait for it, or name another folder.") from None
        try:
            yield
        finally:
            lock.release()


def _build(recipe: Recipe, material: Material, begun: Beginning | None) -> Model:
    """The model, with what the tokenizers of the data learned, and for other streams those of what is begun with."""
    held = {recipe.streams[n].tokenizer for n in material.info if n in recipe.streams}
    others = {} if begun is None else begun.learned
    lent = {n: tensors for n, tensors in others.items() if recipe.streams[n].tokenizer not in held}
    return Model(recipe, learned={**lent, **material.learned}, identities=material.identities)


def _start(
    model: Model, plan: Plan, material: Material, run: Path, begun: Beginning | None, tell: Callable[[str], None]
) -> None:
    """What the model holds before the first step: what the run has so far, or what is to be begun with, or a vocoder
    that is ready.
    """
    if (run / DESCRIPTION).exists():
        model.fetched = tuple(read_description(run, "recipe")[1].get("fetched", ()))
        model.load_tensors(run)
        return
    lend(plan, model, tell)
    model.take_decoders()
    if begun is not None:
        begun.give(model, tell)
    if isinstance(model.vocoder, GriffinLim) and isinstance(model.vocoder.spec.kind, Discrete):
        _fit(model.vocoder, material, tell)


def _keep_what_changes(model: Model, stages: Sequence[TrainStage]) -> None:
    """Let the model be saved with all that the stages train, also where it came as others published it."""
    trained = ("*",) if any(s.lora for s in stages) else tuple(p for s in stages for p in s.train)
    changed = [n for n in model.module.state_dict() if matches(n, trained)]
    model.fetched = tuple(p for p in model.fetched if not any(matches(n, (p,)) for n in changed))


def _fit(vocoder: GriffinLim, material: Material, tell: Callable[[str], None]) -> None:
    data = material.stage_data().train
    rows = [i for i, u in enumerate(data.utterances) if u is not None]
    # Evenly over the corpus, so that every speaker is heard.
    total = sum(float(data.tokens.seconds[i]) for i in rows)
    rows = rows[:: max(round(total / _FIT_SECONDS), 1)]
    if not rows:
        tell("The recordings are not where the manifest says, so the vocoder stays silent. Put them back")
    for i in rows:
        utterance = data.utterances[i]
        assert utterance is not None
        tokens = data.tokens[i].streams[vocoder.stream]
        vocoder.fit([({vocoder.stream: tokens}, utterance.load(sample_rate=vocoder.sample_rate))])


def _run_stage(model: Model, stage: TrainStage, material: Material, run: Path, resume: bool) -> None:
    stage.freeze(model.module)
    folder = run / "stages" / stage.name
    data = material.stage_data(stage.data, voices=getattr(stage.task, "voices", ()))
    prepared = stage.task.prepare(model, data, stage.trainer.seed)

    def save(directory: Path) -> None:
        # Checkpoints keep adapters apart; a model is whole.
        with merged(model.module):
            model.save(directory)

    trainer: Trainer = stage.trainer.build(
        prepared.objective, prepared.batches, folder, validation=prepared.validation, save_model=save
    )
    trainer.fit(resume=resume)
    merge_lora(model.module)
    if is_main():
        # The best on held-out speech, with averaged parameters where there are any; not where training stopped.
        best = folder / "best"
        model.load_tensors(best if (best / DESCRIPTION).exists() else folder / "last")
    broadcast([*model.module.parameters(), *model.module.buffers()])
    if is_main():
        model.save(run)
