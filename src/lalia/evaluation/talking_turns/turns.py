"""What was decided every 40 ms of a dialogue, what a judge says of it, and the files of both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lalia.errors import DataError

__all__ = [
    "FIRST",
    "HOP",
    "LABELS",
    "Decision",
    "Decisions",
    "Likelihoods",
    "read_decisions",
    "read_likelihoods",
    "time_of",
    "timed",
    "together",
]

LABELS = ("C", "NA", "I", "BC", "T")
"""Continuation, silence, interruption, backchannel, change of turns: in the order of a judge's likelihoods."""

HOP = 0.04
"""Seconds."""

FIRST = 0.2
"""Seconds that the judge has heard before it says anything."""

UNCLEAR = ("BC_1", "BC_2")
"""Backchannels while nobody else speaks, and of both at once; no judge is asked about them."""


@dataclass(frozen=True)
class Decision:
    """What happens in 40 ms.

    :param turn: whose turn it was before: ``A`` the system's, ``B`` the user's, ``AB`` the user has interrupted the
        system, ``BA`` the system the user, ``NA`` nobody has spoken.
    """

    start: float
    end: float
    label: str
    turn: str


Decisions = Mapping[str, Sequence[Decision]]
Likelihoods = Mapping[str, Mapping[float, np.ndarray]]
"""By dialogue, and by the second at which 40 ms end."""


def read_decisions(path: str | Path) -> dict[str, list[Decision]]:
    """The rows of a table, by dialogue.

    :raises DataError: it cannot be read, or a row is something else; names the line.
    """
    found: dict[str, list[Decision]] = {}
    for number, line in _lines(path):
        fields = line.split(",")
        try:
            key, start, end, label, turn = fields
            row = Decision(float(start), float(end), label, turn)
        except ValueError:
            raise DataError(f"{path}, line {number} is {line[:60]!r}. Write wid,start,end,label,turn.") from None
        if label not in (*LABELS, *UNCLEAR) or turn not in ("A", "B", "AB", "BA", "NA"):
            raise DataError(f"{path}, line {number} has the label {label!r} and the turn {turn!r}. Give known ones.")
        found.setdefault(key.removesuffix(".wav"), []).append(row)
    return found


def read_likelihoods(path: str | Path) -> dict[str, dict[float, np.ndarray]]:
    """What a judge said, by dialogue and by the second at which 40 ms end.

    :raises DataError: it cannot be read, or a line is something else; names the line.
    """
    found: dict[str, dict[float, np.ndarray]] = {}
    for number, line in _lines(path):
        key, *chunks = line.split()
        try:
            rows = np.array([[float(p) for p in chunk.split(",")] for chunk in chunks], np.float64)
        except ValueError:
            rows = np.zeros((0, 0))
        key = key.removesuffix(".wav")
        if key in found:
            raise DataError(f"{path}, line {number} has {key!r} a second time. Keep one.")
        found[key] = timed(rows, f"{path}, line {number}")
    return found


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Name a file of turns.") from None
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty. Name a file of turns.")
    yield from ((n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip())


def timed(rows: np.ndarray, where: str) -> dict[float, np.ndarray]:
    """Likelihoods [T, 5] by the second at which their 40 ms end.

    :raises DataError: they are something else.
    """
    if rows.ndim != 2 or rows.shape[1:] != (len(LABELS),) or not np.isfinite(rows).all():
        raise DataError(f"{where} has no {len(LABELS)} finite likelihoods for each 40 ms. Give {', '.join(LABELS)}.")
    return {time_of(FIRST + (n + 1) * HOP): row for n, row in enumerate(rows)}


def time_of(seconds: float) -> float:
    """As files and grids have it."""
    return round(seconds, 2)


def together(decisions: Decisions, likelihoods: Likelihoods) -> dict[str, list[tuple[Decision, np.ndarray]]]:
    """What was decided with what the judge says of the same 40 ms; what only one of them knows is left out."""
    found = {}
    for key, rows in sorted(decisions.items()):
        said = likelihoods.get(key, {})
        both = [(row, said[time_of(row.end)]) for row in rows if time_of(row.end) in said]
        if both:
            found[key] = both
    if not found:
        raise DataError(
            f"No 40 ms of {len(decisions)} dialogues are judged. Give likelihoods of the same dialogues and times."
        )
    return found
