"""Text for synthesizers: prose from anywhere to sentences that can be read out as they are written."""

import random
import re
from collections.abc import Iterable, Sequence

__all__ = ["ENGLISH", "clean_text", "is_speakable", "passages", "shuffled", "split_sentences"]

ENGLISH = r"[A-Za-z ,.;:!?'\-]+"
"""Sentences of English without figures, abbreviations by symbols, or foreign letters: what every synthesizer reads
alike. Leaving the rest out costs little, as text is plenty."""

# Quotation marks and marks of emphasis are not spoken, and a dash is a pause.
_TYPOGRAPHY = str.maketrans({"“": "", "”": "", '"': "", "_": "", "’": "'", "—": ", "})
_END = re.compile(r"(?<=[.!?;])\s+")


def clean_text(text: str) -> str:
    """The text on one line, without the marks of typesetting that are not spoken."""
    return re.sub(r"\s+", " ", text.translate(_TYPOGRAPHY)).strip()


def split_sentences(text: str) -> list[str]:
    """Sentences of cleaned text, and the parts that a semicolon makes of one; joined by spaces they are it again."""
    return [s for s in _END.split(clean_text(text)) if s]


def is_speakable(sentence: str, *, min_words: int = 3, max_words: int = 40, pattern: str = ENGLISH) -> bool:
    """Whether a sentence has only characters that are read out in one way, and a fit length.

    :param pattern: what the whole sentence must match.
    """
    return min_words <= len(sentence.split()) <= max_words and re.fullmatch(pattern, sentence) is not None


def passages(sentences: Iterable[str], min_words: int) -> list[str]:
    """Consecutive sentences joined until each passage has at least ``min_words``; a shorter rest is left out."""
    found: list[str] = []
    held: list[str] = []
    words = 0
    for sentence in sentences:
        held.append(sentence)
        words += len(sentence.split())
        if words >= min_words:
            found.append(" ".join(held))
            held, words = [], 0
    return found


def shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """Each text once, in an order that the seed and the order given decide."""
    order = list(texts)
    random.Random(seed).shuffle(order)
    return list(dict.fromkeys(order))
