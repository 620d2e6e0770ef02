"""What became of a corpus."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalia.data.manifest import Skipped
from lalia.files import atomic_write

__all__ = ["REPORT_NAME", "Report"]

REPORT_NAME = "report.json"


@dataclass(frozen=True)
class Report:
    """How far a corpus is.

    :param total: utterances named, those that an importer skipped included.
    :param done: utterances on disk as tokens.
    :param skipped: what could not be used, and why.
    :param hours: of the utterances done.
    :param complete: whether every shard is there.
    :param seconds: how long this run took.
    :param real_time_factor: of this run, seconds of work per second of sound; None if it had nothing to do.
    """

    total: int
    done: int
    skipped: tuple[Skipped, ...]
    hours: float
    complete: bool
    seconds: float
    real_time_factor: float | None

    @property
    def reasons(self) -> dict[str, int]:
        """How many were skipped for each kind of reason, the most frequent first."""
        kinds = (re.sub(r"\d[\d.]*", "N", re.sub(r" \([^)]*\)", "", s.reason)) for s in self.skipped)
        return dict(Counter(kinds).most_common())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "total": self.total,
            "done": self.done,
            "skipped": len(self.skipped),
            "reasons": self.reasons,
            "hours": self.hours,
            "complete": self.complete,
            "seconds": self.seconds,
            "real_time_factor": self.real_time_factor,
            "skipped_items": [{"id": s.id, "path": s.path, "reason": s.reason} for s in self.skipped],
        }

    def save(self, folder: Path) -> Path:
        """Write ``report.json`` into the folder.

        :raises OutputError: the folder cannot be written.
        """
        with atomic_write(folder / REPORT_NAME) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.to_dict(), file, indent=2, ensure_ascii=False)
            file.write("\n")
        return folder / REPORT_NAME
