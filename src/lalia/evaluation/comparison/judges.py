"""What judges all models that are compared: loaded where something is to be judged, and once."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lalia.errors import LaliaError
from lalia.evaluation.asr import Whisper
from lalia.evaluation.generation.quality import DNSMOSRating, MOSPredictor
from lalia.evaluation.generation.resemblyzer import Resemblyzer
from lalia.evaluation.generation.speakers import SpeakerEncoder
from lalia.evaluation.memory import Remembered
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.text import Normalizer, WhisperEnglish
from lalia.evaluation.text_lm import CausalLM, TextLM

__all__ = ["Judges"]


@dataclass
class Judges:
    """Recognisers, a text LM, a predictor of ratings and an ear for voices.

    :param folder: where transcripts are kept.
    """

    folder: Path
    judge_weights: str = "whisper-base"
    second_weights: str = "whisper-tiny.en"
    text_lm_weights: str = "smollm2-135m-instruct"
    notes: dict[str, str] = field(default_factory=dict)
    """Why a judge is not there."""

    @cached_property
    def judge(self) -> Recognizer:
        """Hears what models say."""
        return Remembered(Whisper(self.judge_weights), self.folder)

    @cached_property
    def second(self) -> Recognizer:
        """Hears originals, as a second opinion."""
        return Remembered(Whisper(self.second_weights), self.folder)

    @cached_property
    def normalizer(self) -> Normalizer:
        return WhisperEnglish()

    @cached_property
    def text_lm(self) -> TextLM | None:
        """Reads what was heard; None where it cannot be had."""
        found: TextLM | None = self._or_none("text LM", lambda: CausalLM(self.text_lm_weights))
        return found

    @cached_property
    def rater(self) -> MOSPredictor | None:
        """Rates sound; None where it cannot be had."""
        found: MOSPredictor | None = self._or_none("DNSMOS", DNSMOSRating)
        return found

    @cached_property
    def voices(self) -> SpeakerEncoder | None:
        """Tells voices apart; None where it cannot be had."""
        found: SpeakerEncoder | None = self._or_none("speaker similarity", Resemblyzer)
        return found

    def _or_none(self, name: str, make: Any) -> Any:
        try:
            return make()
        except LaliaError as error:
            self.notes[name] = str(error)
            return None
