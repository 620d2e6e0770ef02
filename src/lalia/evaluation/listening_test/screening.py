"""Who listened: listeners whose ratings are left out, and why.

Two rules. Whoever fails more checks than one is left out. Of the others, whoever does not agree with the rest is: this
is after CrowdMOS (Ribeiro, Florencio, Zhang & Seltzer 2011, ICASSP), which takes the correlation of a worker with the
mean of the others. Not confirmed from the paper: the least correlation of 0.25, which one public port of its code
have, and whether others are weighed anew after each exclusion; here they are not. The least numbers of
ratings and of others are lalia's own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lalia.evaluation.listening_test.material import Kind
from lalia.evaluation.listening_test.plan import Role
from lalia.evaluation.listening_test.records import Record

__all__ = ["LEAST_CORRELATION", "MOST_FAILED", "Verdict", "failed_checks", "screen_listeners"]

MOST_FAILED, LEAST_CORRELATION = 1, 0.25

_OTHERS = 2
"""Who rated a recording besides, for their mean to be one."""
_COMMON = 8
"""Such recordings that a correlation needs."""

_POOR = 2


@dataclass(frozen=True)
class Verdict:
    """On a listener.

    :param ratings: that he gave, without the checks.
    :param checks: that he came to.
    :param failed: those that he failed.
    :param correlation: with the mean of the others; NaN where there was too little in common.
    :param excluded: why; None where he is kept.
    """

    listener: str
    ratings: int
    checks: int
    failed: tuple[Role, ...]
    correlation: float
    excluded: str | None


def screen_listeners(
    records: Sequence[Record],
    kind: Kind,
    *,
    most_failed: int = MOST_FAILED,
    least_correlation: float | None = LEAST_CORRELATION,
) -> list[Verdict]:
    """A verdict on each listener, in the order of their codes.

    :param most_failed: checks that may be failed.
    :param least_correlation: None where agreement is not asked for; it never is of pairs, where all may rightly be 0.
    """
    of: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.listener, r.position)):
        of.setdefault(record.listener, []).append(record)
    failed = {who: failed_checks(rows, kind) for who, rows in of.items()}
    attentive = [who for who in of if len(failed[who]) <= most_failed]
    given = {who: {(r.item, r.system): r.rating for r in of[who] if r.role == "rating"} for who in of}
    verdicts = []
    for who, rows in of.items():
        agreement = math.nan
        if kind != "cmos":
            agreement = _agreement(given[who], [given[other] for other in attentive if other != who])
        why = None
        if len(failed[who]) > most_failed:
            why = f"failed {len(failed[who])} checks: {', '.join(failed[who])}"
        elif least_correlation is not None and agreement < least_correlation:
            why = f"correlates with the others by {agreement:.2f}, less than {least_correlation}"
        checks = sum(r.role != "rating" for r in rows)
        verdicts.append(Verdict(who, len(rows) - checks, checks, failed[who], agreement, why))
    return verdicts


def failed_checks(records: Sequence[Record], kind: Kind) -> tuple[Role, ...]:
    """Which checks a listener failed.

    An instruction, when he chose something else. A repeat, when his two ratings are more than 1 apart (of pairs, with
    the sides changed: 2). An anchor, when the recording that was made worse is rated above what it was made of, or no
    lower and not as bad (1) or poor (2); of a pair, when it is not the worse one.

    :param records: of one listener.
    """
    rated = {(r.item, r.system, r.other): r.rating for r in records if r.role == "rating"}
    failed: list[Role] = []
    for r in records:
        before = rated.get((r.item, r.system, r.other))
        match r.role:
            case "instruction":
                bad = r.rating != r.expected
            case "repeat" if kind == "cmos":
                turned = rated.get((r.item, r.other, r.system))
                bad = turned is not None and abs(r.rating + turned) > 2
            case "repeat":
                bad = before is not None and abs(r.rating - before) > 1
            case "anchor" if kind == "cmos":
                bad = r.rating * (r.expected or 0) <= 0
            case "anchor":
                bad = before is not None and (r.rating > before or before == r.rating > _POOR)
            case _:
                bad = False
        if bad:
            failed.append(r.role)
    return tuple(failed)


def _agreement(mine: dict[tuple[str, str], int], others: Sequence[dict[tuple[str, str], int]]) -> float:
    """Pearson's correlation with the means of the others; 0 of one who gives one rating only."""
    own, theirs = [], []
    for cell, rating in mine.items():
        found = [o[cell] for o in others if cell in o]
        if len(found) >= _OTHERS:
            own.append(float(rating))
            theirs.append(sum(found) / len(found))
    if len(own) < _COMMON or np.ptp(theirs) == 0:
        return math.nan
    return 0.0 if np.ptp(own) == 0 else float(np.corrcoef(own, theirs)[0, 1])
