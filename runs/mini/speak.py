"""Have the text of one kind read out: ``speak.py prose|replies|questions|strange``; call it again to go on.

The voices of the model read prose and replies. Questions are read in all English voices of Kokoro but those of
``HELD_OUT``, in which ``lalia eval`` asks, and ``strange`` are others of them in the voices of espeak-ng.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from asking import requests

from lalia.cli.console import progress, tell
from lalia.data.synthesis import Espeak, Kokoro, is_speakable, shuffled, split_sentences, synthesize_corpus
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


def questions(materials: Path, strange: bool) -> Iterator[str]:
    """What the text LM asked and what a grammar asks, in turn; what is strange is not among the others."""
    asked = materials / "questions.txt"
    both = zip_by_turns(requests(6000), lines(asked) if asked.exists() else ())
    # In pairs, so that each has of both.
    yield from (text for i, text in enumerate(both) if i // 2 % 2 == strange)


def zip_by_turns(*sources: Iterable[str]) -> Iterator[str]:
    """One of each, as long as any has one."""
    yield from (text for row in zip_longest(*sources) for text in row if text is not None)


def main() -> None:
    """Read the command line, and read out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("prose", "replies", "questions", "strange"))
    parser.add_argument("--materials", type=Path, required=True, help="what materials.py made")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, help="of speech, at most")
    parser.add_argument("--minutes", type=float, help="of work, at most")
    given = parser.parse_args()

    home, synthesizer = given.materials / "kokoro", Espeak() if given.kind == "strange" else None
    if synthesizer is None:
        synthesizer = Kokoro(home / "timed.onnx", home / "voices.npz")
    texts = {
        "prose": lambda: prose(given.materials),
        "replies": lambda: lines(given.materials / "replies.txt"),
        "questions": lambda: questions(given.materials, strange=False),
        "strange": lambda: questions(given.materials, strange=True),
    }[given.kind]()
    everybody = [v for v in synthesizer.voices if v not in HELD_OUT and (v[0] in "ab" or given.kind == "strange")]
    voices = VOICES if given.kind in ("prose", "replies") else dict.fromkeys(everybody, 1.0)
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
