"""Manifests: which utterances there are, where their sound is, and what is known about them.

On disk a manifest is JSON Lines, one utterance per line, in order; only ``id``, ``path`` and ``duration``
are required::

    {"id": "103-1240-0000", "path": "flac/103-1240-0000.flac", "duration": 14.085, "speaker": "103",
     "text": "CHAPTER ONE", "words": [["CHAPTER", 0.31, 0.72], ["ONE", 0.72, 1.05]]}
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.files import atomic_write

__all__ = ["SPLITS", "Manifest", "Skipped", "Utterance", "Word", "split_of"]

SPLITS: Mapping[str, float] = {"train": 0.9, "dev": 0.05, "test": 0.05}
"""The share of the speakers in each split, where nothing else is asked for."""


class Word(NamedTuple):
    """A word or a phoneme with its ``start`` and ``end`` in seconds from the beginning of the utterance."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of a recording.

    :param id: unique within its manifest.
    :param path: the sound file.
    :param duration: in seconds.
    :param start: where it begins in the recording, in seconds.
    :param channel: the channel to take (from 0); None mixes all.
    :param words: the words with their times, where known.
    :param phones: the phonemes with their times, where known (a synthesizer that tells).
    :raises DataError: a field that is missing, of the wrong type or out of range.
    """

    id: str
    path: Path
    _: KW_ONLY
    duration: float
    start: float = 0.0
    channel: int | None = None
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    words: tuple[Word, ...] | None = None
    phones: tuple[Word, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise DataError(f"An utterance has the id {self.id!r}. Give a text that is not empty.")
        if not isinstance(self.path, str | Path) or not Path(self.path).name:
            raise DataError(f"Utterance {self.id!r} has the path {str(self.path)!r}. Name a sound file.")
        object.__setattr__(self, "path", Path(self.path))
        if not _finite(self.duration) or self.duration <= 0:
            raise DataError(f"Utterance {self.id!r} lasts {self.duration!r}. Give a number of seconds over 0.")
        if not _finite(self.start) or self.start < 0:
            raise DataError(f"Utterance {self.id!r} starts at {self.start!r}. Give a number of seconds, 0 or more.")
        if self.channel is not None and (type(self.channel) is not int or self.channel < 0):
            raise DataError(f"Utterance {self.id!r} has the channel {self.channel!r}. Count from 0, or leave it out.")
        for name in ("text", "speaker", "language"):
            if not isinstance(getattr(self, name), str | None):
                raise DataError(f"Utterance {self.id!r} has the {name} {getattr(self, name)!r}. Give text, or null.")

    def load(self, *, sample_rate: int | None = None, check: bool = True) -> Audio:
        """The sound of this utterance, mono, [1, 1, N].

        :param sample_rate: resample to this rate (Hz).
        :param check: refuse what is empty, too short, silent or not finite.
        :raises AudioError: the file is missing, not audio, breaks off, or fails the check.
        """
        return Audio.load(
            self.path,
            sample_rate=sample_rate,
            mono=self.channel is None,
            start=self.start,
            seconds=self.duration,
            channel=self.channel,
            check=check,
        )

    def to_dict(self, folder: Path | None = None) -> dict[str, Any]:
        """JSON-ready data without the fields that say nothing.

        :param folder: where the manifest lies; a sound file under it is named relative to it.
        """
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        data = {f.name: found[f.name] for f in fields(self) if f.default is MISSING or found[f.name] != f.default}
        data["path"] = _portable(self.path, folder)
        return data

    @classmethod
    def from_dict(cls, data: Any, folder: Path = Path()) -> "Utterance":
        """The utterance that ``to_dict`` wrote.

        :raises DataError: not an object, or a field that is unknown, missing or wrong.
        """
        if not isinstance(data, Mapping):
            raise DataError('It is not an object. Write {"id": ..., "path": ..., "duration": ...}.')
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise DataError(f"The field {name!r} is unknown. The fields are {', '.join(known)}.")
        for name in ("id", "path", "duration"):
            if name not in data:
                raise DataError(f"The field {name!r} is missing. Add it.")
        if not isinstance(data["path"], str) or not data["path"]:
            raise DataError(f"The path is {data['path']!r}. Name a sound file.")
        values = dict(data, path=folder / data["path"])
        for name in ("words", "phones"):
            if data.get(name) is not None:
                values[name] = _timed(name, data[name])
        return cls(**values)


def _finite(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _timed(name: str, data: Any) -> tuple[Word, ...]:
    cure = "Write [[text, start, end], ...], in seconds from the start of the utterance."
    if not isinstance(data, list):
        raise DataError(f"The {name} are {data!r}. {cure}")
    for word in data:
        right = isinstance(word, list) and len(word) == 3 and isinstance(word[0], str)
        if not right or not _finite(word[1]) or not _finite(word[2]) or not word[1] <= word[2]:
            raise DataError(f"The {name[:-1]} {word!r} is not a {name[:-1]} with its times. {cure}")
    return tuple(Word(text, float(start), float(end)) for text, start, end in data)


def _portable(path: Path, folder: Path | None) -> str:
    """Relative where the file lies under the manifest, so that the two move together; else absolute."""
    file = absolute(path)
    if folder is None or not file.is_relative_to(absolute(folder)):
        return str(file)
    return file.relative_to(absolute(folder)).as_posix()


def absolute(path: Path) -> Path:
    """The path from the root on, without ``..``; links stay, as they are how corpora are assembled."""
    return Path(os.path.abspath(path))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A recording that could not be used, and why."""

    id: str
    path: str
    reason: str


