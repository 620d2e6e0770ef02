"""Scorers of downstream tasks: references and predictions by id, to figures with intervals and every item."""

from lalia.evaluation.downstream.accuracy import accuracy
from lalia.evaluation.downstream.choices import read_choice, read_letter, read_yes_no, token_set_match
from lalia.evaluation.downstream.diarization import Turn, diarization, read_rttm
from lalia.evaluation.downstream.error_rates import character_error_rate, phone_error_rate, word_error_rate
from lalia.evaluation.downstream.quality import speech_quality
from lalia.evaluation.downstream.separation import separation, si_sdr
from lalia.evaluation.downstream.slots import read_slots, slot_filling
from lalia.evaluation.downstream.term_detection import term_weighted_value
from lalia.evaluation.downstream.translation import asr_bleu, bleu
from lalia.evaluation.downstream.verification import verification

__all__ = [
    "Turn",
    "accuracy",
    "asr_bleu",
    "bleu",
    "character_error_rate",
    "diarization",
    "phone_error_rate",
    "read_choice",
    "read_letter",
    "read_rttm",
    "read_slots",
    "read_yes_no",
    "separation",
    "si_sdr",
    "slot_filling",
    "speech_quality",
    "term_weighted_value",
    "token_set_match",
    "verification",
    "word_error_rate",
]
