import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from filelock import FileLock
from safetensors.torch import load_file

from lalia.config import to_dict
from lalia.errors import CheckpointError, DataError, LaliaError, OutputError, RecipeError
from lalia.model import Model, load
from lalia.nn.lora import Lora
from lalia.recipe import Recipe
from lalia.recipes import find
from lalia.train import train
from lalia.train.material import Material
from lalia.train.plan import make_plan
from lalia.training import checkpoint
from lalia.vocoders import GriffinLim, UnitVocos

ROOT = Path(__file__).parents[1]
SPEECH = ROOT.parent / "shared/data/librispeech-mini"
QUICK = {
    "stages.pretrain.trainer.max_steps": "6",
    "stages.pretrain.trainer.save_every": "2",
    "stages.pretrain.trainer.log_every": "1",
    "stages.pretrain.trainer.eval_every": "3",
    "stages.pretrain.trainer.tensorboard": "false",
    "stages.pretrain.task.max_tokens": "1024",
    "stages.pretrain.trainer.precision": "fp32",
    "lms.ulm.backbone.dropout": "0.1",
}


@pytest.fixture(autouse=True)
def _nothing_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tiny run borrows does not depend on what this checkout has."""
    monkeypatch.setattr("lalia.train.plan.bundled", dict)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def options(**changes: str) -> list[str]:
    """``QUICK`` as the command line has it."""
    return [word for key, value in (QUICK | changes).items() for word in ("--set", f"{key}={value}")]


def reports(run: Path, stage: str = "pretrain") -> list[dict[str, Any]]:
    """What ``metrics.jsonl`` says, without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "stages" / stage / "metrics.jsonl").read_text().splitlines()]
    clocks = ("elapsed", "tokens_per_second", "speech_hours_per_second")
    return [{k: v for k, v in row.items() if k not in clocks} for row in rows]


@pytest.fixture(scope="module")
def whole(shards: Path, lalia: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that was left in peace."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lalia.train.plan.bundled", dict)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        ran = lalia("train", "gslm", "--tiny", "--data", shards, "-o", run, *options())
        torch.set_num_threads(threads)
    assert ran.status == 0, ran.err
    assert ran.out == f"{run}: trained. Try: lalia continue AUDIO --model {run}\n"
    assert "Vocoder: Griffin-Lim" in ran.err
    return run


# -- the flow -----------------------------------------------------------------------------------


