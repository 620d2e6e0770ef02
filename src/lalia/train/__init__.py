"""Training a recipe: from token shards to a model directory, stage by stage, resumable."""

from lalia.train.material import TOKENIZERS
from lalia.train.run import train

__all__ = ["TOKENIZERS", "train"]
