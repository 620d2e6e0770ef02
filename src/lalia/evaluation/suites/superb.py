"""SUPERB (Yang et al., arXiv:2105.01051; SUPERB-SG, arXiv:2203.06849): its tasks, and the metric of each.

What s3prl (ec8064b) writes of each task can be read by `read_keyed` (``*_predict.txt``, ``*_truth.txt``, ``*-hyp.ark``,
``*-ref.ark``) and `read_rttm`. Speaker diarization there is the lowest DER over ten thresholds and medians, picked on
the test set; nothing is picked here.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from lalia.errors import ConfigError
from lalia.evaluation.downstream import (
    accuracy,
    bleu,
    diarization,
    phone_error_rate,
    read_slots,
    separation,
    slot_filling,
    speech_quality,
    term_weighted_value,
    verification,
    word_error_rate,
)
from lalia.evaluation.scored import Scored
from lalia.evaluation.text import Verbatim

__all__ = ["METRICS", "SuperbTask", "score_superb"]

SuperbTask = Literal["PR", "ASR", "KS", "IC", "SID", "ER", "ASV", "SD", "SF", "QbE", "ST", "SE", "SS"]

METRICS: Mapping[SuperbTask, tuple[str, ...]] = {
    "PR": ("per",),
    "ASR": ("wer",),
    "KS": ("accuracy",),
    "IC": ("accuracy",),
    "SID": ("accuracy",),
    "ER": ("accuracy_over_folds",),
    "ASV": ("eer",),
    "SD": ("der",),
    "SF": ("slot_type_f1", "slot_value_cer"),
    "QbE": ("mtwv",),
    "ST": ("bleu",),
    "SE": ("pesq_wb", "stoi"),
    "SS": ("si_sdri",),
}
"""The figures that SUPERB reports, phoneme recognition to source separation."""


def score_superb(
    task: SuperbTask, references: Mapping[str, Any], predictions: Mapping[str, Any], **more: Any
) -> Scored:
    """The figures of a task, those of `METRICS` first, from references and predictions by id.

    :param references: texts (PR, ASR, ST), labels or, for IC, tuples of them (KS, IC, SID, ER), whether a trial is a
        target (ASV), turns (SD), texts with slots (SF), places of each query (QbE), recordings (SE), sources [S, N]
        (SS).
    :param predictions: the like; scores of trials for ASV, and of queries and places for QbE.
    :param more: what the task needs besides: ``folds`` (ER), ``seconds`` (QbE), ``mixtures`` (SS); and settings of its
        scorer.
    :raises ConfigError: an unknown task.
    :raises DataError: what the scorer of the task says.
    """
    match task:
        case "PR":
            return phone_error_rate(references, predictions, **more)
        case "ASR":
            # LibriSpeech is in capitals without punctuation, and so is what s3prl predicts.
            return word_error_rate(references, predictions, **{"normalizer": Verbatim(), **more})
        case "KS" | "IC" | "SID":
            return accuracy(references, predictions, **more)
        case "ER":
            if "folds" not in more:
                raise ConfigError("Emotion recognition is cross-validated over five folds. Give folds.")
            return accuracy(references, predictions, **more)
        case "ASV":
            return verification(references, predictions, **more)
        case "SD":
            return diarization(references, predictions, **more)
        case "SF":
            said = {key: read_slots(text) for key, text in references.items()}
            heard = {key: None if text is None else read_slots(text) for key, text in predictions.items()}
            return slot_filling(said, heard, **more)
        case "QbE":
            return term_weighted_value(references, predictions, **{"normalize": "z", "threshold": 2.0, **more})
        case "ST":
            return bleu(references, predictions, **more)
        case "SE":
            return speech_quality(references, predictions, **more)
        case "SS":
            return separation(references, estimates=predictions, **more)
    raise ConfigError(f"There is no task {task!r} in SUPERB. There are {', '.join(get_args(SuperbTask))}.")
