"""mini-words: a word against a nonword that is as like English, both read out by their phones."""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lalia.errors import ConfigError
from lalia.evaluation.pairs import Pair
from lalia.evaluation.sets.balance import choose, contrast
from lalia.evaluation.sets.studio import Line, Studio
from lalia.evaluation.sets.writing import Writer

__all__ = ["Nonword", "Word", "make_words", "word_list"]


@dataclass(frozen=True)
class Nonword:
    """What could be a word.

    :param phones: ARPAbet with stress.
    :param spelling: how it may be written, for text models.
    :param likelier: by how many nats the word is likelier under phone bigrams.
    """

    phones: tuple[str, ...]
    spelling: str
    likelier: float


@dataclass(frozen=True)
class Word:
    """A word of English with nonwords of as many phones and syllables, any of which may stand against it.

    :param band: how frequent it is (Zipf scale: log10 of occurrences in 1e9 words; van Heuven et al. 2014).
    """

    text: str
    band: str
    phones: tuple[str, ...]
    nonwords: tuple[Nonword, ...]


@cache
def word_list() -> tuple[Word, ...]:
    """The words that ``runs/mini-sets/words.py`` chose, band by band."""
    found = []
    for line in Path(__file__).with_name("words.tsv").read_text(encoding="utf-8").splitlines():
        text, band, phones, *nonwords = line.split("\t")
        options = (n.split("|") for n in nonwords)
        found.append(
            Word(
                text, band, tuple(phones.split()), tuple(Nonword(tuple(p.split()), s, float(d)) for p, s, d in options)
            )
        )
    return tuple(found)


def make_words(studio: Studio, writer: Writer, size: int, seed: int) -> None:
    """As many words of each band, each with one nonword, the same for all voices.

    Of the nonwords of a word that one is taken with which neither words nor nonwords are longer, louder, or likelier
    by their phones, over all words and for each voice.

    :param size: words.
    :raises ConfigError: there are not so many words.
    """
    words = word_list()
    bands = list(dict.fromkeys(w.band for w in words))
    of_band = {band: [w for w in words if w.band == band] for band in bands}
    if size > len(words):
        raise ConfigError(f"mini-words was asked for {size} words. There are {len(words)}.")
    for band in bands:
        random.Random(f"{seed}:{band}").shuffle(of_band[band])
    # Band by band in turn, so that any size has as many of each, or one more.
    chosen = [of_band[bands[i % len(bands)]][i // len(bands)] for i in range(size)]
    drawn = [phones for w in chosen for phones in (w.phones, *(n.phones for n in w.nonwords))]
    studio.prepare(Line(phones, v) for phones in drawn for v in studio.voices)
    options = []
    for w in chosen:
        said = [studio.say(w.phones, v) for v in studio.voices]
        rows = []
        for n in w.nonwords:
            other = [studio.say(n.phones, v) for v in studio.voices]
            rows.append([n.likelier, *(x for p, q in zip(said, other, strict=True) for x in contrast(p, q))])
        options.append(np.array(rows))
    for w, taken in zip(chosen, choose(options), strict=True):
        nonword = w.nonwords[taken]
        for voice in studio.voices:
            writer.pairs.append(
                Pair(
                    "words",
                    w.text,
                    writer.save(f"{w.text}.{voice}.word", studio.say(w.phones, voice)),
                    writer.save(f"{w.text}.{voice}.nonword", studio.say(nonword.phones, voice)),
                    voice=voice,
                    kind=w.band,
                    positive_text=w.text,
                    negative_text=nonword.spelling,
                )
            )