def test_what_a_run_leaves(whole: Path, shards: Path) -> None:
    assert {p.name for p in whole.iterdir()} >= {"plan.json", "stages", "recipe.json", "model.safetensors"}
    assert [row["step"] for row in reports(whole) if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert checkpoint.steps(whole / "stages" / "pretrain")
    model = load(whole)
    assert model.recipe.name == "gslm"
    assert [s.name for s in model.recipe.stages] == ["pretrain"]
    assert isinstance(model.vocoder, GriffinLim)
    assert float(model.vocoder.count.sum()) > 1000
    assert model.identities == Material.open([shards]).identities


def test_a_run_speaks(whole: Path, clip: Path, lalia: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    ran = lalia("continue", clip, "--model", whole, "-o", out, "--seconds", 1, "--json")
    assert (ran.status, ran.err) == (0, "")
    samples, rate = soundfile.read(out)
    assert len(samples) / rate == pytest.approx(ran.json["seconds"], abs=0.01) == pytest.approx(4.0, abs=0.03)
    assert abs(samples).max() > 0.01


def test_the_model_is_the_best_of_its_stage(whole: Path) -> None:
    ours = load_file(whole / "model.safetensors")
    best = load_file(whole / "stages" / "pretrain" / "best" / "model.safetensors")
    assert all(torch.equal(ours[n], best[n]) for n in best)


def test_the_average_is_what_is_kept(shards: Path, tmp_path: Path) -> None:
    """A run whose stage keeps a running average ends with that, not with the last parameters."""
    recipe = _without_vocoder_stages()
    few = QUICK | {"stages.pretrain.trainer.max_steps": "2", "stages.pretrain.trainer.eval_every": "2"}
    train(recipe, [shards], tmp_path / "run", tiny=True, overrides=few | {"stages.0.trainer.ema_decay": "0.9"})
    ours = load_file(tmp_path / "run" / "model.safetensors")
    saved = checkpoint.path_of(tmp_path / "run" / "stages" / "pretrain", 2)
    average, last = (load_file(saved / f"{name}.safetensors") for name in ("average", "parameters"))
    assert torch.equal(ours["lms.ulm.start"], average["model.start"])
    assert not torch.equal(ours["lms.ulm.start"], last["model.start"])


def test_a_run_begins_with_a_model(whole: Path, shards: Path, lalia: Any, tmp_path: Path) -> None:
    """What fits is taken: after a step of no size, the weights are those of the other run."""
    still = options(**{"stages.pretrain.trainer.max_steps": "1", "stages.pretrain.trainer.learning_rate": "1e-12"})
    ran = lalia("train", "gslm", "--tiny", "--data", shards, "-o", tmp_path / "run", "--init", whole, *still)
    assert ran.status == 0, ran.err
    assert "Begun with" in ran.err
    assert str(whole) in ran.err
    ours, theirs = load_file(tmp_path / "run" / "model.safetensors"), load_file(whole / "model.safetensors")
    learned = [n for n in theirs if n.startswith("lms.")]
    assert learned
    for name in learned:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5)
    ran = lalia("train", "gslm", "--tiny", "--data", shards, "-o", tmp_path / "x", "--init", "mini-codec", *options())
    assert ran.status == 2
    assert "mini-codec" in ran.err
    assert "holds no recipe" in ran.err


def test_adapters_end_in_the_model(shards: Path, tmp_path: Path) -> None:
    """A checkpoint of the stage holds them apart; the model has weights of the same names, and another start."""
    recipe = _without_vocoder_stages()
    stage = replace(recipe.stages[0], lora=Lora(patterns=("*.attention.*",)), train=())
    few = QUICK | {"stages.pretrain.trainer.max_steps": "2", "stages.pretrain.trainer.eval_every": "2"}
    run = train(replace(recipe, stages=(stage,)), [shards], tmp_path / "run", tiny=True, overrides=few)
    ours = load_file(run / "model.safetensors")
    saved = load_file(checkpoint.path_of(run / "stages" / "pretrain", 2) / "parameters.safetensors")
    name = "layers.0.attention.out"
    a, b = (saved[f"model.backbone.{name}.lora_{side}"] for side in "ab")
    assert b.any()
    change = ours[f"lms.ulm.backbone.{name}.weight"] - saved[f"model.backbone.{name}.weight"]
    assert torch.allclose(change, 2.0 * b @ a, atol=1e-7)
    assert torch.equal(ours["lms.ulm.start"], saved["model.start"])
    assert {n.removeprefix("lms.ulm.") for n in ours if n.startswith("lms.")} == {
        n.removeprefix("model.") for n in saved if "lora" not in n
    }
    assert Model.load(run).recipe.stages[0].lora == stage.tiny().lora
    # Of a run that was done, going on changes nothing.
    train(replace(recipe, stages=(stage,)), [shards], run, tiny=True, overrides=few, resume=True)
    assert all(torch.equal(t, ours[n]) for n, t in load_file(run / "model.safetensors").items())


def _without_vocoder_stages() -> Recipe:
    recipe = find("gslm")
    return replace(recipe, vocoder=None, stages=recipe.stages[:1])


def test_stages_one_by_one(shards: Path, tmp_path: Path) -> None:
    """Each goes on from what the run has; the vocoder's own are trained when they are named."""
    recipe = find("mini-gslm").tiny()
    stages = tuple(
        replace(s, trainer=replace(s.trainer, max_steps=2, tensorboard=False, precision="fp32", eval_every=None))
        for s in recipe.stages
    )
    recipe = replace(recipe, stages=stages, streams=find("mini-gslm").tiny().streams)
    run = tmp_path / "run"
    train(recipe, [shards], run, stage="vocoder")
    first = load_file(run / "model.safetensors")
    train(recipe, [shards], run, stage="pretrain")
    second = load_file(run / "model.safetensors")
    moved = {n.split(".")[0] for n in first if not torch.equal(first[n], second[n])}
    assert moved == {"lms"}
    assert isinstance(load(run).vocoder, UnitVocos)
    with pytest.raises(OutputError, match=r"holds a run already. Go on with --resume"):
        train(recipe, [shards], run, stage="pretrain")
    assert train(recipe, [shards], run, resume=True) == run


def test_a_borrowed_vocoder(shards: Path, tiny: Path, clip: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Where a bundled model speaks the very units of the data, a tiny run speaks with its voice."""
    monkeypatch.setattr("lalia.train.plan.bundled", lambda: {"mini-gslm": tiny})
    told: list[str] = []
    run = train(find("gslm"), [shards], tmp_path / "run", tiny=True, overrides=QUICK, tell=told.append)
    assert told[1] == (
        "Vocoder: that of mini-gslm, which speaks these very units; --stage spectrogram trains the recipe's own"
    )
    model, lender = load(run), load(tiny)
    assert model.recipe.voice_names == lender.recipe.voice_names
    units = model.encode(clip)
    assert torch.equal(model.decode(units, voice=1).samples, lender.decode(units, voice=1).samples)


def test_the_recipe_s_own_vocoder_when_its_stage_is_named(shards: Path) -> None:
    material = Material.open([shards])
    tiny = find("gslm").tiny()
    plan = make_plan(tiny, material, stage="waveform", tiny=True, overrides={}, seed=None, tell=lambda _: None)
    assert plan.lender is None
    assert plan.recipe.vocoder == find("gslm").tiny().vocoder
    assert [s.name for s in plan.recipe.stages] == ["pretrain", "spectrogram", "waveform"]


def test_seeds_are_part_of_the_plan(shards: Path) -> None:
    material = Material.open([shards])
    plans = [
        make_plan(
            find("gslm").tiny(), material, stage=None, tiny=True, overrides={}, seed=s, tell=lambda _: None
        ).recipe
        for s in (None, 0, 7)
    ]
    assert plans[0] == plans[1] != plans[2]
    assert {s.trainer.seed for s in plans[2].stages} == {7}


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs recorded speech")
def test_the_flow_on_real_speech(tiny: Path, lalia: Any, tmp_path: Path) -> None:
    clips = sorted(SPEECH.rglob("*.flac"))[:16]
    assert lalia("tokenize", *clips, "-o", tmp_path / "shards", "--tokenizer", tiny).status == 0
    more = options(**{"stages.pretrain.trainer.max_steps": "4"})
    ran = lalia("train", "gslm", "--tiny", "--data", tmp_path / "shards", "-o", tmp_path / "run", *more)
    assert ran.status == 0, ran.err
    losses = [row["loss"] for row in reports(tmp_path / "run") if row["split"] == "train"]
    assert losses[-1] < losses[0]
    out = tmp_path / "out.wav"
    assert lalia("continue", clips[0], "--model", tmp_path / "run", "-o", out, "--seconds", 1).status == 0
    assert abs(soundfile.read(out)[0]).max() > 0.01


# -- interrupted, resumed, in parallel ----------------------------------------------------------


def start(program: list[str], shards: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    # A checkout may have bundled models by now: what they lend is another test's matter.
    code = "import lalia.train.plan as p; p.bundled = dict; from lalia.cli import main; main()"
    path = run.parent / "program.py"
    path.write_text(code)
    command = [sys.executable, *program, str(path), "train", "gslm", "--tiny", "--data", str(shards), "-o", str(run)]
    return subprocess.Popen([*command, *options(), *more], env=environment, stderr=subprocess.PIPE, text=True)


def test_kill_9_and_resume(whole: Path, shards: Path, lalia: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start([], shards, run)
    reported = run / "stages" / "pretrain" / "metrics.jsonl"
    while process.poll() is None and not (reported.exists() and reported.read_text().count('"train"') >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.communicate()[1]
    assert not (run / "recipe.json").exists()
    ran = lalia("train", "gslm", "--tiny", "--data", shards, "-o", run, *options(), "--resume")
    assert ran.status == 0, ran.err
    assert reports(run) == reports(whole)
    ours, theirs = (load_file(r / "model.safetensors") for r in (run, whole))
    assert [n for n in theirs if not torch.equal(ours[n], theirs[n])] == []
    assert not list(run.rglob("*.part"))


def test_two_processes_learn_what_one_learns(shards: Path, lalia: Any, tmp_path: Path) -> None:
    still = ("--set", "lms.ulm.backbone.dropout=0.0")  # its random numbers are each process's own
    two = start(
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], shards, tmp_path / "two", *still
    )
    ran = lalia("train", "gslm", "--tiny", "--data", shards, "-o", tmp_path / "one", *options(), *still)
    assert ran.status == 0, ran.err
    error = two.communicate(timeout=280)[1]
    assert two.returncode == 0, error
    assert error.count("Stage pretrain") == 1
    ours, theirs = reports(tmp_path / "two"), reports(tmp_path / "one")
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)
    one, both = load(tmp_path / "one"), load(tmp_path / "two")
    for p, q in zip(one.module.parameters(), both.module.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-3)


def test_a_run_that_is_done_stays_as_it_is(whole: Path, shards: Path, lalia: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    before = load_file(run / "model.safetensors")
    ran = lalia("train", "gslm", "--tiny", "--data", shards, "-o", run, *options(), "--resume", "--json")
    assert (ran.status, ran.json) == (0, {"path": str(run)})
    after = load_file(run / "model.safetensors")
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert reports(run) == reports(whole)


def test_plans_of_earlier_versions_are_understood(whole: Path, shards: Path, lalia: Any, tmp_path: Path) -> None:
    """They held the recipe alone, under older names, without fields that came later."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    recipe = json.loads((run / "plan.json").read_text())["recipe"]
    del recipe["voices"]
    recipe["stages"][0]["task"]["type"] = "lalia.training.stages.PredictTokens"
    (run / "plan.json").write_text(json.dumps(recipe))
    command = ("train", "gslm", "--tiny", "--data", shards, "-o", run, *options(), "--resume")
    assert lalia(*command).status == 0
    recipe["lms"]["ulm"]["backbone"]["num_layers"] = 1
    (run / "plan.json").write_text(json.dumps(recipe))
    ran = lalia(*command)
    assert ran.status == 2
    assert ran.err == (
        f"error: {run} was started with another lms.ulm.backbone.num_layers. "
        "Give the same settings, or name another folder.\n"
    )


# -- what is refused ----------------------------------------------------------------------------


def refused(lalia: Any, match: str, *arguments: Any, run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.parent.rglob("*") if p.is_file()}
    ran = lalia("train", *arguments, "-o", run)
    assert (ran.status, ran.out) == (2, ""), ran
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert match in ran.err
    assert {p: p.stat().st_mtime_ns for p in run.parent.rglob("*") if p.is_file()} == before


def test_names_with_a_hint(shards: Path, lalia: Any, tmp_path: Path) -> None:
    run, data = tmp_path / "run", ("--data", shards)
    refused(lalia, "There is no recipe 'glsm'. Did you mean 'gslm'?", "glsm", *data, run=run)
    tiny = ("gslm", "--tiny", *data)
    refused(lalia, "'gslm' has no stage 'pretain'. Did you mean 'pretrain'?", *tiny, "--stage", "pretain", run=run)
    for setting, match in (
        ("lms.ulm.backbone.num_layer=2", "has no field 'num_layer'. Did you mean 'num_layers'?"),
        ("lms.ulmm.backbone.num_layers=2", "has no field 'ulmm'. Did you mean 'ulm'?"),
        ("stages.pretain.trainer.max_steps=2", "names no stage of 'gslm'. Name one of pretrain"),
        ("stages.0.trainer.max_steps=many", "is 'many', but must be int"),
        ("stages.0.trainer.max_steps=0", "max_steps is 0. Give at least 1"),
        ("lms.ulm.backbone.num_layers", "has no '='"),
    ):
        refused(lalia, match, *tiny, "--set", setting, run=run)
    assert not list(tmp_path.iterdir())


def test_data_that_cannot_be_learned_from(shards: Path, clip: Path, lalia: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    refused(lalia, "does not exist. Check the path", "gslm", "--tiny", "--data", tmp_path / "no", run=run)
    (tmp_path / "empty").mkdir()
    refused(lalia, "holds no sound files", "gslm", "--tiny", "--data", tmp_path / "empty", run=run)
    (tmp_path / "empty").rmdir()
    refused(lalia, "not the tokenizer of 'gslm'", "gslm", "--data", shards, run=run)
    refused(lalia, "not the tokenizer of 'mini_gslm'", "mini-gslm", "--data", shards, run=run)
    assert not list(tmp_path.iterdir())


def test_data_of_different_tokenizers(
    shards: Path, corpus: Path, lalia: Any, small_encoder: None, tmp_path: Path
) -> None:
    assert lalia("fit-units", corpus, "-o", tmp_path / "units", "--clusters", 50).status == 0
    made = lalia("tokenize", corpus, "-o", tmp_path / "other", "--tokenizer", tmp_path / "units")
    assert made.status == 0, made.err
    with pytest.raises(DataError, match="Tokenize both with the same tokenizer"):
        Material.open([shards, tmp_path / "other"])
    # A tokenizer beside shards that it did not make is noticed too.
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    shutil.rmtree(copy / "tokenizers" / "units")
    shutil.copytree(tmp_path / "other" / "tokenizers" / "units", copy / "tokenizers" / "units")
    with pytest.raises(DataError, match="is not what made the shards"):
        Material.open([copy])


def test_a_stream_that_is_not_there(corpus: Path, tiny: Path, lalia: Any, tmp_path: Path) -> None:
    done = lalia("tokenize", corpus, "-o", tmp_path / "shards", "--tokenizer", tiny, "--stream", "codes")
    assert done.status == 0, done.err
    match = "has no stream 'units', which 'gslm' needs; it has codes. Tokenize with --stream units"
    refused(lalia, match, "gslm", "--tiny", "--data", tmp_path / "shards", run=tmp_path / "run")


def test_folders_in_use(whole: Path, shards: Path, lalia: Any, tmp_path: Path) -> None:
    command = ("gslm", "--tiny", "--data", shards, *options())
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    refused(lalia, "holds a run already. Go on with --resume, or name another folder", *command, run=run)
    match = "was started with another lms.ulm.backbone.num_layers"
    refused(lalia, match, *command, "--set", "lms.ulm.backbone.num_layers=1", "--resume", run=run)
    with FileLock(run / ".lock"):
        refused(lalia, "Another process is training in", *command, "--resume", run=run)
    (run / "plan.json").unlink()
    refused(lalia, "holds a model or a tokenizer. Name a new folder", *command, run=run)
    (run / "recipe.json").unlink()
    refused(lalia, "is not empty. Name a new folder", *command, run=run)
    (tmp_path / "file").touch()
    refused(lalia, "is a file. Name a folder", *command, run=tmp_path / "file")
    refused(lalia, "cannot be made", *command, run=tmp_path / "file" / "run")
    (run / "plan.json").write_text("{")
    refused(lalia, "plan.json cannot be read", *command, "--resume", run=run)


def test_other_data_than_the_run_began_with(whole: Path, shards: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    plan = json.loads((run / "plan.json").read_text())
    plan["tokenizers"]["units"] = "0" * 64
    (run / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(CheckpointError, match=r"another tokenizers\.units"):
        train(find("gslm"), [shards], run, tiny=True, overrides=QUICK, resume=True)


def test_a_failure_before_the_first_checkpoint_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(LaliaError, match=r"Shorten the path|holds nothing|at least"):
        train(
            find("gslm"), [shards], tmp_path / "a" / "run", tiny=True,
            overrides=QUICK | {"stages.pretrain.task.max_tokens": "0"},
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
    with pytest.raises(LaliaError, match="The device 'gpu' cannot be used"):
        train(find("gslm"), [shards], tmp_path / "run", tiny=True, device="gpu")
    assert not list(tmp_path.iterdir())


def test_without_the_recordings_there_is_no_sound_to_learn(shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    (copy / "manifest.jsonl").unlink()
    told: list[str] = []
    train(find("gslm"), [copy], tmp_path / "run", tiny=True, overrides=QUICK, tell=told.append)
    assert any("the vocoder stays silent" in line for line in told)
    with pytest.raises(DataError, match=r"Keep manifest.jsonl beside the shards"):
        train(find("gslm"), [copy], tmp_path / "other", tiny=True, stage="spectrogram")


def test_without_its_tokenizer_a_model_says_that_it_cannot_listen(shards: Path, clip: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    shutil.rmtree(copy / "tokenizers")
    told: list[str] = []
    run = train(_without_vocoder_stages(), [copy], tmp_path / "run", tiny=True, overrides=QUICK, tell=told.append)
    assert any("the model cannot listen" in line for line in told)
    with pytest.raises(CheckpointError, match=r"The tokenizer of stream 'units' is .* was not beside its data"):
        load(run).score(clip)


def test_recipes_that_do_not_fit(shards: Path, tmp_path: Path) -> None:
    recipe = find("gslm")
    with pytest.raises(RecipeError, match="has no stage 'x'"):
        train(recipe, [shards], tmp_path / "run", stage="x")
    with pytest.raises(DataError, match="There are no data"):
        train(recipe, [], tmp_path / "run")
    assert to_dict(recipe) == to_dict(find("gslm"))
