"""Prosody that is generated: pGSLM's metrics of pitch and durations, and the sentiment that is kept (STSP)."""

from lalia.evaluation.prosody.metrics import Sampled, consistency, correctness, expressiveness
from lalia.evaluation.prosody.sampling import (
    KINDS,
    ProsodyStreams,
    Setting,
    level_of,
    prosody_figures,
    sample_prosody,
)
from lalia.evaluation.prosody.sentiment import (
    STSPItem,
    read_stsp,
    score_stsp,
    sentiment_of,
)
from lalia.evaluation.prosody.sentiment_classifiers import SpeechSentiment, TextSentiment, sentiment_classifier

__all__ = [
    "KINDS",
    "ProsodyStreams",
    "STSPItem",
    "Sampled",
    "Setting",
    "SpeechSentiment",
    "TextSentiment",
    "consistency",
    "correctness",
    "expressiveness",
    "level_of",
    "prosody_figures",
    "read_stsp",
    "sample_prosody",
    "score_stsp",
    "sentiment_classifier",
    "sentiment_of",
]
