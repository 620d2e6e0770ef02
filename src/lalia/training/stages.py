"""Stages: what is trained, for how long, in which order."""

from dataclasses import dataclass, replace
from fnmatch import fnmatch

from torch import nn

from lalia.config import Configuration
from lalia.training.loop import Trainer
from lalia.training.tasks import Parts, PredictTokens, Prepared, StageData, Task, TrainPart, TrainVocoder
from lalia.vocoders import Vocoder

__all__ = ["Parts", "PredictTokens", "Prepared", "StageData", "Task", "TrainPart", "TrainStage", "TrainVocoder"]


_TINY_LM_LEARNING_RATE = 2e-3


@dataclass(frozen=True, kw_only=True)
class TrainStage(Configuration):
    """One stage of training.

    :param task: what is trained.
    :param trainer: for how long, how fast.
    :param train: fnmatch patterns on parameter names (``lms.ulm.*``, ``vocoder.*``); the rest is frozen.
    :param data: folders of token shards, where not given on the command line.
    """

    name: str
    task: Task
    trainer: Trainer.Config
    train: tuple[str, ...] = ("*",)
    data: tuple[str, ...] = ()

    def tiny(self) -> "TrainStage":
        trainer = self.trainer.tiny()
        if isinstance(self.task, PredictTokens):
            # What suits a large model and half a million steps would hardly move a small one in a few hundred.
            rate = max(self.trainer.learning_rate, _TINY_LM_LEARNING_RATE)
            trainer = replace(trainer, learning_rate=rate, schedule="cosine")
        return replace(self, task=self.task.tiny(), trainer=trainer)

    def check(self, recipe: str, lms: tuple[str, ...], vocoder: Vocoder.Config | None) -> None:
        """:raises RecipeError: the stage trains what is not there."""
        self.task.check(f"Recipe {recipe!r}, stage {self.name!r}", lms, vocoder)

    def freeze(self, module: nn.Module) -> None:
        """Leave only the parameters of this stage trainable."""
        for name, p in module.named_parameters():
            p.requires_grad_(any(fnmatch(name, pattern) for pattern in self.train))
