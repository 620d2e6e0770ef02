"""Training a recipe: from token shards to a model directory, stage by stage, resumable."""

from lalia.train.codec import CodecRun, train_codec
from lalia.train.learning import begun_with, learn, level_of
from lalia.train.material import TOKENIZERS
from lalia.train.run import train

__all__ = ["TOKENIZERS", "CodecRun", "begun_with", "learn", "level_of", "train", "train_codec"]
