"""sWUGGY and sBLIMP of ZeroSpeech 2021 (Nguyen et al., arXiv:2011.11588), from the tables beside their recordings.

A folder (``lexical/dev``, ``syntactic/test``, ...) has ``<filename>.wav`` and ``gold.csv``, a row for each recording:
``id, filename, voice, frequency, word, phones, length, correct`` (sWUGGY) or ``id, filename, voice, type, subtype,
correct, transcription`` (sBLIMP). Rules are those of ``zerospeech/tasks/lm`` of zerospeech/benchmarks at 8a716e8.
"""

import csv
import math
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

from lalia.errors import DataError
from lalia.evaluation.pairs import Pair

__all__ = ["BANDS", "SPLITS", "find_golds", "frequency_band", "read_gold"]

BANDS = ("oov", "1-5", "6-20", "21-100", ">100")
_EDGES = (1, 5, 20, 100)
_COMMON = {"id", "filename", "voice", "correct"}
_LEXICAL = _COMMON | {"frequency", "word"}
_SYNTACTIC = _COMMON | {"type", "subtype", "transcription"}
SPLITS = ("dev", "test")

Row = Mapping[str, str]


def frequency_band(count: float) -> str:
    """The band of a word by how often LibriSpeech has it, as published: edges 1, 5, 20, 100 belong to the band above.

    So a word that is there 5 times is of the band named "6-20".

    :raises DataError: the count is negative or not finite.
    """
    if not 0 <= count < math.inf:
        raise DataError(f"A word has the frequency {count}. Give a count of 0 or more.")
    return BANDS[bisect_right(_EDGES, count)]


def find_golds(folder: Path) -> list[Path]:
    """The tables of a folder: its own, or those of its splits, or of its tasks and their splits."""
    for pattern in ("gold.csv", "*/gold.csv", "*/*/gold.csv"):
        found = [path for path in sorted(folder.glob(pattern)) if _header(path) is not None]
        if found:
            return found
    return []


def _header(path: Path) -> set[str] | None:
    """The columns of a table of either task; None where it is something else."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names = set(next(csv.reader(file), ()))
    except (OSError, UnicodeDecodeError):
        return None
    return names if names >= _LEXICAL or names >= _SYNTACTIC else None


def read_gold(path: str | Path) -> list[Pair]:
    """The pairs of a ``gold.csv``, one for each voice; whether their recordings are there is not looked at.

    The task is ``sWUGGY`` or ``sBLIMP``, with the folder where that is ``dev`` or ``test``. A kind is a band of
    frequency (none where the table has no count), or the type of a sentence. Ids of sBLIMP begin with the type and
    subtype, within which they are unique.

    :raises DataError: it cannot be read or is something else, or a recording has no counterpart; names the line.
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source} cannot be read ({error}). Name the gold.csv of ZeroSpeech 2021.") from None
    names = set(rows[0]) if rows else set()
    if not (names >= _LEXICAL or names >= _SYNTACTIC):
        raise DataError(
            f"{source} has the columns {', '.join(sorted(map(str, names))) or 'of no table'}. "
            "Name the gold.csv of sWUGGY or sBLIMP."
        )
    lexical = names >= _LEXICAL
    task = "sWUGGY" if lexical else "sBLIMP"
    task = f"{task}-{source.parent.name}" if source.parent.name in SPLITS else task
    sides: dict[tuple[str, ...], dict[str, Row]] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{source}, line {number}"
        if any(not isinstance(row[name], str) for name in names):
            raise DataError(f"{where} has fewer fields than the header. Fetch the file again.")
        if row["correct"] not in ("0", "1"):
            raise DataError(f"{where} has correct {row['correct']!r}. Give 0 or 1.")
        key = tuple(row[name] for name in (("id", "voice") if lexical else ("type", "subtype", "id", "voice")))
        side = sides.setdefault(key, {})
        if row["correct"] in side:
            raise DataError(f"{where} is a second {' '.join(key)} with correct {row['correct']}. Keep one.")
        side[row["correct"]] = row
    pairs = []
    for key, side in sides.items():
        if len(side) < 2:
            raise DataError(f"{source} has {next(iter(side.values()))['filename']!r} without a counterpart. Add it.")
        make = _words if lexical else _sentences
        try:
            pairs.append(make(task, source.parent, side["1"], side["0"]))
        except (ValueError, DataError) as error:
            raise DataError(f"{source}, {' '.join(key)}: {error}") from None
    return pairs


def _words(task: str, folder: Path, word: Row, other: Row) -> Pair:
    count = word["frequency"]
    return Pair(
        task,
        word["id"],
        _sound(folder, word),
        _sound(folder, other),
        voice=word["voice"] or None,
        kind=frequency_band(float(count)) if count else None,
        # Where nonwords are spelt in phones alone, there is nothing to read.
        positive_text=word["word"] or None,
        negative_text=other["word"] or None,
    )


def _sentences(task: str, folder: Path, right: Row, wrong: Row) -> Pair:
    return Pair(
        task,
        f"{right['type']}/{right['subtype']}/{right['id']}",
        _sound(folder, right),
        _sound(folder, wrong),
        voice=right["voice"] or None,
        kind=right["type"],
        subtype=right["subtype"],
        positive_text=right["transcription"] or None,
        negative_text=wrong["transcription"] or None,
    )


def _sound(folder: Path, row: Row) -> Path:
    name = row["filename"]
    return folder / (name if name.endswith(".wav") else f"{name}.wav")
