"""The training loop: the only one, for language models, CTC, preferences, flow matching, codecs and GANs.

It knows nothing of what is trained but two protocols. An ``Objective`` says what is minimised, as sums with
counts; ``Batches`` says on what, as global batches in micro-batches. See ``lalia.training.gradients`` for how any
number of processes, and any split of a batch, give the result of one process with one big batch.

A step depends on the seed, on its number and on what is in a checkpoint, and on nothing else: the random
generators are seeded anew for every step (and rank). So a resumed run needs none of their states, and neither
evaluations nor their absence change what is learned.
"""

import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from lalia.config import Configurable, to_dict
from lalia.errors import ConfigError, DataError, OutputError
from lalia.training import checkpoint
from lalia.training.distributed import is_main, rank, sum_floats, world_size
from lalia.training.gradients import backward, mean_losses, total_counts
from lalia.training.learner import Learner
from lalia.training.metrics import Reporter, Window, measure
from lalia.training.protocols import Batches, Follows, Objective
from lalia.training.runtime import Interrupts, MemoryGuard, evaluating, seed_everything, to_device, train_mode
from lalia.training.schedule import Schedule, learning_rate_scale

__all__ = ["Batches", "Objective", "Progress", "Trainer"]


@dataclass
class Progress:
    """How far a run is; part of its checkpoints, and what ``fit`` returns.

    :param step: updates made, skipped ones included.
    :param skipped: steps without an update because a loss or gradient was not finite.
    :param validation: the last held-out means.
    :param best: the lowest held-out ``best_metric``, at ``best_step``.
    :param stopped: why ``fit`` returned.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    stopped: Literal["max_steps", "max_seconds", "interrupted"] | None = None


class Trainer(Configurable):
    """Trains an objective on batches, in a run directory that holds everything it leaves behind.

    The directory gets ``checkpoint-NNNNNN/`` (see ``lalia.training.checkpoint``), ``metrics.jsonl``,
    ``tensorboard/``, and through ``save_model`` the folders ``best/`` and ``last/``. Parameters stay in the type
    and on the device that they have; float32 is the type to train in. Under torchrun, make the trainer inside
    ``process_group()``: it starts by giving all ranks the parameters of rank 0.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """Settings of a run.

        :param max_steps: updates in all; may be changed when a run is resumed.
        :param learning_rate: peak of the schedule; ``player_learning_rates`` has others for single players.
        :param no_decay: fnmatch patterns of parameter names that weight decay spares, beside vectors and
            embedding tables, which it always spares.
        :param min_lr_ratio: the floor of the schedule, as a part of the peak.
        :param max_grad_norm: total norm that gradients of a player are scaled down to; None to leave them.
        :param precision: ``bf16`` computes in bfloat16 where autocast deems it safe; parameters, gradients and
            optimizer stay as they are.
        :param ema_decay: keep a running average of the parameters, which is what is evaluated and exported.
        :param log_every: steps between reports, whose losses are means over these steps.
        :param eval_every: steps between evaluations on the held-out batches; at the end only when None.
        :param save_every: steps between checkpoints; there is always one at the end.
        :param keep_checkpoints: how many of the last checkpoints remain, beside the best.
        :param best_metric: the term, or ``loss`` for the weighted sum, whose lowest held-out mean is the best.
        :param max_seconds: stop after this time, with a checkpoint; each resumed run has it anew.
        :param max_nonfinite_steps: how many steps in a row may be skipped because a loss or gradient was not
            finite before the run is given up.
        """

        max_steps: int
        _: KW_ONLY
        learning_rate: float = 3e-4
        player_learning_rates: Mapping[str, float] = field(default_factory=dict)
        betas: tuple[float, float] = (0.9, 0.95)
        eps: float = 1e-8
        weight_decay: float = 0.01
        no_decay: tuple[str, ...] = ("*norm*", "*.original0")
        warmup_steps: int = 0
        schedule: Schedule = "cosine"
        min_lr_ratio: float = 0.1
        max_grad_norm: float | None = 1.0
        precision: Literal["fp32", "bf16"] = "fp32"
        ema_decay: float | None = None
        log_every: int = 10
        eval_every: int | None = None
        save_every: int = 1000
        keep_checkpoints: int = 2
        best_metric: str = "loss"
        max_seconds: float | None = None
        max_nonfinite_steps: int = 20
        tensorboard: bool = True
        seed: int = 0

        def tiny(self) -> "Trainer.Config":
            steps = min(self.max_steps, 300)
            often = max(steps // 3, 1)
            return replace(
                self, max_steps=steps, warmup_steps=min(self.warmup_steps, 20), eval_every=often, save_every=often
            )

        def __post_init__(self) -> None:
            for name in ("max_steps", "log_every", "save_every", "keep_checkpoints", "max_nonfinite_steps"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"Trainer.{name} is {getattr(self, name)}. Give at least 1.")
            if self.eval_every is not None and self.eval_every < 1:
                raise ConfigError(f"Trainer.eval_every is {self.eval_every}. Give at least 1, or null.")
            if not 0 <= self.min_lr_ratio <= 1:
                raise ConfigError(f"Trainer.min_lr_ratio is {self.min_lr_ratio}. Give a number from 0 to 1.")
            if self.ema_decay is not None and not 0 < self.ema_decay < 1:
                raise ConfigError(f"Trainer.ema_decay is {self.ema_decay}. Give a number between 0 and 1, or null.")

    def __init__(
        self,
        config: Config,
        objective: Objective,
        batches: Batches,
        run: str | Path,
        *,
        validation: Iterable[Any] | None = None,
        save_model: Callable[[Path], None] | None = None,
    ) -> None:
        """Take the parameters that are trainable now; what is frozen stays frozen.

        :param run: the directory of the run; made when missing.
        :param validation: this rank's held-out micro-batches; iterated from the start at every evaluation.
        :param save_model: fills a directory with the model as it is; what it wrote becomes ``best/`` or ``last/``.
        :raises ConfigError: a player has nothing to train, or a setting names no player.
        """
        self.config = config
        self.objective = objective
        self.batches = batches
        self.run = Path(run)
        self.validation = validation
        self.save_model = save_model
        unknown = set(config.player_learning_rates) - set(objective.players)
        if unknown:
            raise ConfigError(
                f"Trainer.player_learning_rates names {min(unknown)!r}, but the objective has "
                f"{', '.join(objective.players)}. Name one of these."
            )
        self.learner = Learner(
            objective,
            learning_rates=dict.fromkeys(objective.players, config.learning_rate) | dict(config.player_learning_rates),
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            no_decay=config.no_decay,
            ema_decay=config.ema_decay,
        )
        self.device = self.learner.device
        self.progress = Progress()
        self.window = Window()
        self._memory = MemoryGuard()

    # -- the loop -------------------------------------------------------------------------------

    def fit(self, *, resume: bool = False) -> Progress:
        """Train until ``max_steps``, ``max_seconds``, Ctrl-C or SIGTERM; each ends with a checkpoint.

        :param resume: go on from the newest checkpoint of the run, or start where there is none yet.
        :raises OutputError: the run has checkpoints and is not to be resumed.
        :raises CheckpointError: the checkpoint is of another model.
        :raises ConfigError: losses or gradients were not finite too many times in a row.
        :raises KeyboardInterrupt: Ctrl-C, after the checkpoint was written (``SystemExit`` for SIGTERM).
        """
        config = self.config
        started = time.monotonic()
        self._begin(resume)
        progress = self.progress
        progress.stopped = "max_steps" if progress.step >= config.max_steps else None
        reporter = Reporter(
            self.run, progress.step, config.max_steps, tensorboard=config.tensorboard, enabled=is_main()
        )
        with Interrupts() as interrupts, reporter:
            train_mode(self.learner.modules)
            batches = self._endless()
            while progress.stopped is None:
                report = self._train_step(batches)
                progress.step += 1
                reporter.advance(progress.step)
                self._memory.check()

                overtime = config.max_seconds is not None and time.monotonic() - started >= config.max_seconds
                # Any rank may be told to stop; all must stop at the same step.
                interrupted, overtime = map(bool, sum_floats([interrupts.received is not None, overtime], self.device))
                if progress.step >= config.max_steps:
                    progress.stopped = "max_steps"
                elif interrupted or overtime:
                    progress.stopped = "interrupted" if interrupted else "max_seconds"

                if progress.stopped or progress.step % config.log_every == 0:
                    reporter.report(progress.step, "train", self.window.means(self.objective.weights) | report)
                if progress.step % config.log_every == 0:
                    self.window.clear()
                evaluates = config.eval_every is not None and progress.step % config.eval_every == 0
                evaluates = evaluates or progress.stopped in ("max_steps", "max_seconds")
                improved = evaluates and self.validation is not None and self._validate(reporter)
                if progress.stopped or improved or progress.step % config.save_every == 0:
                    self.save()
            self._export("last")
        interrupts.propagate()
        return progress

    def _begin(self, resume: bool) -> None:
        found = 0.0
        if is_main():
            try:
                self.run.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{self.run} cannot be made ({error.strerror}). Choose another folder.") from None
            if not resume and checkpoint.steps(self.run):
                raise OutputError(f"{self.run} already has checkpoints. Resume it, or name another folder.")
            found = float((checkpoint.latest(self.run) if resume else None) or 0)
        # Rank 0 alone decides, so that all go on from the same checkpoint.
        step = int(sum_floats([found], self.device)[0])
        if step:
            self.restore(checkpoint.path_of(self.run, step))

    def _endless(self) -> Iterator[list[Any]]:
        while True:
            empty = True
            for micro_batches in self.batches:
                empty = False
                yield micro_batches
            if empty:
                raise DataError("The training data gave no batch. Give more data, or smaller batches.")

    def _train_step(self, batches: Iterator[list[Any]]) -> dict[str, float]:
        """One turn of every player on one global batch; what to report beside the losses."""
        started = time.perf_counter()
        step = self.objective.step = self.progress.step
        seed_everything(self.config.seed, step, rank())
        micro_batches = next(batches)
        counts = total_counts(self.objective, micro_batches, self.device)
        work = [sum(measure(batch, name) for batch in micro_batches) for name in ("tokens", "seconds")]
        tokens, seconds = sum_floats(work, self.device)
        micro_batches = [to_device(batch, self.device) for batch in micro_batches]

        scale = learning_rate_scale(
            step,
            schedule=self.config.schedule,
            warmup_steps=self.config.warmup_steps,
            max_steps=self.config.max_steps,
            min_ratio=self.config.min_lr_ratio,
        )
        report: dict[str, float] = {}
        sums: dict[str, float] = {}
        finite = True
        for player in self.learner.players:
            with self.learner.turn(player):
                losses, norm = backward(
                    self.objective, player, micro_batches, counts, self._autocast, self.config.max_grad_norm
                )
            sums |= losses
            suffix = f"/{player.name}" if len(self.learner.players) > 1 else ""
            report |= {f"learning_rate{suffix}": player.learning_rate * scale, f"grad_norm{suffix}": norm}
            finite = all(map(math.isfinite, (norm, *losses.values())))
            if not finite:
                break
            player.update(scale)
        if isinstance(self.objective, Follows):
            self.objective.finish_step(updated=finite)

        if finite:
            self.progress.skipped_in_a_row = 0
            self.window.add(sums, counts)
            if self.learner.average is not None:
                self.learner.average.update(step + 1)
        else:
            self._skip(sums)
        self.window.add_work(
            tokens=tokens or max(counts.values(), default=0.0), seconds=seconds, wall=time.perf_counter() - started
        )
        return report | ({"skipped": self.progress.skipped} if self.progress.skipped else {}) | self.window.rates()

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()

    def _skip(self, sums: Mapping[str, float]) -> None:
        self.progress.skipped += 1
        self.progress.skipped_in_a_row += 1
        if self.progress.skipped_in_a_row >= self.config.max_nonfinite_steps:
            guilty = [name for name, value in sums.items() if not math.isfinite(value)] or ["the gradient"]
            raise ConfigError(
                f"{', '.join(guilty)} was not finite in {self.progress.skipped_in_a_row} steps in a row, up to step "
                f"{self.progress.step + 1}. Lower learning_rate or check the data, then resume."
            )

    # -- held-out data --------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """The mean of every term over the held-out batches of all ranks, and ``loss``, their weighted sum.

        With the averaged parameters where there are any, and with the same random numbers every time.
        """
        seed_everything(self.config.seed, "evaluation", rank())
        self.objective.step = self.progress.step
        with evaluating(self.learner.modules), self.learner.averaged():
            return mean_losses(self.objective, self.validation or (), self.device, self._autocast)

    def _validate(self, reporter: Reporter) -> bool:
        """Evaluate and report; whether this is the best so far, which is then exported."""
        progress, metric = self.progress, self.config.best_metric
        means = progress.validation = self.evaluate()
        if not means:
            raise DataError("The validation data gave nothing to measure. Give more of it, or none.")
        if metric not in means:
            raise ConfigError(f"Trainer.best_metric is {metric!r}, but evaluation gives {', '.join(means)}. Name one.")
        reporter.report(progress.step, "validation", means)
        if not math.isfinite(means[metric]) or (progress.best is not None and means[metric] >= progress.best):
            return False
        progress.best, progress.best_step = means[metric], progress.step
        self._export("best")
        return True

    def _export(self, name: str) -> None:
        if self.save_model is not None and is_main():
            with self.learner.averaged(), checkpoint.write_directory(self.run / name) as directory:
                self.save_model(directory)

    # -- checkpoints ----------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of the present step, and delete those that need not be kept."""
        if not is_main():
            return
        state = {
            "progress": asdict(self.progress),
            "data": self.batches.state_dict(),
            "window": self.window.state_dict(),
            "trained": self.learner.trained(),
            "config": to_dict(self.config),
            "world_size": world_size(),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        step = self.progress.step
        checkpoint.save(self.run, step, self.learner.state(), state)
        checkpoint.prune(self.run, self.config.keep_checkpoints, newest=step, best=self.progress.best_step)

    def restore(self, path: Path) -> None:
        """Take over everything from a checkpoint: parameters, optimizers, average, data position, progress.

        :raises CheckpointError: it cannot be read, or the model or its trainable parameters are others.
        """
        tensors, state = checkpoint.load(path)
        self.learner.restore(tensors, state["trained"], path)
        self.batches.load_state_dict(state["data"])
        self.window.load_state_dict(state["window"])
        self.progress = Progress(**state["progress"])
