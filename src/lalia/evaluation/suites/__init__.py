"""Public suites: readers of their files into one form, and scorers of replies by id."""

from lalia.evaluation.suites.air_bench import (
    read_air_bench,
    read_air_bench_replies,
    score_air_chat,
    score_air_foundation,
)
from lalia.evaluation.suites.dynamic_superb import read_dynamic_superb, score_dynamic_superb
from lalia.evaluation.suites.ifeval import score_ifeval
from lalia.evaluation.suites.items import Item, read_keyed
from lalia.evaluation.suites.mmau import read_mmau, read_mmau_replies, score_mmau
from lalia.evaluation.suites.sd_eval import read_sd_eval, score_sd_eval
from lalia.evaluation.suites.superb import METRICS, score_superb
from lalia.evaluation.suites.voicebench import read_voicebench, read_voicebench_replies, score_voicebench
from lalia.evaluation.suites.voxeval import read_voxeval, read_voxeval_replies, score_voxeval, shots_of, spoken_prompt

__all__ = [
    "METRICS",
    "Item",
    "read_air_bench",
    "read_air_bench_replies",
    "read_dynamic_superb",
    "read_keyed",
    "read_mmau",
    "read_mmau_replies",
    "read_sd_eval",
    "read_voicebench",
    "read_voicebench_replies",
    "read_voxeval",
    "read_voxeval_replies",
    "score_air_chat",
    "score_air_foundation",
    "score_dynamic_superb",
    "score_ifeval",
    "score_mmau",
    "score_sd_eval",
    "score_superb",
    "score_voicebench",
    "score_voxeval",
    "shots_of",
    "spoken_prompt",
]
