"""Have the text of one kind read out: ``speak.py prose|replies|questions``; call it again to go on.

The voices of the model read prose and replies. Questions are read in all English voices of Kokoro, and those of
``HELD_OUT`` read nothing else: what is measured with them is how voices are understood that were never trained on.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lalia.cli.console import progress, tell
from lalia.data.synthesis import Kokoro, is_speakable, shuffled, split_sentences, synthesize_corpus
from lalia.errors import LaliaError

VOICES = {"af_heart": 0.6, "am_michael": 0.25, "af_bella": 0.15}
HELD_OUT = ("af_nova", "am_adam", "bf_emma", "bm_george")


def prose(materials: Path) -> Iterator[str]:
    """Sentences of Moby Dick and facts, about as many of each."""
    chapters = [
        sentence
        for line in (materials / "prose.jsonl").read_text("utf-8").splitlines()
        if (document := json.loads(line))["id"].startswith("moby-dick")
        for sentence in split_sentences(document["text"])
        if is_speakable(sentence, min_words=3, max_words=24)
    ]
    facts = (line.strip().replace('"', "") for line in (materials / "facts.txt").read_text("utf-8").split("\n"))
    facts = [fact for fact in facts if is_speakable(fact, min_words=3, max_words=24)]
    for pair in zip(shuffled(facts, seed=0), shuffled(chapters, seed=0), strict=False):
        yield from pair


def lines(path: Path) -> Iterator[str]:
    """The texts of a file of one a line."""
    yield from (text for line in path.read_text("utf-8").splitlines() if (text := line.strip()))


def main() -> None:
    """Read the command line, and read out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("prose", "replies", "questions"))
    parser.add_argument("--materials", type=Path, required=True, help="what materials.py made")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, help="of speech, at most")
    parser.add_argument("--minutes", type=float, help="of work, at most")
    given = parser.parse_args()

    home = given.materials / "kokoro"
    synthesizer = Kokoro(home / "timed.onnx", home / "voices.npz")
    texts = prose(given.materials) if given.kind == "prose" else lines(given.materials / f"{given.kind}.txt")
    everybody = [v for v in synthesizer.voices if v[0] in "ab"]
    voices = dict.fromkeys(everybody, 1.0) if given.kind == "questions" else VOICES
    with progress(f"Speaking ({given.kind})", "s of speech") as report:
        done = synthesize_corpus(
            list(dict.fromkeys(texts)),
            synthesizer,
            voices,
            given.output,
            speeds=(0.9, 1.0, 1.0, 1.1),
            seed=3,
            speech_seconds=None if given.hours is None else 3600 * given.hours,
            max_seconds=None if given.minutes is None else 60 * given.minutes,
            progress=report,
        )
    tell(f"{given.output}: {done.done} utterances, {done.hours:.2f} h; {len(done.skipped)} texts left out")


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
