"""The tools that judge what models say: loaded where something is to be judged, and once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lalia.evaluation.asr import Whisper
from lalia.evaluation.dnsmos import DNSMOS
from lalia.evaluation.generation.speakers import SpeakerEncoder
from lalia.evaluation.memory import Listener, Remembered
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.text import Normalizer, WhisperEnglish
from lalia.evaluation.text_lm import CausalLM, TextLM

__all__ = ["Judges"]


@dataclass
class Judges:
    """Recognisers, a text LM, a predictor of ratings and an ear for voices, for one model or for several.

    :param folder: where transcripts are kept; nowhere when not given.
    :param hear: makes the ears of the cascade that models of speech are compared with; ``recognizer`` when not given.
    """

    folder: Path | None = None
    judge_weights: str = "whisper-base"
    recognizer_weights: str = "whisper-tiny.en"
    text_lm_weights: str = "smollm2-135m-instruct"
    hear: Callable[[], Recognizer] | None = None

    @cached_property
    def judge(self) -> Listener:
        """Hears what models say."""
        return self._remembered(Whisper(self.judge_weights))

    @cached_property
    def recognizer(self) -> Recognizer:
        """What a model is compared with where it transcribes, and a second opinion: mini's own recogniser, alone."""
        return self._remembered(Whisper(self.recognizer_weights))

    def _remembered(self, listener: Listener) -> Listener:
        return listener if self.folder is None else Remembered(listener, self.folder)

    @cached_property
    def text_lm(self) -> TextLM:
        """Reads texts, of which it says how likely it finds them."""
        return CausalLM(self.text_lm_weights)

    @cached_property
    def hearing(self) -> Recognizer:
        """The first half of a cascade whose other half is ``text_lm``."""
        return self.recognizer if self.hear is None else self.hear()

    @cached_property
    def normalizer(self) -> Normalizer:
        return WhisperEnglish()

    @cached_property
    def rater(self) -> DNSMOS:
        """Rates sound.

        :raises LaliaError: it cannot be had.
        """
        return DNSMOS()

    @cached_property
    def voices(self) -> SpeakerEncoder:
        """Tells voices apart.

        :raises LaliaError: it cannot be had.
        """
        from lalia.evaluation.generation.resemblyzer import Resemblyzer

        return Resemblyzer()
