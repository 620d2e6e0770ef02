"""Have the text read out: ``speak.py kokoro`` or ``speak.py flite``; call it again to go on.

Kokoro reads sentences of 5 to 24 words: half of them in one voice, a quarter in a second, the rest in any of its 28
English ones, so that the vocoder hears much of a few voices and something of many. Flite reads passages of 22 words
and more, for its speed gives the language model what Kokoro's quality cannot: hours.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lalia.cli.console import progress, tell
from lalia.data.synthesis import (
    Flite,
    Kokoro,
    Synthesizer,
    is_speakable,
    passages,
    shuffled,
    split_sentences,
    synthesize_corpus,
)
from lalia.errors import LaliaError

FLITE_VOICES = ("slt", "rms", "awb", "kal16")


def documents(materials: Path, start: str = "") -> Iterator[str]:
    """The texts whose id starts so."""
    with open(materials / "prose.jsonl", encoding="utf-8") as file:
        for line in file:
            document = json.loads(line)
            if document["id"].startswith(start):
                yield document["text"]


def sentences(materials: Path) -> list[str]:
    """Of Moby Dick and the facts, mixed."""
    found = {s for text in documents(materials, "moby-dick") for s in split_sentences(text)}
    # A fact stays whole, even if it takes two sentences.
    found |= {line.strip().replace('"', "") for line in (materials / "facts.txt").read_text("utf-8").split("\n")}
    return shuffled(sorted(s for s in found if is_speakable(s, min_words=5, max_words=24)), seed=0)


def long_passages(materials: Path) -> list[str]:
    """Of all prose, mixed."""
    found = []
    for text in documents(materials):
        found += passages([s for s in split_sentences(text) if is_speakable(s)], min_words=22)
    return shuffled(found, seed=2)


def main() -> None:
    """Read the command line, and read out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("synthesizer", choices=("kokoro", "flite"))
    parser.add_argument("--materials", type=Path, required=True, help="what materials.py made")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True, help="of speech")
    parser.add_argument("--minutes", type=float, help="of work, at most")
    given = parser.parse_args()

    synthesizer: Synthesizer
    if given.synthesizer == "kokoro":
        home = given.materials / "kokoro"
        synthesizer = Kokoro(home / "model.onnx", home / "voices.npz")
        texts = sentences(given.materials)
        voices = dict.fromkeys(synthesizer.voices, 0.25 / len(synthesizer.voices))
        voices["af_heart"] += 0.5
        voices["am_michael"] += 0.25
        speeds, speaker = (0.9, 1.0, 1.0, 1.1), "{voice}"
    else:
        synthesizer = Flite()
        texts = long_passages(given.materials)
        voices = dict.fromkeys(FLITE_VOICES, 1.0)
        speeds, speaker = (1 / 1.15, 1.0, 1.0, 1 / 0.9), "flite-{voice}"
    with progress(f"Speaking ({synthesizer.name})", "s of speech") as report:
        done = synthesize_corpus(
            texts,
            synthesizer,
            voices,
            given.output,
            speeds=speeds,
            seed=1,
            speaker=speaker,
            speech_seconds=3600 * given.hours,
            max_seconds=None if given.minutes is None else 60 * given.minutes,
            progress=report,
        )
    tell(f"{given.output}: {done.done} utterances, {done.hours:.2f} h; {len(done.skipped)} sentences left out")


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
