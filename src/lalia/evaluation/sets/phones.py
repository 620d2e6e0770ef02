"""mini-phones: sentences with their phones and times, for ABX."""

import random

from lalia.data import Manifest, Utterance
from lalia.errors import ConfigError
from lalia.evaluation.sets.stories import story_list
from lalia.evaluation.sets.studio import Line, Studio
from lalia.evaluation.sets.writing import Writer
from lalia.files import atomic_write

__all__ = ["ITEM_NAME", "MANIFEST_NAME", "make_phones", "sentence_list"]

ITEM_NAME = "phones.item"
MANIFEST_NAME = "manifest.jsonl"

_HEADER = "#file onset offset #phone prev-phone next-phone speaker"
_PAUSE = "pau"


def sentence_list() -> tuple[str, ...]:
    """Sentences of `story_list`, each once, from all stories in turn."""
    stories = [f"{s.prompt} {s.ending}".replace(". ", ".\n").splitlines() for s in story_list()]
    longest = max(map(len, stories))
    return tuple(dict.fromkeys(s[i] for i in range(longest) for s in stories if i < len(s)))


def make_phones(studio: Studio, writer: Writer, size: int, seed: int) -> None:
    """Every voice reads the same sentences; the file of items lists every phone but pauses.

    A phone with its neighbours is one item (Schatz et al. 2013); a pause can be a neighbour. The times are those at
    which the synthesizer made it, to a thousandth of a second.

    :param size: sentences.
    :raises ConfigError: there are not so many sentences, or the synthesizer does not tell its phones.
    """
    sentences = sentence_list()
    if size > len(sentences):
        raise ConfigError(f"mini-phones was asked for {size} sentences. There are {len(sentences)}.")
    chosen = random.Random(seed).sample(sentences, size)
    studio.prepare(Line(text, v) for text in chosen for v in studio.voices)
    lines, utterances = [_HEADER], []
    for i, text in enumerate(chosen):
        for voice in studio.voices:
            phones = studio.phones(text, voice)
            audio = studio.say(text, voice)
            name = f"{i:03d}.{voice}"
            path = writer.save(name, audio)
            utterances.append(
                Utterance(name, path, duration=audio.seconds, text=text, speaker=voice, language="en", phones=phones)
            )
            for before, phone, after in zip(phones, phones[1:], phones[2:], strict=False):
                if phone.text != _PAUSE:
                    times = f"{phone.start:.3f} {phone.end:.3f}"
                    lines.append(f"{name} {times} {phone.text} {before.text} {after.text} {voice}")
    Manifest(utterances).save(writer.folder / MANIFEST_NAME)
    with atomic_write(writer.folder / ITEM_NAME) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
