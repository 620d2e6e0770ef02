"""STSP (Nguyen et al., SpiRit-LM, arXiv:2402.05755, section 5): is the sentiment of a prompt kept in what follows?

Of speech and text as prompt and continuation there are four directions. A classifier says of each continuation whether
it is positive, negative or neutral; of these the published sets have equally many, so that chance is 1/3. A line of
their JSON Lines is ``{"id", "wav_path", "emotion" | "sentiment", "asr"}``.

In the paper, temperature is 0.8 and top-p 0.95, with at most 50 tokens of text, 200 of speech behind text and 300 of
speech behind speech, over 3 runs; where the prompt is speech, the figure is the average of Expresso (read) and EMOV.
The scripts beside the published model (``spiritlm/eval`` at 52fb2f4) have 0.9 and 200 tokens instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lalia.errors import DataError
from lalia.evaluation.downstream import accuracy
from lalia.evaluation.scored import Scored
from lalia.evaluation.statistics import share
from lalia.evaluation.suites.items import read_rows
from lalia.lm import Sampling

__all__ = [
    "MAX_TOKENS",
    "SAMPLING",
    "SENTIMENTS",
    "Level",
    "STSPItem",
    "read_stsp",
    "score_stsp",
    "sentiment_of",
]

SENTIMENTS = ("negative", "neutral", "positive")
SAMPLING = Sampling(temperature=0.8, top_p=0.95)
MAX_TOKENS: Mapping[str, int] = {"text-text": 50, "speech-text": 50, "text-speech": 200, "speech-speech": 300}
"""Most tokens of a continuation by direction, prompt first."""

_OF_EMOTION = {
    "happy": "positive",
    "amused": "positive",
    "sad": "negative",
    "angry": "negative",
    "default": "neutral",
    "neutral": "neutral",
}

Level = Literal["sentiment", "emotion"]


def sentiment_of(label: str) -> str:
    """The sentiment of an emotion (happy, amused; sad, angry; default, neutral) or of a sentiment itself.

    :raises DataError: it is neither.
    """
    known = label.strip().lower()
    if known in SENTIMENTS:
        return known
    if known not in _OF_EMOTION:
        raise DataError(f"{label!r} is no sentiment. Give {', '.join(SENTIMENTS)}, or {', '.join(_OF_EMOTION)}.")
    return _OF_EMOTION[known]


@dataclass(frozen=True)
class STSPItem:
    """A prompt.

    :param path: heard.
    :param text: what is said in it, as a recogniser has it.
    :param emotion: where it is known; the sentiment is that of it.
    """

    id: str
    path: Path
    sentiment: str
    emotion: str | None = None
    text: str | None = None


def read_stsp(path: str | Path, *, sounds: str | Path | None = None) -> list[STSPItem]:
    """The prompts of a set.

    :param sounds: the folder that ``wav_path`` is relative to; that of the file when not given.
    :raises DataError: it cannot be read, a line has no id or label, or an id comes twice.
    """
    source = Path(path)
    folder = source.parent if sounds is None else Path(sounds)
    found: dict[str, STSPItem] = {}
    for number, row in enumerate(read_rows(source), start=1):
        where = f"{source}, prompt {number}"
        key, wav, emotion = str(row.get("id", "")), row.get("wav_path"), row.get("emotion")
        label = row.get("sentiment", emotion)
        if not key or not isinstance(wav, str) or not isinstance(label, str):
            raise DataError(f"{where} lacks an id, a wav_path, or an emotion or sentiment. Give them.")
        if key in found:
            raise DataError(f"{where} has the id {key!r} a second time. Keep one.")
        try:
            sentiment = sentiment_of(label)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        text = row.get("asr")
        found[key] = STSPItem(key, folder / wav, sentiment, emotion, text if isinstance(text, str) else None)
    if not found:
        raise DataError(f"{source} has no prompts. Write one JSON object per line.")
    return list(found.values())


def score_stsp(
    items: Sequence[STSPItem], predictions: Mapping[str, str | None], *, level: Level = "sentiment"
) -> Scored:
    """The share of continuations with the label of their prompt, and of each label by itself.

    A prompt without a prediction is wrong, and counted as failed; the original refuses such a file.

    :param predictions: by id; an emotion stands for its sentiment.
    :param level: compare sentiments, or emotions, which all prompts must then have.
    :raises DataError: there are no prompts, a prediction is for none, or says what is no label.
    """
    labels: dict[str, str] = {}
    for item in items:
        label = item.sentiment if level == "sentiment" else item.emotion
        if label is None:
            raise DataError(f"The prompt {item.id!r} has no emotion. Compare sentiments.")
        labels[item.id] = label
    read = (lambda _, said: sentiment_of(said)) if level == "sentiment" else None
    scored = accuracy(labels, predictions, read=read)
    found = sorted(set(labels.values()))
    parts = {name: [bool(x["right"]) for x in scored.items if x["reference"] == name] for name in found}
    sizes = {name: len(right) for name, right in parts.items()}
    notes = []
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{n} {name}" for name, n in sizes.items())
        notes.append(
            f"The labels are not balanced ({told}), as they are in the published sets: chance is not 1/{len(sizes)}."
        )
    figures = {**scored.figures, **{f"accuracy_{name}": share(right) for name, right in parts.items()}}
    return replace(scored, figures=figures, settings={"level": level, "sizes": sizes}, notes=notes)
