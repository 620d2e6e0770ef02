"""Synthesis of training data: text to sentences, synthesizers that read them out, and the corpus that comes of it."""

from lalia.data.synthesis.corpus import Part, assign_parts, synthesize_corpus
from lalia.data.synthesis.engines import Espeak, Flite, Kokoro, PhoneSynthesizer, Spoken, Synthesizer
from lalia.data.synthesis.text import ENGLISH, clean_text, is_speakable, passages, shuffled, split_sentences

__all__ = [
    "ENGLISH",
    "Espeak",
    "Flite",
    "Kokoro",
    "Part",
    "PhoneSynthesizer",
    "Spoken",
    "Synthesizer",
    "assign_parts",
    "clean_text",
    "is_speakable",
    "passages",
    "shuffled",
    "split_sentences",
    "synthesize_corpus",
]
