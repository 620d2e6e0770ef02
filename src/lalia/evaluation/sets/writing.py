"""A set that is being made: its recordings, its pairs, and what is to be known of them."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.evaluation.pairs import Pair, save_pairs
from lalia.evaluation.sets.balance import balance

__all__ = ["PAIRS_NAME", "Writer"]

PAIRS_NAME = "pairs.jsonl"


class Writer:
    """Writes recordings as 16-bit FLAC into one folder, each name once.

    :param folder: it is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pairs: list[Pair] = []
        self.left_out: dict[str, str] = {}
        """Parts of the set that could not be made of these voices, and why."""
        self._sounds: dict[Path, Audio] = {}

    def save(self, name: str, audio: Audio) -> Path:
        path = self.folder / f"{name}.flac"
        if path not in self._sounds:
            audio.save(path)
            self._sounds[path] = audio
        return path

    @property
    def seconds(self) -> float:
        return sum(audio.seconds for audio in self._sounds.values())

    def __len__(self) -> int:
        return len(self._sounds)

    def write_pairs(self) -> Path:
        return save_pairs(self.pairs, self.folder / PAIRS_NAME)

    def balance(self) -> Mapping[str, Any]:
        """By task, how long and how loud positives and negatives are."""
        tasks: dict[str, list[tuple[Audio, Audio]]] = defaultdict(list)
        for p in self.pairs:
            tasks[p.task].append((self._sounds[p.positive], self._sounds[p.negative]))
        return {task: balance(members) for task, members in tasks.items()}

    def kinds(self) -> Mapping[str, Mapping[str, int]]:
        """By task, how many pairs there are of each kind and subtype."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for p in self.pairs:
            found[p.task][" / ".join(filter(None, (p.kind, p.subtype)))] += 1
        return {task: dict(count) for task, count in found.items()}
