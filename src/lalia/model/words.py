"""What a model does with words outside a conversation: reading a text out, and writing down what is said."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio, AudioLike
from lalia.errors import ConfigError, DataError
from lalia.lm import SpeechLM
from lalia.model.voicing import Speech
from lalia.streams import nothing, valid_steps
from lalia.tokenizers import Letters

if TYPE_CHECKING:
    from lalia.model.model import Model

__all__ = ["log_probs", "say", "transcribe"]


def say(model: "Model", reads: Sequence[str], text: str, *, voice: int | None) -> Audio:
    """See ``Model.say``.

    :param reads: what the model's vocoder reads.
    """
    return model.decode({reads[0]: _letters(model, reads, text).encode(text)}, voice=voice)


def stream_say(model: "Model", reads: Sequence[str], text: str, *, voice: int | None) -> Iterator[Audio]:
    """See ``Model.stream_say``."""
    _letters(model, reads, text)
    return _pieces(model, text, voice)


def _pieces(model: "Model", text: str, voice: int | None) -> Iterator[Audio]:
    talk = model.recipe.talk
    speech = Speech(model, voice, whole=talk is not None and talk.by_sentence)
    # A word at a time, as a reply is written.
    for word in (*re.findall(r"\s*\S+", text), None):
        made = speech.push(word or "", final=word is None)
        if made is not None and made.samples.shape[-1]:
            yield made


def _letters(model: "Model", reads: Sequence[str], text: str) -> Letters:
    """What spells a text for the vocoder."""
    letters = model.tokenizer(reads[0]) if len(reads) == 1 else None
    if not isinstance(letters, Letters):
        raise ConfigError(f"Model {model.recipe.name!r} does not read text out. Choose another, like mini.")
    if not any(c.isalnum() for c in text):
        raise DataError(f"There is nothing to read out in {text[:40]!r}. Give it words.")
    return letters


def transcribe(model: "Model", audio: AudioLike, *, beams: int) -> str:
    """See ``Model.transcribe``."""
    talk = model.recipe.talk
    recognizer: Any = None if talk is None else model.tokenizer(talk.question)
    if not hasattr(recognizer, "transcribe"):
        raise ConfigError(f"Model {model.recipe.name!r} hears no words. Choose another, like mini.")
    recording = model.recording(audio).mono()
    more = {"beams": beams, "lm": lambda texts: log_probs(model, texts)} if beams else {}
    (text,) = recognizer.transcribe(recording, **more)
    return str(text)


def log_probs(model: "Model", texts: Sequence[str]) -> list[float]:
    """The log-probability (nats) of each text by the text LM, as what somebody says."""
    talk = model.recipe.talk
    assert talk is not None
    lm, tokenizer = model.lms[talk.lm], model.tokenizer(talk.reply)
    assert isinstance(lm, SpeechLM)
    streams = {s: nothing(model.specs[s], len(texts)) for s in lm.layout.streams}
    streams[talk.reply] = tokenizer.encode(list(texts))
    scores = lm.log_prob(streams)[talk.reply][:, 0]
    # Without the end: it is that of a reply, not of what is heard.
    there = valid_steps(streams[talk.reply].lengths, scores.shape[1])
    return [float(x) for x in (scores.cpu() * there).sum(1)]
