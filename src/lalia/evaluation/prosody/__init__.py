"""Prosody that is generated: pGSLM's metrics of pitch and durations, and the sentiment that is kept (STSP)."""

from lalia.evaluation.prosody.metrics import Sampled, consistency, correctness, expressiveness
from lalia.evaluation.prosody.sampling import ProsodyStreams, evaluate_prosody
from lalia.evaluation.prosody.sentiment import (
    STSPItem,
    evaluate_stsp,
    read_predictions,
    read_stsp,
    score_stsp,
    sentiment_of,
    write_predictions,
)
from lalia.evaluation.prosody.sentiment_classifiers import SpeechSentiment, TextSentiment

__all__ = [
    "ProsodyStreams",
    "STSPItem",
    "Sampled",
    "SpeechSentiment",
    "TextSentiment",
    "consistency",
    "correctness",
    "evaluate_prosody",
    "evaluate_stsp",
    "expressiveness",
    "read_predictions",
    "read_stsp",
    "score_stsp",
    "sentiment_of",
    "write_predictions",
]
