"""Training: stages, objectives, the loop and checkpoints."""

from lalia.training.loop import Progress, Trainer
from lalia.training.protocols import Batches, Objective

__all__ = ["Batches", "Objective", "Progress", "Trainer"]
