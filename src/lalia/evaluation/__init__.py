"""Evaluation: a benchmark asks a model for a capability, and leaves a file from which its figures can be checked."""

from lalia.evaluation.asr import Whisper
from lalia.evaluation.memory import Remembered
from lalia.evaluation.pair_scores import score_pairs
from lalia.evaluation.pairs import Pair, load_pairs, save_pairs
from lalia.evaluation.protocols import Aligner, HasLikelihood, Likelihood, Recognizer
from lalia.evaluation.results import save_result
from lalia.evaluation.resynthesis import evaluate_resynthesis
from lalia.evaluation.speech_pairs import make_speech_pairs
from lalia.evaluation.splicing import reordered_words, reversed_audio
from lalia.evaluation.statistics import Estimate, bootstrap_ratio
from lalia.evaluation.text import Basic, Edits, Normalizer, WhisperEnglish, character_edits, word_edits

__all__ = [
    "Aligner",
    "Basic",
    "Edits",
    "Estimate",
    "HasLikelihood",
    "Likelihood",
    "Normalizer",
    "Pair",
    "Recognizer",
    "Remembered",
    "Whisper",
    "WhisperEnglish",
    "bootstrap_ratio",
    "character_edits",
    "evaluate_resynthesis",
    "load_pairs",
    "make_speech_pairs",
    "reordered_words",
    "reversed_audio",
    "save_pairs",
    "save_result",
    "score_pairs",
    "word_edits",
]
