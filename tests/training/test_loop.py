import copy
import math
import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from training_toy import Model, NextToken, Sequences, held_out, make, reports

from lalia.audio import Audio
from lalia.config import from_dict
from lalia.errors import ConfigError, DataError
from lalia.training import Trainer, checkpoint
from lalia.training.optimizer import adamw
from lalia.training.runtime import to_device
from lalia.training.schedule import learning_rate_scale


def parameters(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.learner.parameters.items()}


def model_of(trainer: Trainer) -> nn.Module:
    return trainer.objective.modules("model")[0]


# -- against loops written out by hand --------------------------------------------------------------


def test_one_player_is_the_textbook_loop(tmp_path: Path) -> None:
    trainer = make(tmp_path, max_steps=12, weight_decay=0.1, max_grad_norm=0.5)
    model = copy.deepcopy(model_of(trainer))
    trainer.fit()

    vectors = [p for name, p in model.named_parameters() if p.ndim < 2 or name == "embed.weight"]
    matrices = [p for name, p in model.named_parameters() if not (p.ndim < 2 or name == "embed.weight")]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    objective, source = NextToken(model), Sequences()
    losses = []
    for step in range(12):
        (batch,) = source.batch(step)
        sums, counts = objective.losses("model", batch), objective.counts(batch)
        loss = sums["next"] / counts["next"]
        if "length" in sums:
            loss = loss + 0.5 * sums["length"] / counts["length"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scale = learning_rate_scale(step, schedule="cosine", warmup_steps=3, max_steps=12, min_ratio=0.1)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * scale
        optimizer.step()
        losses.append(loss.item())

    assert [row["loss"] for row in reports(tmp_path)] == pytest.approx(losses, rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(trainer.learner.parameters[f"model.{name}"], p, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("micro_batches", [2, 4, 8])
def test_accumulation_gives_what_one_big_batch_gives(tmp_path: Path, micro_batches: int) -> None:
    whole = make(tmp_path / "whole", eps=1e-4)
    parts = make(tmp_path / "parts", eps=1e-4, micro_batches=micro_batches)
    whole.fit()
    parts.fit()
    for a, b in zip(reports(tmp_path / "whole"), reports(tmp_path / "parts"), strict=True):
        assert a == pytest.approx(b, abs=1e-6, rel=1e-6)
    for name, p in whole.learner.parameters.items():
        torch.testing.assert_close(parts.learner.parameters[name], p, atol=1e-6, rtol=1e-6)


class Duel:
    """A least-squares GAN on points of a line; ``reuse`` keeps what the discriminator's turn generated."""

    players = ("discriminator", "generator")

    def __init__(self, *, reuse: bool = True) -> None:
        torch.manual_seed(1)
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        self.discriminator = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.weights = {"discriminator": 1.0, "adversarial": 1.0, "near": 0.5}
        self.step = 0
        self.reuse = reuse
        self.reused = 0
        self._made: tuple[Any, Tensor] | None = None

    def modules(self, player: str) -> list[nn.Module]:
        return [self.discriminator if player == "discriminator" else self.generator]

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(self.weights, float(len(batch["noise"])))

    def losses(self, player: str, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert all(p.requires_grad == (player == "discriminator") for p in self.discriminator.parameters())
        assert all(p.requires_grad for p in self.generator.parameters())
        if player == "discriminator":
            made = self.generator(batch["noise"])
            self._made = (batch, made) if self.reuse else None
            wrong = self.discriminator(made.detach()).square().sum()
            return {"discriminator": wrong + (self.discriminator(batch["real"]) - 1).square().sum()}
        if self._made is not None and self._made[0] is batch:
            made, self.reused = self._made[1], self.reused + 1
        else:
            made = self.generator(batch["noise"])
        return {
            "adversarial": (self.discriminator(made) - 1).square().sum(),
            "near": (made.mean(0) - batch["real"].mean(0)).square().sum() * len(made),
        }


class Points:
    position = 0

    def __iter__(self) -> Iterator[list[Any]]:
        while True:
            self.position += 1
            yield [self.batch(self.position - 1)]

    def batch(self, position: int) -> dict[str, Tensor]:
        chance = torch.Generator().manual_seed(position)
        real = 2 + torch.randn(16, 1, generator=chance)
        return {"noise": torch.randn(16, 2, generator=chance), "real": real}

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.position = state["position"]


DUEL = {"player_learning_rates": {"discriminator": 0.02}, "learning_rate": 0.01, "schedule": "constant"}
DUEL |= {"tensorboard": False, "log_every": 1, "weight_decay": 0.0, "save_every": 5}


def test_two_players_take_turns_on_each_batch(tmp_path: Path) -> None:
    objective = Duel()
    hand = copy.deepcopy(objective)
    Trainer(Trainer.Config(20, **DUEL), objective, Points(), tmp_path).fit()
    assert objective.reused == 20

    rates = {"discriminator": 0.02, "generator": 0.01}
    optimizers = {
        name: torch.optim.AdamW(hand.modules(name)[0].parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
        for name, rate in rates.items()
    }
    for step in range(20):
        batch = Points().batch(step)
        made = hand.generator(batch["noise"])
        scores, real = hand.discriminator(made.detach()), hand.discriminator(batch["real"])
        optimizers["discriminator"].zero_grad()
        (scores.square() + (real - 1).square()).mean().backward()
        nn.utils.clip_grad_norm_(hand.discriminator.parameters(), 1.0)
        optimizers["discriminator"].step()
        loss = (hand.discriminator(made) - 1).square().mean() + 0.5 * (made.mean(0) - batch["real"].mean(0)).square()
        optimizers["generator"].zero_grad()
        loss.sum().backward()
        nn.utils.clip_grad_norm_(hand.generator.parameters(), 1.0)
        optimizers["generator"].step()
    for name in hand.players:
        for ours, theirs in zip(*(d.modules(name)[0].parameters() for d in (objective, hand)), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    last = reports(tmp_path)[-1]
    assert (last["learning_rate/discriminator"], last["learning_rate/generator"]) == (0.02, 0.01)
    assert last["loss"] == pytest.approx(last["discriminator"] + last["adversarial"] + 0.5 * last["near"])


def test_a_duel_resumes_and_need_not_reuse(tmp_path: Path) -> None:
    whole, again = Duel(), Duel(reuse=False)
    Trainer(Trainer.Config(10, **DUEL), whole, Points(), tmp_path / "whole").fit()
    Trainer(Trainer.Config(5, **DUEL), Duel(), Points(), tmp_path / "parts").fit()
    Trainer(Trainer.Config(10, **DUEL), again, Points(), tmp_path / "parts").fit(resume=True)
    assert reports(tmp_path / "parts") == reports(tmp_path / "whole")


class LateDuel(Duel):
    """The discriminator joins at step 3."""

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        names = self.weights if self.step >= 3 else ("near",)
        return dict.fromkeys(names, float(len(batch["noise"])))

    def losses(self, player: str, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        losses = super().losses(player, batch)
        return {name: loss for name, loss in losses.items() if name == "near" or self.step >= 3}


def test_a_player_may_sit_out(tmp_path: Path) -> None:
    settings = {**DUEL, "weight_decay": 0.5, "save_every": 1, "keep_checkpoints": 9}
    Trainer(Trainer.Config(5, **settings), LateDuel(), Points(), tmp_path).fit()
    start = dict(LateDuel().discriminator.named_parameters())
    for step in range(1, 6):
        values = checkpoint.load(checkpoint.path_of(tmp_path, step))[0]["parameters"]
        still = [torch.equal(values[f"discriminator.{name}"], p) for name, p in start.items()]
        assert still == [step <= 3] * 4
    assert [sorted(row.keys() & {"near", "adversarial"}) for row in reports(tmp_path)] == [["near"]] * 3 + [
        ["adversarial", "near"]
    ] * 2


# -- what is trained, and how ------------------------------------------------------------------------


def test_weight_decay_spares_vectors_embeddings_and_patterns() -> None:
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(5, 4),
            "attention_norm": nn.ParameterList([torch.ones(2, 2)]),
            "layers": nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv1d(4, 4, 3)),
            "tied": nn.Linear(4, 5, bias=False),
        }
    )
    model["tied"].weight = model["table"].weight
    named = dict(model.named_parameters())
    optimizer = adamw(
        named,
        [model],
        learning_rate=1.0,
        betas=(0.9, 0.9),
        eps=1e-8,
        weight_decay=0.3,
        no_decay=("*norm*",),
    )
    by_id = {id(p): name for name, p in named.items()}
    decay = {by_id[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay.keys() == named.keys()
    assert {name for name, value in decay.items() if value} == {"layers.0.weight", "layers.2.weight"}


def test_frozen_parameters_stay_and_their_modules_keep_still(tmp_path: Path) -> None:
    class Encoded(Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(0.5)).requires_grad_(False)

        def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
            features = self.encoder(self.embed(codes).transpose(1, 2)).transpose(1, 2)
            hidden = self.rnn(features)[0]
            return self.out(self.dropout(hidden)), self.rare(hidden)

    model = Encoded()
    model.embed.requires_grad_(False)
    modes = []
    model.rnn.register_forward_hook(
        lambda *_: modes.append((model.dropout.training, model.encoder[0].training, model.encoder[1].training))
    )
    before = copy.deepcopy(model.state_dict())
    trainer = Trainer(Trainer.Config(3, tensorboard=False, eval_every=1), NextToken(model), Sequences(), tmp_path)
    trainer.fit()
    after = model.state_dict()
    same = {name for name, value in before.items() if torch.equal(after[name], value)}
    frozen = {name for name in before if name.startswith(("encoder.", "embed."))}
    # The norm is not used at all here: without a gradient, not even weight decay moves it.
    assert same == frozen | {"norm.weight", "norm.bias", "seen"}
    assert set(modes) == {(True, False, False)}
    with pytest.raises(ConfigError, match="'model' has no trainable parameter"):
        Trainer(Trainer.Config(3), NextToken(model.requires_grad_(False)), Sequences(), tmp_path)


def test_average_is_what_is_evaluated_and_exported(tmp_path: Path) -> None:
    exported = {}
    trainer = make(tmp_path, max_steps=1)

    def save_model(directory: Path) -> None:
        exported[directory.name.split(".")[1]] = copy.deepcopy(model_of(trainer).state_dict())
        (directory / "model").write_text("weights")

    trainer = make(tmp_path, max_steps=6, ema_decay=0.3, save_every=1, keep_checkpoints=9)
    trainer.save_model = save_model
    average = parameters(trainer)
    trainer.fit()
    for step in range(1, 7):
        values = checkpoint.load(checkpoint.path_of(tmp_path, step))[0]["parameters"]
        decay = min(0.3, step / (step + 9))
        average = {name: decay * value + (1 - decay) * values[name] for name, value in average.items()}
    own = parameters(trainer)
    for name, value in average.items():
        torch.testing.assert_close(exported["last"][name.removeprefix("model.")], value)
        assert not torch.equal(own[name], value)
    assert exported["best"].keys() == exported["last"].keys()
    assert (tmp_path / "last" / "model").read_text() == (tmp_path / "best" / "model").read_text() == "weights"
    model_of(trainer).load_state_dict(exported["last"])
    trainer.learner.average = None
    assert trainer.evaluate() == trainer.progress.validation


def test_bf16_computes_in_bfloat16_and_keeps_float32(tmp_path: Path) -> None:
    seen = set()
    trainer = make(tmp_path / "bf16", precision="bf16", eval_every=6)
    model_of(trainer).out.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    trainer.fit()
    make(tmp_path / "fp32").fit()
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in trainer.learner.parameters.values()} == {torch.float32}
    ours, theirs = ([row["loss"] for row in reports(tmp_path / name)] for name in ("bf16", "fp32"))
    assert ours == pytest.approx(theirs, rel=0.03)
    assert ours != theirs


# -- evaluation and reports --------------------------------------------------------------------------


def test_evaluation_is_the_mean_without_dropout_and_changes_nothing(tmp_path: Path) -> None:
    often = make(tmp_path / "often", dropout=0.5, eval_every=1)
    modes = []
    model_of(often).out.register_forward_hook(
        lambda module, *_: modes.append((module.training, torch.is_grad_enabled()))
    )
    often.fit()
    rarely = make(tmp_path / "rarely", dropout=0.5)
    rarely.fit()
    assert reports(tmp_path / "often") == reports(tmp_path / "rarely")
    assert modes == [(True, True), (False, False), (False, False)] * 12

    model = model_of(rarely).eval()
    objective = NextToken(model)
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for batch in held_out():
        for name, value in objective.losses("model", batch).items():
            sums[name] = sums.get(name, 0.0) + value.item()
        for name, value in objective.counts(batch).items():
            counts[name] = counts.get(name, 0.0) + value
    means = {name: sums[name] / counts[name] for name in sums}
    expected = {"loss": means["next"] + 0.5 * means["length"], **means}
    assert rarely.progress.validation == pytest.approx(expected, rel=1e-5)


def test_reports_are_means_per_token_over_their_steps(tmp_path: Path) -> None:
    make(tmp_path / "each").fit()
    make(tmp_path / "four", log_every=4).fit()
    tokens = [NextToken(Model()).counts(Sequences().batch(step)[0])["next"] for step in range(12)]
    each = [row["next"] for row in reports(tmp_path / "each")]
    four = reports(tmp_path / "four")
    assert [row["step"] for row in four] == [4, 8, 12]
    for i, row in enumerate(four):
        steps = range(4 * i, 4 * i + 4)
        mean = sum(tokens[s] * each[s] for s in steps) / sum(tokens[s] for s in steps)
        assert row["next"] == pytest.approx(mean)
    rates = (tmp_path / "four" / "metrics.jsonl").read_text()
    assert rates.count("speech_hours_per_second") == rates.count("tokens_per_second") == 3


def test_plain_lines_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, max_steps=2).fit()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("step 1/2  loss ")
    assert all(word in lines[0] for word in ("lr 3.33e-03", "grad_norm", "tokens/s", "speech-hours/s"))
    assert lines[-1].startswith("step 2/2  validation  loss ")


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    make(tmp_path / "with", max_steps=1, tensorboard=True).fit()
    assert list((tmp_path / "with" / "tensorboard").glob("events.*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.warns(UserWarning, match="tensorboard is not installed"):
        assert make(tmp_path / "without", max_steps=1, tensorboard=True).fit().step == 1


# -- ends, good and bad --------------------------------------------------------------------------------


class Poisoned(NextToken):
    """Gives a loss that is not finite at the given steps."""

    def __init__(self, model: nn.Module, steps: set[int], value: float, *, constant: bool = False) -> None:
        super().__init__(model)
        self.bad, self.value, self.constant = steps, value, constant

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        losses = super().losses(player, batch)
        if self.step in self.bad:
            # An infinite constant leaves all gradients finite.
            losses["next"] = losses["next"] + self.value if self.constant else losses["next"] * self.value
        return losses


@pytest.mark.parametrize(("value", "constant"), [(math.nan, False), (math.inf, False), (math.inf, True)])
def test_steps_that_are_not_finite_are_skipped(tmp_path: Path, value: float, constant: bool) -> None:
    objective = Poisoned(Model(), {2, 3, 5}, value, constant=constant)
    config = Trainer.Config(8, tensorboard=False, log_every=1, save_every=1, keep_checkpoints=9, max_nonfinite_steps=3)
    result = Trainer(config, objective, Sequences(), tmp_path).fit()
    assert (result.step, result.skipped, result.skipped_in_a_row) == (8, 3, 0)
    saved = [checkpoint.load(checkpoint.path_of(tmp_path, step))[0] for step in range(1, 9)]
    del_seen = [{k: v for k, v in s["parameters"].items() if k != "model.seen"} for s in saved]
    for step in range(1, 8):
        same = all(torch.equal(del_seen[step][name], value) for name, value in del_seen[step - 1].items())
        assert same == (step in {2, 3, 5})
    rows = reports(tmp_path)
    assert ["loss" in row for row in rows] == [True, True, False, False, True, False, True, True]
    assert rows[-1]["skipped"] == 3


def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    objective = Poisoned(Model(), {4, 5, 6}, math.nan)
    config = Trainer.Config(8, tensorboard=False, save_every=2, max_nonfinite_steps=3)
    with pytest.raises(ConfigError, match=r"next was not finite in 3 steps in a row, up to step 7\. Lower"):
        Trainer(config, objective, Sequences(), tmp_path).fit()
    assert checkpoint.steps(tmp_path) == [4, 6]


def test_time_box_stops_with_a_checkpoint(tmp_path: Path) -> None:
    result = make(tmp_path, max_steps=10**9, max_seconds=0.05).fit()
    assert result.stopped == "max_seconds"
    assert checkpoint.steps(tmp_path) == [result.step]
    assert result.best_step == result.step
    assert make(tmp_path, max_steps=result.step + 2).fit(resume=True).step == result.step + 2


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_the_step_and_saves(tmp_path: Path, number: signal.Signals, raised: type[BaseException]) -> None:
    make(tmp_path / "whole", max_steps=8, log_every=3).fit()
    trainer = make(tmp_path / "run", max_steps=8, log_every=3)
    losses = trainer.objective.losses

    def interrupted(player: str, batch: Any) -> dict[str, Tensor]:
        if trainer.objective.step == 4:
            os.kill(os.getpid(), number)
        return losses(player, batch)

    trainer.objective.losses = interrupted  # type: ignore[method-assign]
    before = signal.getsignal(number)
    with pytest.raises(raised) as error:
        trainer.fit()
    assert signal.getsignal(number) is before
    assert number == signal.SIGINT or error.value.code == 143
    assert trainer.progress.stopped == "interrupted"
    assert checkpoint.steps(tmp_path / "run") == [5]
    make(tmp_path / "run", max_steps=8, log_every=3).fit(resume=True)
    kept = [row for row in reports(tmp_path / "run") if row["step"] != 5]
    assert kept == reports(tmp_path / "whole")


class Fixed:
    """A source of ready batches, once through per epoch."""

    def __init__(self, batches: list[list[Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.batches)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        assert state == {}


def test_data_ends_and_begins_again_or_is_missing(tmp_path: Path) -> None:
    config = Trainer.Config(5, tensorboard=False)
    once = [Sequences().batch(position) for position in range(2)]
    assert Trainer(config, NextToken(Model()), Fixed(once), tmp_path / "a").fit().step == 5
    with pytest.raises(DataError, match="gave no batch"):
        Trainer(config, NextToken(Model()), Fixed([]), tmp_path / "b").fit()
    with pytest.raises(DataError, match="validation data gave nothing"):
        Trainer(config, NextToken(Model()), Fixed(once), tmp_path / "c", validation=[]).fit()


def test_mistakes_are_named(tmp_path: Path) -> None:
    objective = NextToken(Model())
    objective.weights = {"nxt": 1.0}
    with pytest.raises(ConfigError, match=r"has a term 'next', but its weights name nxt\."):
        Trainer(Trainer.Config(1, tensorboard=False), objective, Sequences(), tmp_path / "a").fit()
    with pytest.raises(ConfigError, match=r"player_learning_rates names 'critic', but the objective has model"):
        make(tmp_path / "b", player_learning_rates={"critic": 0.1})
    with pytest.raises(ConfigError, match=r"best_metric is 'wer', but evaluation gives loss, length, next"):
        make(tmp_path / "c", max_steps=1, best_metric="wer").fit()
    for field, value in {"max_steps": 0, "eval_every": 0, "min_lr_ratio": 2.0, "ema_decay": 1.0}.items():
        with pytest.raises(ConfigError, match=f"Trainer.{field} is {value}"):
            Trainer.Config(**{"max_steps": 1, field: value})


def test_config_survives_writing() -> None:
    config = Trainer.Config(5, player_learning_rates={"generator": 1e-4}, schedule="linear", ema_decay=0.99)
    data = config.to_dict()
    assert data["type"] == "lalia.training.Trainer"
    assert from_dict(data) == config


def test_batches_move_whole() -> None:
    class Pair(NamedTuple):
        a: Tensor
        b: str

    @dataclass(frozen=True)
    class Record:
        x: Tensor
        audio: Audio
        name: str

    meta = torch.device("meta")
    record = Record(torch.ones(2), Audio(torch.zeros(8), 16000), "n")
    moved = to_device({"r": [record], "p": Pair(torch.ones(1), "b"), "n": None, "t": (1, torch.ones(1))}, meta)
    assert isinstance(moved["p"], Pair)
    assert isinstance(moved["r"][0], Record)
    assert moved["r"][0].audio.sample_rate == 16000
    tensors = [moved["p"].a, moved["r"][0].x, moved["r"][0].audio.samples, moved["r"][0].audio.lengths, moved["t"][1]]
    assert {t.device for t in tensors} == {meta}
    assert (moved["p"].b, moved["n"], moved["t"][0]) == ("b", None, 1)
    assert to_device(OrderedDict(a=torch.ones(1)), torch.device("cpu"))["a"] == 1
