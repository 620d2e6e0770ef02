"""Play scenes and keep them: ``scenes.py FOLDER [MODEL] [--kind turn]... [--limit 3] [--score]``.

Each is a sample of Full-Duplex-Bench with what the model heard and said, for its scorers; with ``--score``, ours are
run on them, with words as Whisper hears them.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lalia
from lalia.cli.console import progress, tell
from lalia.errors import LaliaError
from lalia.evaluation.asr import Whisper
from lalia.evaluation.benchmarks.scene_kinds import scenes
from lalia.evaluation.full_duplex_folders import Task, score_folders
from lalia.evaluation.intervals import Speech
from lalia.evaluation.scenes import Played, Scene, play, save_folders
from lalia.evaluation.scenes.script import SCENE_KINDS
from lalia.evaluation.timed_words import TimedWords


def main(words: list[str] | None = None) -> None:
    """Read the command line, play, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", nargs="?", default="mini")
    parser.add_argument("--kind", action="append", choices=SCENE_KINDS, help="of the scenes; all when not given")
    parser.add_argument("--limit", type=int, help="so many of each kind")
    parser.add_argument("--score", action="store_true", help="score them, too")
    parser.add_argument("--words", default="whisper-base", help="Whisper that hears words [whisper-base]")
    given = parser.parse_args(words)
    model = lalia.load(given.model)
    script = [s for kind in given.kind or SCENE_KINDS for s in scenes(kind, given.limit)]

    def one(scene: Scene) -> Played:
        with model.session(temperature=0.0, seed=0) as session:
            return play(scene, session)

    with progress("Playing", "scenes") as report:

        def each() -> Iterator[Played]:
            for i, scene in enumerate(script):
                report(i, len(script))
                yield one(scene)

        counts = save_folders(each(), given.folder, one)
    for task, number in counts.items():
        tell(f"{given.folder / task}: {number} samples")
    if given.score:
        speech = Speech()
        hears = TimedWords(Whisper(given.words), speech)
        for task in counts:
            _tell(task, score_folders(given.folder / task, _task(task), hears=hears, speech=speech))


def _task(folder: str) -> Task:
    version, _, name = folder.partition("/")
    if version == "v1.5":
        return "overlap"
    return name  # type: ignore[return-value]  # the folders of v1 are called as its tasks


def _tell(task: str, found: dict[str, Any]) -> None:
    for name, estimate in found["figures"].items():
        tell(f"{task} {name}: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}], n = {estimate.n}")
    if found["behaviour"]:
        tell(f"{task} behaviour, by words: " + ", ".join(f"{tag} {x:.2f}" for tag, x in found["behaviour"].items()))


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
