"""Who hears what: the manifests of the run, made of LibriSpeech and of what was read out.

``test.jsonl`` has a fifth of LibriSpeech's speakers, whom nothing is trained on. On the others and Kokoro the vocoder
is trained (``vocoder.jsonl``), on these and flite the language model (``lm.jsonl``), and on a part the units are
fitted (``fit.jsonl``).
"""

import argparse
import random
import sys
from pathlib import Path

from lalia.cli.console import tell
from lalia.data import Manifest, Utterance, from_librispeech
from lalia.errors import DataError, LaliaError

FRACTIONS = {"train": 0.74, "dev": 0.06, "test": 0.2}

KOKORO_FOR_UNITS = 260
"""Half an hour of speech is real in what the units are fitted on, and so much more is synthetic."""

LIST = Path(__file__).with_name("librispeech.txt")


def librispeech(folder: Path, first: int | None) -> dict[str, Manifest]:
    """The utterances of the list, by the part that their speaker belongs to.

    :param folder: train-clean-100, or as much of it as there is.
    :param first: of each part, take so many.
    """
    wanted = set(LIST.read_text().split())
    found = Manifest(u for u in from_librispeech(folder) if u.id in wanted)
    if not len(found):
        raise DataError(f"{folder} has none of the utterances that {LIST.name} lists. Give train-clean-100.")
    if len(found) < len(wanted):
        tell(f"{folder} has {len(found)} of the {len(wanted)} utterances that {LIST.name} lists.")
    return {name: part[:first] for name, part in found.split(by="speaker", fractions=FRACTIONS).items()}


def write_manifests(real: dict[str, Manifest], kokoro: Manifest, flite: Manifest, folder: Path) -> None:
    """All four, with the sizes of each on standard error."""
    known = [*real["train"], *real["dev"]]
    fit: list[Utterance] = [*real["train"], *kokoro[:KOKORO_FOR_UNITS]]
    random.Random(0).shuffle(fit)
    parts = {
        "test": [*real["test"]],
        "fit": fit,
        "vocoder": [*known, *kokoro],
        "lm": [*known, *kokoro, *flite],
    }
    for name, utterances in parts.items():
        manifest = Manifest(utterances)
        manifest.save(folder / f"{name}.jsonl")
        tell(f"{folder / name}.jsonl: {len(manifest)} utterances, {manifest.seconds / 3600:.2f} h")


def main() -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--librispeech", type=Path, required=True)
    parser.add_argument("--kokoro", type=Path, help="a folder that speak.py made")
    parser.add_argument("--flite", type=Path, help="another")
    parser.add_argument("--first", type=int, help="take only so many of each part of LibriSpeech")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    kokoro, flite = (
        Manifest(()) if folder is None else Manifest.load(folder / "manifest.jsonl")
        for folder in (given.kokoro, given.flite)
    )
    write_manifests(librispeech(given.librispeech, given.first), kokoro, flite, given.output)


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
