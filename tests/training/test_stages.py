from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.data import Manifest
from lalia.data.importers import discover
from lalia.data.manifest import split_of
from lalia.errors import RecipeError
from lalia.model import Model
from lalia.nn.lora import Lora
from lalia.recipe import Recipe
from lalia.recipes import find
from lalia.streams import TokenSequence
from lalia.train.material import Material
from lalia.training import PredictTokens, TrainPart, TrainVocoder
from lalia.training.objectives.gan import VocoderGAN
from lalia.training.objectives.next_token import NextToken
from lalia.training.objectives.part import PartLoss
from lalia.training.segments import SegmentBatches
from lalia.training.tasks import System
from lalia.training.token_batches import TokenBatches
from lalia.training.utterances import UtteranceBatches
from lalia.vocoders import Chain, LearnsAlone


@pytest.fixture(scope="module")
def gslm(shards: Path) -> tuple[Model, Material]:
    """GSLM's parts over the units of the data."""
    material = Material.open([shards])
    recipe = find("gslm").tiny()
    tokenizer = find("mini-gslm").tiny().streams["units"].tokenizer
    streams = {"units": replace(recipe.streams["units"], tokenizer=tokenizer)}
    return Model(replace(recipe, streams=streams), learned=material.learned), material


def prepared(model: Model, material: Material, task: Any) -> Any:
    return task.prepare(model, material.stage_data(), 0)


def test_freezing_leaves_what_the_patterns_name(gslm: tuple[Model, Material]) -> None:
    model, _ = gslm
    for stage, wanted in zip(model.recipe.stages, ("lms.", "vocoder.stages.", "vocoder.vocoder."), strict=True):
        stage.freeze(model.module)
        trainable = {n for n, p in model.module.named_parameters() if p.requires_grad}
        assert trainable == {n for n, _ in model.module.named_parameters() if n.startswith(wanted)}
        assert trainable
    replace(model.recipe.stages[0], train=("*",)).freeze(model.module)
    assert all(p.requires_grad for p in model.module.parameters())


def test_adapters_are_trained_in_place_of_what_they_adapt(gslm: tuple[Model, Material]) -> None:
    model, _ = gslm
    module, before = model.module, {n: t.clone() for n, t in model.module.state_dict().items()}
    stage = replace(model.recipe.stages[0], lora=Lora(patterns=("lms.*.attention.*",)), train=("lms.*norm*", "*.qkv.*"))
    for _ in range(2):  # What a stage before left behind is merged.
        stage.freeze(module)
    trainable = {n for n, p in module.named_parameters() if p.requires_grad}
    assert {n for n in trainable if "lora" in n} == {n for n in module.state_dict() if "lora" in n}
    assert {n for n in trainable if "lora" not in n} == {n for n in before if n.startswith("lms.") and "norm" in n}
    model.recipe.stages[0].freeze(module)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], t) for n, t in before.items())


def test_each_task_has_its_batches_and_objective(gslm: tuple[Model, Material], tiny: Path) -> None:
    model, material = gslm
    for task, objective, batches in (
        (PredictTokens(max_tokens=512), NextToken, TokenBatches),
        (TrainPart("mel", max_tokens=200, max_length=40), PartLoss, UtteranceBatches),
        (TrainPart("audio", seconds=0.2, batch_size=2), PartLoss, SegmentBatches),
    ):
        made = prepared(model, material, task)
        assert isinstance(made.objective, objective)
        assert isinstance(made.batches, batches)
    mini = Model.load(tiny)
    made = prepared(mini, material, find("mini-gslm").tiny().stages[1].task)
    assert isinstance(made.objective, VocoderGAN)
    assert isinstance(made.batches, SegmentBatches)


def test_what_is_too_little_to_hold_out_is_not_held_out(gslm: tuple[Model, Material]) -> None:
    """A held-out utterance that is shorter than a segment must not stop the training."""
    model, material = gslm
    data = material.stage_data()
    few = replace(data, dev=replace(data.train, utterances=(None,) * len(data.train)))
    task = TrainPart("audio", seconds=0.2, batch_size=2)
    assert task.prepare(model, few, 0).validation is None
    held = task.prepare(model, replace(data, dev=data.train), 0).validation
    assert held is not None
    assert len(list(held)) == 4


