"""What listeners gave, row by row as it comes: a crash loses nothing that was answered for."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lalia.errors import DataError, OutputError
from lalia.evaluation.listening_test.plan import Role, Screen

__all__ = ["RATINGS", "Record", "Table", "read_ratings"]

RATINGS = "ratings.csv"


@dataclass(frozen=True)
class Record:
    """A rating.

    :param time: when it came, UTC, as ISO 8601 writes it.
    :param slot: of the plan of the listener.
    :param position: of the screen in that plan, from 0.
    :param rating: of ``system``; of a pair, how much better it is than ``other``, which was heard first.
    :param seconds: from when the screen was given out to the rating; empty (None) after the server began anew.
    :param plays: how often something was played.
    """

    time: str
    listener: str
    slot: int
    position: int
    role: Role
    item: str
    system: str
    other: str
    expected: int | None
    rating: int
    seconds: float | None
    plays: int

    @property
    def screen(self) -> Screen:
        """What was rated."""
        return Screen(self.role, self.item, self.system, self.other, self.expected)

    @classmethod
    def parse(cls, row: Mapping[str, str]) -> "Record":
        """A row of the file.

        :raises ValueError: a number is none, or the role is unknown.
        """
        roles: tuple[Role, ...] = ("rating", "instruction", "repeat", "anchor")
        return cls(
            time=row["time"],
            listener=row["listener"],
            slot=int(row["slot"]),
            position=int(row["position"]),
            role=roles[roles.index(row["role"])],  # type: ignore[arg-type]
            item=row["item"],
            system=row["system"],
            other=row["other"],
            expected=int(row["expected"]) if row["expected"] else None,
            rating=int(row["rating"]),
            seconds=float(row["seconds"]) if row["seconds"] else None,
            plays=int(row["plays"]),
        )


class Table:
    """A CSV file with a header that is only ever added to; each row is on the disk before `add` returns.

    :param columns: its header.
    :raises DataError: the file has another header.
    :raises OutputError: it cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                # Somebody pulled the plug while it was written: nobody was told that this row is kept.
                os.truncate(path, len(whole))
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}). Choose another folder.") from None
        if whole:
            self.rows = _read(path, self.columns)
        else:
            self.rows = []
            self._append(self.columns)

    def add(self, row: Mapping[str, Any]) -> None:
        """
        :raises OutputError: the disk is full, or the file may not be written any more.
        """
        values = ["" if row[c] is None else str(row[c]) for c in self.columns]
        self._append(values)
        self.rows.append(dict(zip(self.columns, values, strict=True)))

    def _append(self, values: Iterable[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        data = line.getvalue().encode()
        try:
            with open(self.path, "ab") as file:
                size = file.tell()
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self.path, size)  # half a row would spoil the next
                    raise
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error.strerror}). Make room, or mend the disk."
            ) from None


def read_ratings(path: Path) -> list[Record]:
    """Ratings in the order in which they came, the first of each screen of a listener.

    :param path: the file, or the folder of a test.
    :raises DataError: it cannot be read, or a row is wrong.
    """
    file = path / RATINGS if path.is_dir() else path
    found: dict[tuple[str, int], Record] = {}
    for number, row in enumerate(_read(file, [f.name for f in fields(Record)]), 2):
        try:
            record = Record.parse(row)
        except (KeyError, ValueError):
            raise DataError(f"{file}:{number} is no rating. Take the line out, or mend it.") from None
        found.setdefault((record.listener, record.position), record)
    return list(found.values())


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Give the folder of a listening test.") from None
    # What is not ended is just being written.
    rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    if not rows or tuple(rows[0]) != tuple(columns):
        raise DataError(f"{path} does not begin with {','.join(columns)}. Give the folder of a listening test.")
    wrong = next((n for n, row in enumerate(rows, 1) if len(row) != len(columns)), None)
    if wrong is not None:
        raise DataError(f"{path}:{wrong} has {len(rows[wrong - 1])} columns of {len(columns)}. Mend the line.")
    return [dict(zip(columns, row, strict=True)) for row in rows[1:]]
