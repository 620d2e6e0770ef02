"""Classifiers of sentiment by transformers: of speech, such as STSP's wav2vec 2.0, and of text, such as its RoBERTa.

The published weights (``stsp.tar.gz`` of SpiRit-LM) are under the FAIR noncommercial licence, and not here. The
tokenizer of the text classifier is that of ``j-hartmann/sentiment-roberta-large-english-3-classes``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.errors import DataError, WeightsError
from lalia.evaluation.prosody.sentiment import sentiment_of
from lalia.files import sha256

__all__ = ["SpeechSentiment", "TextSentiment", "sentiment_classifier"]


class _Classifier(ABC):
    """A classifier in a folder or on the hub, read at the first use, on the CPU in float32."""

    modality: Literal["speech", "text"]

    def __init__(self, weights: str | Path) -> None:
        import transformers

        self.name, self._folder = Path(weights).name, fetch(weights)
        hashes = "+".join(sha256(file)[:12] for file in sorted(self._folder.glob("*.safetensors")))
        self.version = f"weights {hashes}, transformers {transformers.__version__}"
        self._parts: tuple[Any, Any] | None = None

    @abstractmethod
    def _read(self) -> tuple[Any, Any]:
        """The model, and what prepares its input."""

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            try:
                with quiet():
                    self._parts = self._read()
            except (OSError, ValueError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
                raise WeightsError(f"{self.name} cannot be read as a classifier ({reason}). Name another.") from None
            names = self._parts[0].config.id2label.values()
            try:
                _ = [sentiment_of(name) for name in names]
            except DataError as error:
                self._parts = None
                raise WeightsError(f"{self.name} tells {', '.join(names)}: {error}") from None
        return self._parts

    def _label(self, inputs: Any) -> str:
        model, _ = self._load()
        return str(model.config.id2label[int(model(**inputs).logits[0].argmax())])


class SpeechSentiment(_Classifier):
    """Emotions or sentiments of speech by a ``...ForSequenceClassification`` of transformers that hears.

    :param weights: the folder or hub id.
    :raises WeightsError: the weights cannot be had, or tell no sentiment.
    """

    modality = "speech"

    @torch.inference_mode()
    def __call__(self, recordings: Sequence[Audio | str]) -> list[str]:
        """The most likely label of each recording, mixed to mono.

        :raises DataError: one is a text.
        """
        _, extractor = self._load()
        found = []
        for audio in recordings:
            if isinstance(audio, str):
                raise DataError(f"{self.name} hears, and cannot read {audio[:40]!r}. Give recordings.")
            samples = audio.mono().to(extractor.sampling_rate).samples[0, 0].detach().float().cpu().numpy()
            found.append(self._label(extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")))
        return found

    def _read(self) -> tuple[Any, Any]:
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        model = AutoModelForAudioClassification.from_pretrained(self._folder, dtype=torch.float32)
        return model.eval(), AutoFeatureExtractor.from_pretrained(self._folder)


class TextSentiment(_Classifier):
    """Sentiments of texts by a ``...ForSequenceClassification`` of transformers that reads.

    :param weights: the folder or hub id, with its tokenizer.
    :raises WeightsError: the weights cannot be had, or tell no sentiment.
    """

    modality = "text"

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Audio | str]) -> list[str]:
        """The most likely label of each text; what is too long for the model is cut.

        :raises DataError: one is a recording.
        """
        _, tokenizer = self._load()
        found = []
        for text in texts:
            if not isinstance(text, str):
                raise DataError(f"{self.name} reads, and cannot hear. Give texts, or transcribe the recording first.")
            found.append(self._label(tokenizer(text, truncation=True, return_tensors="pt")))
        return found

    def _read(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(self._folder, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(self._folder)


def sentiment_classifier(weights: str | Path) -> SpeechSentiment | TextSentiment:
    """The classifier in a folder or on the hub: it hears where it says how it is to be given sound, else it reads.

    :raises WeightsError: it cannot be had.
    """
    heard = (fetch(weights) / "preprocessor_config.json").is_file()
    return SpeechSentiment(weights) if heard else TextSentiment(weights)
