"""One form for what any suite asks, and the files that suites are published in."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lalia.errors import DataError

__all__ = ["Item", "of_row", "read_keyed", "read_rows", "replies_of", "text_of", "unique"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a model is asked once.

    :param id: unique within the suite.
    :param audio: what it hears, in order.
    :param text: the instruction or question, as text: said in the sound or beside it.
    :param choices: texts to choose from; empty texts where only their letters are known.
    :param references: right answers, or replies that a person gave; none where they are hidden.
    :param group: what it is reported by (subject, task).
    :param extra: whatever else its file says.
    """

    id: str
    audio: tuple[Path, ...] = ()
    text: str = ""
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def unique(items: Sequence[Item]) -> dict[str, Item]:
    """Items by id.

    :raises DataError: two have the same.
    """
    found = {item.id: item for item in items}
    if len(found) != len(items):
        ids = [item.id for item in items]
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"Several items have the id {twice!r}. Give each its own.")
    return found


def read_rows(path: str | Path, *, sounds: str | Path | None = None) -> list[dict[str, Any]]:
    """The rows of a JSON array, JSON Lines or Parquet file, by its ending.

    :param sounds: a folder in which the recordings that a Parquet file of the hub holds (``{"bytes", "path"}``) are
        put as files; the cell is then the path. Without it the cell is None.
    :raises DataError: names the file, and the line.
    """
    source = Path(path)
    try:
        match source.suffix:
            case ".parquet":
                return list(_parquet(source, None if sounds is None else Path(sounds)))
            case ".jsonl":
                return list(_lines(source))
            case ".json":
                rows = json.loads(source.read_text("utf-8"))
            case _:
                raise DataError(f"{source} is no .json, .jsonl or .parquet. Name the file that the suite publishes.")
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read ({str(error)[:80]}). Fetch it again.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{source} is not a list of objects. Name the file that the suite publishes.")
    return rows


def _lines(source: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(source.read_text("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{source}, line {number} is no JSON object. Correct or remove it.")
        yield row


def _parquet(source: Path, sounds: Path | None) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    number = 0
    for batch in pyarrow.parquet.ParquetFile(source).iter_batches(batch_size=64):
        for row in batch.to_pylist():
            yield {k: _sound(v, sounds, f"{source.stem}-{number:05}-{k}") for k, v in row.items()}
            number += 1


def _sound(value: Any, sounds: Path | None, name: str) -> Any:
    if not (isinstance(value, dict) and set(value) == {"bytes", "path"}):
        return value
    if sounds is None or not value["bytes"]:
        return None
    sounds.mkdir(parents=True, exist_ok=True)
    file = sounds / f"{name}{Path(value['path'] or '.wav').suffix or '.wav'}"
    file.write_bytes(value["bytes"])
    return str(file)


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """A text of a row.

    :raises DataError: there is none.
    """
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where} has {key} {value!r:.40}, not a text. Name the file that the suite publishes.")
    return value


def of_row(row: Mapping[str, Any], *used: str) -> dict[str, Any]:
    """What else a row says."""
    return {k: v for k, v in row.items() if k not in used}


def replies_of(rows: Sequence[Mapping[str, Any]], items: Sequence[Item], *keys: str) -> dict[str, str]:
    """Replies that stand in a file of results, in rows that are those of the items, in order.

    :param keys: under which a reply may stand; the first that a row has is taken. A row with none has no reply.
    :raises DataError: there is not a row for each item.
    """
    if len(rows) != len(items):
        raise DataError(f"There are {len(rows)} rows of results for {len(items)} items. Give the whole file.")
    found = {}
    for item, row in zip(items, rows, strict=True):
        reply = next((row[k] for k in keys if isinstance(row.get(k), str)), None)
        if reply is not None:
            found[item.id] = reply
    return found


def read_keyed(path: str | Path) -> dict[str, str]:
    """Lines of a name, white space, and the rest: Kaldi's text, and what s3prl writes (``*_predict.txt``, ``*.ark``).

    :raises DataError: it cannot be read, or has a name twice.
    """
    found: dict[str, str] = {}
    try:
        lines = Path(path).read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Name a text file of lines: NAME the rest.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, *rest = line.split(maxsplit=1)
        if key in found:
            raise DataError(f"{path}, line {number} has {key!r} a second time. Keep one.")
        found[key] = rest[0].strip() if rest else ""
    return found