def split_of(key: str, fractions: Mapping[str, float] = SPLITS, seed: int = 0) -> str:
    """The split that ``key`` (a speaker) belongs to, whatever else the data holds.

    :param fractions: the share of each split; the order matters.
    :raises DataError: shares that are negative or do not sum to 1.
    """
    if not fractions or min(fractions.values()) < 0 or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise DataError(f"The splits {dict(fractions)} do not sum to 1. Give a share for each.")
    place = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64
    reached = 0.0
    for name, share in fractions.items():
        reached += share
        if place < reached:
            return name
    return [name for name, share in fractions.items() if share > 0][-1]


class Manifest:
    """Utterances in order, each id once.

    :param skipped: what an importer found but could not use; it is not written to disk.
    :raises DataError: an id that occurs twice.
    """

    def __init__(self, utterances: Iterable[Utterance], skipped: Iterable[Skipped] = ()) -> None:
        self.utterances = tuple(utterances)
        self.skipped = tuple(skipped)
        seen: dict[str, Utterance] = {}
        for u in self.utterances:
            if u.id in seen:
                raise DataError(
                    f"The utterance id {u.id!r} occurs twice, for {seen[u.id].path} and for {u.path}. "
                    "Give each its own id."
                )
            seen[u.id] = u

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    @overload
    def __getitem__(self, i: int) -> Utterance: ...
    @overload
    def __getitem__(self, i: slice) -> "Manifest": ...
    def __getitem__(self, i: int | slice) -> "Utterance | Manifest":
        return Manifest(self.utterances[i]) if isinstance(i, slice) else self.utterances[i]

    def __repr__(self) -> str:
        return f"Manifest({len(self)} utterances, {self.seconds / 3600:.2f} hours, {len(self.skipped)} skipped)"

    @property
    def seconds(self) -> float:
        """The length of all utterances together."""
        return math.fsum(u.duration for u in self.utterances)

    # -- disk -----------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> "Manifest":
        """Read a manifest whole.

        :raises DataError: names the file and the line.
        """
        lines: dict[str, int] = {}
        utterances = []
        for number, u in _read(Path(path)):
            if u.id in lines:
                raise DataError(
                    f"{path}, line {number}: the id {u.id!r} is already on line {lines[u.id]}. Give each its own id."
                )
            lines[u.id] = number
            utterances.append(u)
        if not utterances:
            raise DataError(f"{path} names no utterances. Write one JSON object per line.")
        return cls(utterances)

    @staticmethod
    def read(path: str | Path) -> Iterator[Utterance]:
        """The utterances of a manifest one by one, for manifests that do not fit in memory.

        :raises DataError: names the file and the line.
        """
        return (u for _, u in _read(Path(path)))

    def save(self, path: str | Path) -> Path:
        """Write the utterances as JSON Lines. Sound files under the manifest's folder get relative paths.

        :raises OutputError: the folder does not exist or cannot be written.
        """
        target = Path(path)
        with atomic_write(target) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
            data = (u.to_dict(target.parent) for u in self.utterances)
            file.writelines(json.dumps(d, ensure_ascii=False, allow_nan=False) + "\n" for d in data)
        return target

    # -- parts ----------------------------------------------------------------------------------

    def split(
        self,
        by: Literal["speaker", "id"] = "speaker",
        fractions: Mapping[str, float] = SPLITS,
        seed: int = 0,
    ) -> dict[str, "Manifest"]:
        """Disjoint parts by name. A hash decides, so that adding data moves nobody.

        :param by: keep each speaker in one part (an utterance without a speaker counts as a speaker of
            its own), or scatter the utterances.
        :param fractions: the expected share of the keys in each part.
        :raises DataError: shares that do not sum to 1.
        """
        parts: dict[str, list[Utterance]] = {name: [] for name in fractions}
        for u in self.utterances:
            key = u.speaker if by == "speaker" and u.speaker is not None else u.id
            parts[split_of(key, fractions, seed)].append(u)
        return {name: Manifest(part) for name, part in parts.items()}


def _read(path: Path) -> Iterator[tuple[int, Utterance]]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only the opening may fail with these errors
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Check the path.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Name a manifest file.") from None
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, Utterance.from_dict(json.loads(line), path.parent)
            except ValueError as error:  # JSON that does not parse, or bytes that are not UTF-8
                reason = str(error).split(":")[0].lower()
                raise DataError(f"{path}, line {number} is not JSON ({reason}). Correct or remove it.") from None
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
