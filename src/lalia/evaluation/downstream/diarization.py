"""Diarization: who speaks when, scored by time (DER) and by speaker (JER)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lalia.errors import ConfigError, DataError
from lalia.evaluation.downstream.assignment import assign
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import bootstrap_ratio

__all__ = ["Turn", "diarization", "read_rttm"]

_KINDS = ("missed", "false_alarm", "confusion")


class Turn(NamedTuple):
    """What one speaker says from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    speaker: str


def read_rttm(path: str | Path) -> dict[str, list[Turn]]:
    """The turns of each recording in an RTTM file (NIST RT-09 plan, appendix A); only SPEAKER lines count.

    :raises DataError: it cannot be read; names the line.
    """
    found: dict[str, list[Turn]] = {}
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Name an RTTM file.") from None
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start, length = float(fields[3]), float(fields[4])
            found.setdefault(fields[1], []).append(Turn(start, start + length, fields[7]))
        except (IndexError, ValueError):
            raise DataError(
                f"{path}, line {number} is no SPEAKER line. Write: SPEAKER recording 1 start length <NA> <NA> name."
            ) from None
    return found


def diarization(
    references: Mapping[str, Sequence[Turn]],
    predictions: Mapping[str, Sequence[Turn] | None],
    *,
    regions: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    collar: float = 0.0,
    skip_overlap: bool = False,
    seed: int = 0,
) -> Scored:
    """DER and JER over recordings, each with speakers mapped one to one for the most time in common.

    DER is missed, false and confused speech over the speech of the references, time with two speakers counted twice
    (NIST RT-09 plan). JER is, over reference speakers, the mean of 1 minus intersection over union with the speaker
    mapped to it, 1 where none is (DIHARD II plan, section 3.2); its mapping is DER's here, as it is in
    pyannote.metrics. A missing prediction is one without speech.

    :param regions: what is scored of a recording; all of it when not given. What a system says outside of the
        annotated part is a false alarm unless this leaves it out.
    :param collar: the total width, in seconds, of what is not scored around each start and end in the reference, as
        pyannote.metrics has it: half of it on either side. The ±0.25 s of NIST (``-c 0.25`` of md-eval) is 0.5.
    :param skip_overlap: whether to leave out where more than one speaks in the reference.
    :raises DataError: there is no speech in the references, or a turn ends before it starts.
    """
    if not 0 <= collar < float("inf"):
        raise ConfigError(f"The collar is {collar} s. Give its total width, 0 or more.")
    rows = by_id(references, predictions)
    found = {
        key: _Recording.of(key, said, heard or (), None if regions is None else regions[key], collar, skip_overlap)
        for key, said, heard in rows
    }
    if not sum(x.total for x in found.values()):
        raise DataError("The references have no speech that is scored. Check them, the regions and the collar.")
    totals = [x.total for x in found.values()]
    figures = {"der": bootstrap_ratio([sum(x.errors.values()) for x in found.values()], totals, seed=seed)}
    figures["jer"] = bootstrap_ratio(
        [sum(x.jaccard.values()) for x in found.values()], [len(x.jaccard) for x in found.values()], seed=seed
    )
    for kind in _KINDS:
        figures[kind] = bootstrap_ratio([x.errors[kind] for x in found.values()], totals, seed=seed)
    missing = sum(heard is None for _, _, heard in rows)
    return Scored(
        figures=figures,
        counts=Counts(len(rows), len(rows) - missing, failed=missing),
        items=[{"id": key, "answered": predictions.get(key) is not None, **x.to_dict()} for key, x in found.items()],
        settings={"collar": collar, "skip_overlap": skip_overlap, "regions": regions is not None},
    )


@dataclass(frozen=True)
class _Recording:
    """Seconds of speech, of each error, and the Jaccard error of each reference speaker."""

    total: float
    errors: Mapping[str, float]
    jaccard: Mapping[str, float]
    mapping: Mapping[str, str]

    @classmethod
    def of(
        cls,
        name: str,
        said: Sequence[Turn],
        heard: Sequence[Turn],
        regions: Sequence[tuple[float, float]] | None,
        collar: float,
        skip_overlap: bool,
    ) -> "_Recording":
        for turn in (*said, *heard):
            if not turn.start <= turn.end:
                raise DataError(f"A turn of {name!r} lasts from {turn.start} to {turn.end} s. Correct it.")
        ours, theirs = (sorted({t.speaker for t in side}) for side in (said, heard))
        collars = [(t - collar / 2, t + collar / 2) for turn in said for t in turn[:2]] if collar else []
        edges = {t for turn in (*said, *heard) for t in turn[:2]}
        edges |= {t for stretch in (*(regions or ()), *collars) for t in stretch}
        grid = np.array(sorted(edges))
        lengths = np.diff(grid)
        a, b = (_active(grid, side, names) for side, names in ((said, ours), (heard, theirs)))
        scored = np.ones(len(lengths), bool) if regions is None else _covered(grid, regions)
        scored &= ~_covered(grid, collars)
        if skip_overlap:
            scored &= a.sum(0) < 2
        lengths = np.where(scored, lengths, 0.0)
        together = (a * lengths) @ b.T
        pairs = [(i, j) for i, j in assign(together) if together[i, j] > 0] if together.size else []
        n, m = a.sum(0), b.sum(0)
        right = sum((a[i] * b[j] for i, j in pairs), np.zeros(len(lengths)))
        errors = {
            "missed": float(np.maximum(n - m, 0) @ lengths),
            "false_alarm": float(np.maximum(m - n, 0) @ lengths),
            "confusion": float((np.minimum(n, m) - right) @ lengths),
        }
        partner = dict(pairs)
        jaccard = {}
        for i, speaker in enumerate(ours):
            if a[i] @ lengths > 0:
                other = b[partner[i]] if i in partner else np.zeros(len(lengths))
                jaccard[speaker] = float(1 - (a[i] * other) @ lengths / (np.maximum(a[i], other) @ lengths))
        return cls(float(n @ lengths), errors, jaccard, {theirs[j]: ours[i] for i, j in pairs})

    def to_dict(self) -> dict[str, Any]:
        return {"speech": self.total, **self.errors, "jaccard": dict(self.jaccard), "mapping": dict(self.mapping)}


def _active(grid: np.ndarray, turns: Sequence[Turn], names: Sequence[str]) -> np.ndarray:
    """Whether each speaker speaks [speakers, cells]; his own turns that overlap are one."""
    return np.array([_covered(grid, [t[:2] for t in turns if t.speaker == name]) for name in names]).reshape(
        len(names), max(len(grid) - 1, 0)
    ) * np.float64(1)


def _covered(grid: np.ndarray, stretches: Iterable[tuple[float, float]]) -> np.ndarray:
    """Which cells between grid points lie in any of some stretches, whose ends are all grid points."""
    change = np.zeros(len(grid))
    for start, end in stretches:
        if start < end:
            change[np.searchsorted(grid, start)] += 1
            change[np.searchsorted(grid, end)] -= 1
    return np.asarray(np.cumsum(change)[:-1] > 0)
