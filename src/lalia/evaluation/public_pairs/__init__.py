"""Public sets of minimal pairs in the folders in which they are published: sWUGGY, sBLIMP, StoryCloze and SALMon."""

from lalia.evaluation.public_pairs.cross_modal import Modality, read_cross_modal, read_part
from lalia.evaluation.public_pairs.reading import holds_pairs, read_pairs
from lalia.evaluation.public_pairs.salmon import read_salmon
from lalia.evaluation.public_pairs.story_cloze import find_stories, read_story_cloze
from lalia.evaluation.public_pairs.submission import (
    hand_in,
    read_submission,
    score_submission,
    submission_scores,
    write_submission,
)
from lalia.evaluation.public_pairs.zerospeech import find_golds, frequency_band, read_gold

__all__ = [
    "Modality",
    "find_golds",
    "find_stories",
    "frequency_band",
    "hand_in",
    "holds_pairs",
    "read_cross_modal",
    "read_gold",
    "read_pairs",
    "read_part",
    "read_salmon",
    "read_story_cloze",
    "read_submission",
    "score_submission",
    "submission_scores",
    "write_submission",
]
