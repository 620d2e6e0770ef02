"""Training a recipe: from token shards to a model directory, stage by stage, resumable."""

from lalia.train.codec import CodecRun, train_codec
from lalia.train.material import TOKENIZERS
from lalia.train.run import train

__all__ = ["TOKENIZERS", "CodecRun", "train", "train_codec"]
