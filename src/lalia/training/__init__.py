"""Training: stages, objectives, the loop and checkpoints."""

from lalia.training.codec_task import TrainCodec
from lalia.training.distill_text import DistillText
from lalia.training.interleave import Interleave
from lalia.training.loop import Progress, Trainer
from lalia.training.protocols import Batches, Objective
from lalia.training.stages import TrainStage
from lalia.training.tasks import PredictTokens, Task, TrainPart, TrainVocoder

__all__ = [
    "Batches",
    "DistillText",
    "Interleave",
    "Objective",
    "PredictTokens",
    "Progress",
    "Task",
    "TrainCodec",
    "TrainPart",
    "TrainStage",
    "TrainVocoder",
    "Trainer",
]
