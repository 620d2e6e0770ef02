import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from training_toy import Model, NextToken, Sequences, make, reports

from lalia.errors import CheckpointError, OutputError
from lalia.training import Trainer, checkpoint


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    files = sorted(checkpoint.path_of(run, step).glob("*.safetensors"))
    return {f"{file.stem}/{name}": t for file in files for name, t in load_file(file).items()}


def assert_same(run: Path, other: Path, step: int) -> None:
    ours, theirs = tensors(run, step), tensors(other, step)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


HARD = {"dropout": 0.2, "ema_decay": 0.9, "micro_batches": 2, "eval_every": 4, "log_every": 3}


def test_resuming_after_any_step_is_as_if_never_interrupted(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    make(whole, **HARD, save_every=1, keep_checkpoints=100).fit()
    for step in range(1, 12):
        run = tmp_path / f"from-{step}"
        shutil.copytree(whole, run)
        for later in range(step + 1, 13):
            shutil.rmtree(checkpoint.path_of(run, later))
        result = make(run, **HARD, save_every=1, keep_checkpoints=100).fit(resume=True)
        assert result.step == 12
        assert_same(run, whole, 12)
        assert reports(run) == reports(whole)
        assert reports(run, "validation") == reports(whole, "validation")


def run_toy(run: Path, **settings: Any) -> int:
    program = Path(__file__).parent / "training_toy.py"
    source = Path(__file__).parents[2] / "src"
    command = [sys.executable, str(program), str(run), json.dumps(settings)]
    return subprocess.run(command, check=False, env={"PYTHONPATH": str(source)}, timeout=120).returncode


def test_kill_9_in_a_step_and_in_a_checkpoint(tmp_path: Path) -> None:
    settings = {"save_every": 2, "dropout": 0.2, "ema_decay": 0.9}
    make(tmp_path / "whole", **settings).fit()
    run = tmp_path / "killed"
    assert run_toy(run, **settings, die_at=["losses", 5]) == -signal.SIGKILL
    assert checkpoint.steps(run) == [2, 4]
    assert [row["step"] for row in reports(run)] == [1, 2, 3, 4, 5]
    assert run_toy(run, **settings, die_at=["checkpoint", 8]) == -signal.SIGKILL
    assert checkpoint.steps(run) == [4, 6]
    assert (run / ".checkpoint-000008.part").is_dir()
    make(run, **settings).fit(resume=True)
    assert reports(run) == reports(tmp_path / "whole")
    assert_same(run, tmp_path / "whole", 12)
    assert not list(run.glob(".*"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["parameters.safetensors", "optimizer.model.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: Callable[[Path], None], name: str) -> None:
    make(tmp_path, max_steps=4, save_every=2).fit()
    before = reports(tmp_path)
    damage(checkpoint.path_of(tmp_path, 4) / name)
    with pytest.warns(UserWarning, match="checkpoint-000004 is damaged .* ignored"):
        result = make(tmp_path, max_steps=4, save_every=2).fit(resume=True)
    assert result.step == 4
    assert reports(tmp_path) == before
    assert checkpoint.latest(tmp_path) == 4  # the damaged one was replaced


def test_without_marker_or_with_every_checkpoint_damaged(tmp_path: Path) -> None:
    make(tmp_path, max_steps=4, save_every=2).fit()
    (checkpoint.path_of(tmp_path, 4) / "complete.json").unlink()
    with pytest.warns(UserWarning, match="complete.json is missing"):
        assert checkpoint.latest(tmp_path) == 2
    (checkpoint.path_of(tmp_path, 2) / "complete.json").write_text("[1]")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        make(tmp_path, max_steps=4).fit(resume=True)


def test_max_steps_may_change(tmp_path: Path) -> None:
    make(tmp_path / "short", max_steps=5, schedule="constant").fit()
    make(tmp_path / "short", max_steps=9, schedule="constant").fit(resume=True)
    make(tmp_path / "long", max_steps=9, schedule="constant").fit()
    assert_same(tmp_path / "short", tmp_path / "long", 9)
    done = make(tmp_path / "long", max_steps=3, schedule="constant").fit(resume=True)
    assert (done.step, done.stopped) == (9, "max_steps")


def test_resume_without_a_checkpoint_starts(tmp_path: Path) -> None:
    assert make(tmp_path / "new", max_steps=2).fit(resume=True).step == 2


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path, max_steps=1).fit()
    with pytest.raises(OutputError, match=r"already has checkpoints\. Resume it"):
        make(tmp_path, max_steps=1).fit()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be made"):
        make(tmp_path / "file", max_steps=1).fit()


def resume_with(run: Path, model: nn.Module) -> None:
    Trainer(Trainer.Config(4, tensorboard=False), NextToken(model), Sequences(), run).fit(resume=True)


class Extended(Model):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(2, 2)


def test_another_model_is_refused_by_the_name_that_differs(tmp_path: Path) -> None:
    make(tmp_path, max_steps=2).fit()
    with pytest.raises(CheckpointError, match=r"has no parameter 'model\.extra\.weight'.*Resume with the recipe"):
        resume_with(tmp_path, Extended())
    wider = Model()
    wider.rare = nn.Linear(16, 2)
    with pytest.raises(CheckpointError, match=r"'model\.rare\.weight' of shape \(1, 16\), the model \(2, 16\)"):
        resume_with(tmp_path, wider)
    less = Model()
    del less.dropout, less.rare
    with pytest.raises(CheckpointError, match=r"has a parameter 'model\.rare\.\w+', which the model has not"):
        resume_with(tmp_path, less)
    frozen = Model()
    frozen.embed.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"'model\.embed\.weight' .* is not trained here, but was in"):
        resume_with(tmp_path, frozen)


def test_checkpoints_hold_buffers_and_all_names(tmp_path: Path) -> None:
    trainer = make(tmp_path, max_steps=3, ema_decay=0.5)
    trainer.fit()
    saved = tensors(tmp_path, 3)
    assert saved["parameters/model.seen"] == 3
    names = {name for name, _ in trainer.objective.modules("model")[0].named_parameters()}
    assert {name.removeprefix("average/model.") for name in saved if name.startswith("average/")} == names
    assert {f"optimizer.model/model.{n}/exp_avg" for n in names} <= saved.keys()
    assert json.loads((checkpoint.path_of(tmp_path, 3) / "state.json").read_text())["progress"]["step"] == 3


def test_an_average_may_begin_at_a_resumption(tmp_path: Path) -> None:
    make(tmp_path, max_steps=3).fit()
    trainer = make(tmp_path, max_steps=3, ema_decay=0.5)
    trainer.fit(resume=True)
    assert trainer.learner.average is not None
    for name, value in trainer.learner.average.values.items():
        assert torch.equal(value, trainer.learner.parameters[name])


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    # The learning rate explodes after a while, so the best evaluation is an early one.
    settings = {"learning_rate": 0.3, "warmup_steps": 12, "eval_every": 1, "keep_checkpoints": 2}
    result = make(tmp_path, **settings, max_steps=12, save_every=1).fit()
    assert result.best_step is not None
    assert result.best_step < 10
    assert checkpoint.steps(tmp_path) == [result.best_step, 11, 12]
    curve = {row["step"]: row["loss"] for row in reports(tmp_path, "validation")}
    assert min(curve.values()) == curve[result.best_step] == result.best


def test_a_directory_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def write(text: str, *, fail: bool = False) -> None:
        with checkpoint.write_directory(target) as directory:
            (directory / "file").write_text(text)
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        write("no", fail=True)
    assert not list(tmp_path.iterdir())
    write("first")
    with pytest.raises(RuntimeError):
        write("no", fail=True)
    assert (target / "file").read_text() == "first"
    write("second")
    assert (target / "file").read_text() == "second"
    # A kill between moving the old one away and the new one in: the old one comes back.
    target.rename(tmp_path / ".model.old")
    with pytest.raises(RuntimeError):
        write("no", fail=True)
    assert (target / "file").read_text() == "second"
    (tmp_path / "blocked").write_text("")
    with pytest.raises(OutputError, match="Choose another folder"), checkpoint.write_directory(tmp_path / "blocked/x"):
        pass
