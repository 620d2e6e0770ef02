"""Public sets of minimal pairs in the folders in which they are published: sWUGGY, sBLIMP, StoryCloze and SALMon."""

from lalia.evaluation.public_pairs.cross_modal import read_cross_modal, score_cross_modal
from lalia.evaluation.public_pairs.reading import holds_pairs, read_pairs
from lalia.evaluation.public_pairs.salmon import read_salmon
from lalia.evaluation.public_pairs.story_cloze import read_story_cloze
from lalia.evaluation.public_pairs.submission import (
    read_submission,
    score_submission,
    submission_scores,
    write_submission,
)
from lalia.evaluation.public_pairs.zerospeech import frequency_band, read_gold

__all__ = [
    "frequency_band",
    "holds_pairs",
    "read_cross_modal",
    "read_gold",
    "read_pairs",
    "read_salmon",
    "read_story_cloze",
    "read_submission",
    "score_cross_modal",
    "score_submission",
    "submission_scores",
    "write_submission",
]
