"""Benchmarks of models that hear, answer and speak: what ``lalia eval`` runs."""

from lalia.evaluation.benchmarks.base import Benchmark, Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import Question, questions, recordings, sentences
from lalia.evaluation.benchmarks.conversing import listened
from lalia.evaluation.benchmarks.evaluating import evaluate
from lalia.evaluation.benchmarks.judges import Judges
from lalia.evaluation.benchmarks.registry import BENCHMARKS, OF_FILES, find, goals
from lalia.evaluation.benchmarks.report import table

__all__ = [
    "BENCHMARKS",
    "OF_FILES",
    "Bench",
    "Benchmark",
    "Figure",
    "Found",
    "Judges",
    "Question",
    "evaluate",
    "find",
    "goals",
    "listened",
    "questions",
    "recordings",
    "sentences",
    "table",
]
