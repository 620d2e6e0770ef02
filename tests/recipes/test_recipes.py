"""Every recipe works: its tiny form builds, learns in every stage, goes on, speaks, and survives a file."""

import importlib
import itertools
import json
import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.data import Manifest, Utterance, Word, discover, tokenize_corpus
from lalia.model import Model
from lalia.recipe import Recipe
from lalia.recipes import find, names
from lalia.train.conversations import make_conversations
from lalia.train.material import Material
from lalia.train.needs import streams_of_stages
from lalia.train.preparing import RecipeStreams
from lalia.training import Trainer, TrainStage
from lalia.training.gradients import mean_losses

SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"
_STEPS = {"PredictTokens": 12, "TrainVocoder": 30, "TrainPart": 12, "DistillText": 6}
_RATES = {"PredictTokens": 3e-3, "TrainVocoder": 2e-3, "TrainPart": 3e-3, "DistillText": 3e-3}


@pytest.fixture(scope="module")
def recordings(corpus: Path) -> list[Path]:
    """Real speech where there is some, else noise."""
    return sorted(SPEECH.glob("*.flac"))[:6] or [corpus]


@pytest.fixture(scope="module")
def material(recordings: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Material]:
    """The recordings as the streams of a recipe, with made-up texts."""

    def make(recipe: Recipe, stage: str | None = None) -> Material:
        folder = tmp_path_factory.mktemp(recipe.name)
        manifest = Manifest([_with_words(u) for u in discover(recordings)])
        names = streams_of_stages(recipe, stage)
        if len(recipe.channels if stage is None else recipe.channels_of(names)) > 1:
            manifest = make_conversations(manifest, folder / "conversations", sample_rate=16000)
        maker = RecipeStreams(recipe, names=names)
        maker.learn(manifest)
        tokenize_corpus(manifest, maker, folder)
        maker.save(folder)
        return Material.open([folder])

    return make


def _with_words(u: Utterance) -> Utterance:
    """With a word for every 0.4 s."""
    said = itertools.cycle(("the", "sea", "was", "calm", "and", "nobody", "spoke", "of", "it", "again"))
    count = min(int(u.duration / 0.4), 30)
    words = tuple(Word(next(said), 0.4 * i, 0.4 * i + 0.3) for i in range(count))
    # Each letter a phone.
    phones = tuple(Word(c, w.start + 0.05 * i, w.start + 0.05 * (i + 1)) for w in words for i, c in enumerate(w.text))
    text = " ".join(w.text for w in words)
    return replace(u, duration=max(0.4 * count, 0.5), words=words, phones=phones, text=text)


def learn(model: Model, stage: TrainStage, material: Material, folder: Path) -> tuple[float, float]:
    """The loss on the same few batches before and after a few steps."""
    stage.freeze(model.module)
    random.seed(0)
    same = stage.task.prepare(model, material.stage_data(), 1).batches
    batches = [micro for batch in itertools.islice(same, 4) for micro in batch]
    steps = _STEPS[type(stage.task).__name__]
    prepared = stage.task.prepare(model, material.stage_data(), 0)

    def level() -> float:
        torch.manual_seed(0)
        # Without opponents, whose losses are no measure of progress.
        prepared.objective.step = 0
        with torch.no_grad():
            return mean_losses(prepared.objective, batches, torch.device("cpu"), nullcontext)["loss"]

    before = level()
    settings: Trainer.Config = replace(
        stage.trainer,
        max_steps=steps,
        warmup_steps=1,
        schedule="constant",
        learning_rate=_RATES[type(stage.task).__name__],
        log_every=1,
        eval_every=steps,
        save_every=steps,
        tensorboard=False,
    )
    trainer: Trainer = settings.build(
        prepared.objective, prepared.batches, folder, validation=prepared.validation, save_model=model.save
    )
    trainer.fit()
    assert trainer.progress.skipped == 0
    assert prepared.validation is None or math.isfinite(trainer.progress.validation["loss"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "train"]
    assert len(rows) == steps
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    return before, level()


@pytest.mark.parametrize("name", names())
def test_the_published_form_is_plain_data(name: str) -> None:
    recipe = find(name)
    assert recipe.name == name
    assert from_dict(to_dict(recipe)) == recipe
    assert recipe.paper


@pytest.mark.parametrize("name", names())
def test_the_file_is_short(name: str) -> None:
    text = Path(importlib.import_module(f"lalia.recipes.{name}").__file__ or "").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize("name", names())
def test_tiny_form(name: str, material: Any, recordings: list[Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = find(name).tiny()
    held = material(recipe)
    model = Model(recipe, learned=held.learned, identities=held.identities)
    for stage in recipe.stages:
        # Each from the beginning: what an earlier stage has learned well on so little, a later one can only disturb.
        model = Model(recipe, learned=held.learned, identities=held.identities)
        own = held if stage.init is None else material(recipe, stage.name)
        first, last = learn(model, stage, own, tmp_path / stage.name)
        assert last < first, stage.name
    model.module.eval()
    clip = next(u.path for u in discover(recordings))

    def speak(model: Model) -> Audio:
        answers = "user" in recipe.channels
        said = model.chat(Audio.load(clip, seconds=1.5), seconds=1.0) if answers else None
        audio = said.audio if said is not None else model.continue_(clip, prompt_seconds=1.0, seconds=0.5).audio
        if audio is None:
            # It may have learned in a few steps that there is nothing to say.
            assert said is not None
            assert len(recipe.lms) > 1 or recipe.talk is not None
            return Audio(torch.zeros(16000), 16000)
        assert bool(torch.isfinite(audio.samples).all())
        return audio

    spoken = speak(model)
    assert spoken.samples.numel() > 0
    heard = model.resynthesize(Audio.load(clip, seconds=1.0))
    assert heard.samples.numel() > 0
    assert bool(torch.isfinite(heard.samples).all())

    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.recipe == recipe
    assert again.identities == held.identities
    ours, theirs = model.module.state_dict(), again.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert [n for n in ours if not torch.equal(ours[n], theirs[n])] == []
    assert torch.equal(speak(again).samples, spoken.samples)
