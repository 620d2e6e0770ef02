"""Comparing what was said with what was heard: normalisation and edit distance."""

import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from lalia.errors import ConfigError

__all__ = [
    "NORMALIZERS",
    "Basic",
    "Edits",
    "NoPunctuation",
    "Normalizer",
    "NormalizerName",
    "Verbatim",
    "WhisperEnglish",
    "character_edits",
    "edits",
    "normalizer_named",
    "word_edits",
]


class Normalizer(Protocol):
    """What makes two ways to write the same words equal; named, because it moves every error rate."""

    name: str
    version: str

    def __call__(self, text: str) -> str: ...


class Verbatim:
    """The text as it is, but for white space: case and punctuation count, as they do in ``jiwer.wer``."""

    name = "none"
    version = "1"

    def __call__(self, text: str) -> str:
        return " ".join(text.split())


class NoPunctuation:
    """Case as it is; every punctuation mark and symbol (Unicode P and S) is taken out. Any language.

    Marks inside words go too ("don't" is "dont"), so that what is left does not depend on how they are typed.
    """

    name = "punctuation-removed"
    version = "1"

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFKC", text)
        return " ".join("".join(c for c in text if unicodedata.category(c)[0] not in "PS").split())


class Basic:
    """Lower case; everything but letters, digits and the apostrophe inside a word is a space. Any language."""

    name = "basic"
    version = "1"

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
        text = re.sub(r"[^\w']|_", " ", text)
        return " ".join(re.sub(r"(?<!\w)'+|'+(?!\w)", " ", text).split())


class WhisperEnglish:
    """The English normaliser of Whisper (Radford et al., arXiv:2212.04356, appendix C), by transformers.

    Lower case, no punctuation, no fillers ("uh"); contractions and titles written out; numbers as digits, so
    that "ninety-nine" is "99". Upstream also maps British spellings to American ones, by a table that does
    not come with transformers: without it "colour" and "color" are two words.

    :param spellings: British to American words (``english.json`` of openai/whisper), where it is at hand.
    """

    name = "whisper-english"

    def __init__(self, spellings: Mapping[str, str] | None = None) -> None:
        import transformers
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self._normalize = EnglishTextNormalizer(dict(spellings or {}))
        table = f"{len(spellings)} spellings" if spellings else "no spelling table"
        self.version = f"transformers {transformers.__version__}, {table}"

    def __call__(self, text: str) -> str:
        return " ".join(self._normalize(text).split())


NormalizerName = Literal["none", "punctuation-removed", "basic", "whisper-english"]
NORMALIZERS: tuple[NormalizerName, ...] = get_args(NormalizerName)


def normalizer_named(name: NormalizerName) -> Normalizer:
    """A normaliser by the name that results give.

    :raises ConfigError: there is none of that name.
    """
    match name:
        case "none":
            return Verbatim()
        case "punctuation-removed":
            return NoPunctuation()
        case "basic":
            return Basic()
        case "whisper-english":
            return WhisperEnglish()
    raise ConfigError(f"There is no normaliser {name!r}. There are {', '.join(NORMALIZERS)}.")


@dataclass(frozen=True)
class Edits:
    """The fewest edits that make a hypothesis of a reference of ``length``."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of the reference; over an empty one, 0 if nothing was heard and else 1."""
        return self.errors / self.length if self.length else float(self.errors > 0)


def edits(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> Edits:
    """Levenshtein distance, split by kind along one shortest path.

    The total is unique, the split is not: substitutions are preferred to pairs of deletion and insertion.
    """
    ids: dict[Hashable, int] = {}
    a, b = (np.array([ids.setdefault(x, len(ids)) for x in side], np.int64) for side in (reference, hypothesis))
    n, m = len(a), len(b)
    cost = np.empty((n + 1, m + 1), np.int64)
    columns = np.arange(m + 1)
    cost[0] = columns
    for i in range(1, n + 1):
        best = np.empty(m + 1, np.int64)
        best[0] = i
        best[1:] = np.minimum(cost[i - 1, 1:] + 1, cost[i - 1, :-1] + (b != a[i - 1]))
        # Insertions run along the row: best[k] + (j - k), least over k <= j.
        cost[i] = np.minimum.accumulate(best - columns) + columns
    substitutions = deletions = insertions = 0
    i, j = n, m
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (a[i - 1] != b[j - 1]):
            substitutions += int(a[i - 1] != b[j - 1])
            i, j = i - 1, j - 1
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            deletions, i = deletions + 1, i - 1
        else:
            insertions, j = insertions + 1, j - 1
    return Edits(substitutions, deletions, insertions, n)


def word_edits(reference: str, hypothesis: str) -> Edits:
    """Edits between the words of two normalised texts."""
    return edits(reference.split(), hypothesis.split())


def character_edits(reference: str, hypothesis: str, *, spaces: bool = True) -> Edits:
    """Edits between the characters of two normalised texts.

    :param spaces: whether the spaces between words count. In writing without word spaces (Chinese, Japanese, Thai)
        a recogniser sets them as it likes, and they should not.
    """
    if not spaces:
        reference, hypothesis = ("".join(text.split()) for text in (reference, hypothesis))
    return edits(reference, hypothesis)
