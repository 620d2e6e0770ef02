"""Stages: what is trained, for how long, in which order."""

from dataclasses import dataclass, replace

from torch import nn

from lalia.config import Configuration
from lalia.nn.lora import Lora, LoraLinear, add_lora, merge_lora
from lalia.store import matches
from lalia.training.loop import Trainer
from lalia.training.tasks import PredictTokens, System, Task, TrainPart, TrainVocoder

# Files that the first models were saved in have the tasks here.
__all__ = ["PredictTokens", "TrainPart", "TrainStage", "TrainVocoder"]


_TINY_LM_LEARNING_RATE = 2e-3


@dataclass(frozen=True, kw_only=True)
class TrainStage(Configuration):
    """One stage of training.

    :param task: what is trained.
    :param trainer: for how long, how fast.
    :param train: fnmatch patterns on parameter names (``lms.ulm.*``, ``vocoder.*``); the rest is frozen.
    :param lora: adapters, which are trained in place of the maps that they adapt, and become part of them when the
        stage is over; ``train`` says what else is trained.
    :param data: folders of token shards, where not given on the command line.
    :param init: a trained model that the stage fits to something else, and begins with where no other is given. It is
        run when it is named, and not in a row with the others.
    """

    name: str
    task: Task
    trainer: Trainer.Config
    train: tuple[str, ...] = ("*",)
    data: tuple[str, ...] = ()
    lora: Lora | None = None
    init: str | None = None

    def tiny(self) -> "TrainStage":
        trainer = self.trainer.tiny()
        if isinstance(self.task, PredictTokens):
            # What suits a large model and half a million steps would hardly move a small one in a few hundred.
            rate = max(self.trainer.learning_rate, _TINY_LM_LEARNING_RATE)
            trainer = replace(trainer, learning_rate=rate, schedule="cosine")
        lora = None if self.lora is None else self.lora.tiny()
        return replace(self, task=self.task.tiny(), trainer=trainer, lora=lora)

    def check(self, recipe: str, system: System) -> None:
        """:raises RecipeError: the stage trains what is not there."""
        self.task.check(f"Recipe {recipe!r}, stage {self.name!r}", system)

    def freeze(self, module: nn.Module) -> None:
        """Leave only the parameters of this stage trainable, its adapters among them; those of others are merged.

        :raises ConfigError: there is nothing to adapt.
        """
        merge_lora(module)
        if self.lora is not None:
            add_lora(module, self.lora.patterns, self.lora.rank, self.lora.alpha, self.lora.dropout)
        for name, p in module.named_parameters():
            p.requires_grad_(matches(name, self.train))
        for part in module.modules():
            if isinstance(part, LoraLinear):
                part.requires_grad_(False)
                part.lora_a.requires_grad_(True)
                part.lora_b.requires_grad_(True)