def test_data_without_a_training_part_are_learned_from_all_the_same(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lalia.train.material.SPLITS", {"train": 0.0, "dev": 0.0, "test": 1.0})
    data = Material.open([shards]).stage_data()
    assert data.dev is None
    assert len(data.train) == 24


def test_training_and_held_out_speakers_are_disjoint(shards: Path) -> None:
    data = Material.open([shards]).stage_data()
    assert all(u is not None for u in data.train.utterances)
    if data.dev is not None:
        ids = [{u.id for u in part.utterances if u is not None} for part in (data.train, data.dev)]
        assert not ids[0] & ids[1]


def test_where_no_speaker_is_held_out_single_utterances_are(
    corpus: Path, tiny: Path, lalia: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [replace(u, speaker=u.path.parent.name) for u in discover(corpus)]
    Manifest(said).save(tmp_path / "corpus.jsonl")
    assert lalia("tokenize", tmp_path / "corpus.jsonl", "-o", tmp_path / "shards", "--tokenizer", tiny).status == 0
    found = False
    for share in range(2, 80, 2):
        shares = {"train": share / 100, "dev": 0.15, "test": 0.85 - share / 100}
        falls = {u.speaker: split_of(str(u.speaker), shares) for u in said}
        own = {u.id: split_of(u.id, shares) for u in said if falls[u.speaker] == "train"}
        if set(falls.values()) == {"train", "test"} and {"train", "dev"} <= set(own.values()):
            found = True
            monkeypatch.setattr("lalia.train.material.SPLITS", shares)
            data = Material.open([tmp_path / "shards"]).stage_data()
            assert data.dev is not None
            for name, part in (("train", data.train), ("dev", data.dev)):
                assert sorted(u.id for u in part.utterances if u is not None) == sorted(
                    i for i, fell in own.items() if fell == name
                )
    assert found


# -- a part of a vocoder ------------------------------------------------------------------------


def batch(model: Model, rows: int = 2, seconds: float = 0.3) -> dict[str, Any]:
    rate = model.recipe.vocoder.stages[0].mel.sample_rate  # type: ignore[union-attr]
    units = torch.randint(0, 50, (rows, 1, 9))
    return {
        "streams": {"units": TokenSequence(units, torch.tensor([9, 7][:rows]))},
        "audio": Audio(0.1 * torch.randn(rows, 1, round(seconds * rate)), rate),
        "speaker": torch.zeros(rows, dtype=torch.long),
    }


def test_a_part_learns_from_the_recording_and_the_others_do_not(gslm: tuple[Model, Material]) -> None:
    model, _ = gslm
    vocoder = model.vocoder
    assert isinstance(vocoder, Chain)
    vocoder.requires_grad_(True)
    tacotron, waveglow = vocoder.part("mel"), vocoder.part("audio")
    assert isinstance(tacotron, LearnsAlone)
    given = batch(model)
    for part, others in ((tacotron, waveglow), (waveglow, tacotron)):
        objective = PartLoss(vocoder, part)
        losses, counts = objective.losses("model", given), objective.counts(given)
        assert losses.keys() == counts.keys() == objective.weights.keys()
        vocoder.zero_grad()
        torch.stack([x / counts[n] for n, x in losses.items()]).sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
        assert all(p.grad is None for p in others.parameters())


def test_the_target_is_the_mel_spectrum_of_each_row_alone(gslm: tuple[Model, Material]) -> None:
    vocoder = gslm[0].vocoder
    assert isinstance(vocoder, Chain)
    stage: Any = vocoder.part("mel")
    audio = Audio(torch.randn(2, 1, 9000), 22050, torch.tensor([9000, 5000]))
    mel = stage.analyse(audio)["mel"]
    assert mel.lengths.tolist() == [9000 // 256, 5000 // 256]
    for b, n in enumerate(mel.lengths.tolist()):
        wanted = stage.mel(audio.samples[b, 0, : n * 256]).T
        torch.testing.assert_close(mel.row(b).values[0], wanted)
    assert float(mel.values[1, int(mel.lengths[1]) :].abs().sum()) == 0


def test_losses_of_a_batch_are_those_of_its_rows(gslm: tuple[Model, Material], monkeypatch: Any) -> None:
    model = gslm[0]
    vocoder = model.vocoder
    assert isinstance(vocoder, Chain)
    stage: Any = vocoder.part("mel")
    vocoder.eval()
    monkeypatch.setattr(stage.decoder, "prenet_dropout", 0.0)
    given = batch(model)
    given["audio"] = Audio(given["audio"].samples, 22050, torch.tensor([6615, 4000]))
    rows = [
        {
            "streams": {"units": given["streams"]["units"].row(b)},
            "audio": given["audio"].row(b),
            "speaker": given["speaker"][b : b + 1],
        }
        for b in range(2)
    ]
    objective = PartLoss(vocoder, stage)
    together, apart = objective.losses("model", given), [objective.losses("model", r) for r in rows]
    for term, value in together.items():
        torch.testing.assert_close(value, apart[0][term] + apart[1][term])
    counts = [objective.counts(r) for r in rows]
    assert objective.counts(given) == {term: counts[0][term] + counts[1][term] for term in counts[0]}


def test_tasks_name_what_they_cannot_train() -> None:
    gslm = find("gslm")

    def check(task: Any, recipe: Recipe = gslm) -> None:
        task.check("here", System(recipe.lms, recipe.vocoder, recipe.specs))

    check(PredictTokens("ulm"))
    check(TrainPart("mel"))
    for task, match in (
        (PredictTokens("other"), "here trains LM 'other', but there is ulm"),
        (TrainPart("units"), "but the vocoder makes mel, audio. Name one of these"),
        (TrainVocoder(), "here trains a vocoder of units or mel, but it is WaveGlow"),
    ):
        with pytest.raises(RecipeError, match=match):
            check(task)
