"""Minimal pairs, two recordings of which one is the better, and their manifest.

On disk the pairs of a benchmark are JSON Lines, one pair per line, never a naming scheme::

    {"task": "reversed", "id": "103-1240-0000", "positive": "103-1240-0000.flac",
     "negative": "103-1240-0000.reversed.flac"}

What is known of a pair beyond that stands in the same object, under the names of the fields of `Pair`.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lalia.errors import DataError
from lalia.files import atomic_write, sha256

__all__ = ["Pair", "contents", "load_pairs", "pairs_identity", "save_pairs"]

_TEXTS = ("voice", "kind", "subtype", "prompt_text", "positive_text", "negative_text", "group")


@dataclass(frozen=True)
class Pair:
    """Two recordings of which the ``positive`` is to be found more likely.

    :param task: what the pair asks for; accuracies are per task.
    :param id: unique within its task and voice.
    :param voice: who speaks, where several voices read the same pair; its accuracy is the mean over them.
    :param kind: what the accuracy is given for besides the whole task (a syntactic phenomenon, a band of frequency).
    :param subtype: a part of the kind.
    :param group: pairs of one group are of one making (the same sentence turned round), and are drawn together where it
        is asked how sure an accuracy is.
    :param split: seconds up to which the two are one prompt; what follows is the continuation.
    :param prompt_text: what is said up to there.
    :param positive_text: what is said in the positive, behind the prompt where there is one.
    :param negative_text: the same of the negative.
    """

    task: str
    id: str
    positive: Path
    negative: Path
    voice: str | None = None
    kind: str | None = None
    subtype: str | None = None
    split: float | None = None
    prompt_text: str | None = None
    positive_text: str | None = None
    negative_text: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        for name in ("task", "id"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise DataError(f"A pair has the {name} {value!r}. Give a text that is not empty.")
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise DataError(f"A pair has the {name} {value!r}. Give a text, or leave it out.")
        number = isinstance(self.split, int | float) and not isinstance(self.split, bool)
        if self.split is not None and not (number and 0 <= self.split < math.inf):
            raise DataError(f"A pair has the split {self.split!r}. Give seconds, at least 0, or leave it out.")
        for name in ("positive", "negative"):
            object.__setattr__(self, name, Path(getattr(self, name)))

    @property
    def key(self) -> tuple[str, str, str]:
        """What is its own: task, id and voice."""
        return self.task, self.id, self.voice or ""


_FIELDS = tuple(f.name for f in fields(Pair))


def load_pairs(path: str | Path) -> list[Pair]:
    """Read a manifest of pairs; sound files are named relative to it.

    :raises DataError: names the file and the line.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read ({error}). Name a manifest of pairs.") from None
    pairs: dict[tuple[str, str, str], Pair] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            pair = _pair(json.loads(line), source.parent)
        except ValueError:
            raise DataError(f"{source}, line {number} is not JSON. Correct or remove it.") from None
        except DataError as error:
            raise DataError(f"{source}, line {number}: {error}") from None
        if pair.key in pairs:
            raise DataError(f"{source}, line {number}: {pair.task!r} has {pair.id!r} twice. Give each its own id.")
        pairs[pair.key] = pair
    if not pairs:
        raise DataError(f"{source} names no pairs. Write one JSON object per line.")
    return list(pairs.values())


def _pair(data: Any, folder: Path) -> Pair:
    needed = ("task", "id", "positive", "negative")
    if not isinstance(data, Mapping) or not all(isinstance(data.get(name), str) for name in needed):
        raise DataError(f"It is not an object with the texts {', '.join(needed)}. Write one.")
    if unknown := sorted(set(data) - set(_FIELDS)):
        raise DataError(f"It has the unknown {', '.join(unknown)}. A pair has {', '.join(_FIELDS)}.")
    return Pair(**{**data, "positive": folder / data["positive"], "negative": folder / data["negative"]})


def save_pairs(pairs: Iterable[Pair], path: str | Path) -> Path:
    """Write a manifest of pairs. Sound files in its folder get relative names.

    :raises OutputError: the folder does not exist or cannot be written.
    """
    target = Path(path)

    def name(file: Path) -> str:
        folder, whole = target.parent.resolve(), file.resolve()
        return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)

    rows = ({**_known(p), "positive": name(p.positive), "negative": name(p.negative)} for p in pairs)
    with atomic_write(target) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return target


def _known(pair: Pair) -> dict[str, Any]:
    return {name: value for name, value in asdict(pair).items() if value is not None}


def contents(pairs: Iterable[Pair]) -> dict[Path, str]:
    """SHA-256 of each sound file.

    :raises DataError: one is not there.
    """
    seen: dict[Path, str] = {}
    for file in (path for pair in pairs for path in (pair.positive, pair.negative)):
        if file not in seen:
            try:
                seen[file] = sha256(file)
            except OSError as error:
                raise DataError(f"{file} cannot be read ({error.strerror}). Make the pairs again.") from None
    return seen


def pairs_identity(pairs: Iterable[Pair]) -> str:
    """SHA-256 of the pairs and their sound, whatever their order, shortened to 128 bits.

    :raises DataError: a sound file is not there.
    """
    listed = list(pairs)
    sound = contents(listed)
    rows = ({**_known(p), "positive": sound[p.positive], "negative": sound[p.negative]} for p in listed)
    lines = sorted(json.dumps(row, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
