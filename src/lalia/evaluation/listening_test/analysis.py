"""What a listening test says: means with intervals over listeners and items, and differences with tests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lalia.errors import DataError
from lalia.evaluation.listening_test.material import KINDS, Kind
from lalia.evaluation.listening_test.records import Record, read_ratings
from lalia.evaluation.listening_test.screening import LEAST_CORRELATION, MOST_FAILED, screen_listeners
from lalia.evaluation.listening_test.session import setup_of
from lalia.evaluation.significance import holm, min_f_prime, sign_flip
from lalia.evaluation.statistics import bootstrap_crossed

__all__ = ["analyse", "analyse_folder", "table"]

GSLM_RATERS, GSLM_SAMPLES = 15, 100
"""At least so many raters and samples: how GSLM measured MOS and MMOS (Lakhotia et al. 2021, arXiv:2102.01192)."""


def analyse_folder(folder: Path, **screening: Any) -> dict[str, Any]:
    """The results of the test in a folder, which may still go on; see `analyse`.

    :raises DataError: there is no test, or nothing was rated.
    """
    setup = setup_of(folder)
    kind, systems = setup["kind"], setup["systems"]
    if kind not in KINDS or not isinstance(systems, list):
        raise DataError(f"{folder} holds a test of kind {kind!r}. Analyse it with the lalia that served it.")
    return analyse(read_ratings(folder), kind, systems, **screening)


def analyse(
    records: Sequence[Record],
    kind: Kind,
    systems: Sequence[str],
    *,
    most_failed: int = MOST_FAILED,
    least_correlation: float | None = LEAST_CORRELATION,
    seed: int = 0,
) -> dict[str, Any]:
    """Means, differences, and who was left out.

    Intervals are over listeners and items at once (`statistics.bootstrap_crossed`), and those of differences come of
    the same resamples. A difference must hold for other items and for other listeners: it is tested by the signs of
    its means per item, by those per listener, and by both at once (min F', Clark 1973); the largest p-value counts,
    and Holm's step-down procedure is applied over all pairs. Of 200 simulated tests
    of 16 listeners and 30 items that differ, without a difference, the signs alone found one in 8 % at a level of
    5 %, all three in 3 %; the interval held none in 1.5 %.

    Of pairs (CMOS), a rating says how much better ``first`` is than ``second``, whichever was heard first.

    :param systems: in the order in which they are shown.
    :returns: ``kind``, ``listeners``, ``excluded``, ``systems`` (of MOS), ``pairs`` and ``notes``.
    :raises DataError: nothing is left to be analysed.
    """
    if not records:
        raise DataError("Nothing has been rated yet. Let people listen first.")
    verdicts = screen_listeners(records, kind, most_failed=most_failed, least_correlation=least_correlation)
    kept = {v.listener for v in verdicts if v.excluded is None}
    rows = sorted(
        (r for r in records if r.role == "rating" and r.listener in kept),
        key=lambda r: (r.item, r.listener, r.position),
    )
    if not rows:
        raise DataError("No listener is left after screening. Let others listen, or allow more failed checks.")
    pairs = list(combinations(systems, 2))
    groups: list[tuple[str, ...]] = [*pairs] if kind == "cmos" else [(name,) for name in systems]
    y, group = _oriented(rows, groups)
    member = (group[:, None] == np.arange(len(groups))).astype(np.float64)
    first, second = ([systems.index(pair[side]) for pair in pairs] for side in (0, 1))

    def figures(weights: np.ndarray) -> np.ndarray:
        means = (weights * y) @ member / (weights @ member)
        return means if kind == "cmos" else np.hstack([means, means[:, first] - means[:, second]])

    listeners, items = [r.listener for r in rows], [r.item for r in rows]
    found = bootstrap_crossed(
        figures, listeners, items, figures=len(groups) + (0 if kind == "cmos" else len(pairs)), seed=seed
    )
    compared: list[dict[str, Any]] = []
    for (a, b), estimate in zip(pairs, found[-len(pairs) :] if pairs else (), strict=True):
        one = group == groups.index((a, b) if kind == "cmos" else (a,))
        two = None if kind == "cmos" else group == groups.index((b,))
        tests = _p(_by(items, y, one, two), _by(listeners, y, one, two), seed)
        compared.append({"first": a, "second": b, "difference": estimate.to_dict(), **tests})
        if kind == "cmos":
            compared[-1] |= {
                name: float(np.mean(test(y[one]))) if one.any() else math.nan for name, test in _PREFERS.items()
            }
    for pair, p in zip(compared, holm([pair["p"] for pair in compared]), strict=True):
        pair["p_holm"] = p
    result: dict[str, Any] = {
        "kind": kind,
        "listeners": len(kept),
        "items": len(set(items)),
        "ratings": len(rows),
        "excluded": {v.listener: v.excluded for v in verdicts if v.excluded is not None},
        "verdicts": [asdict(v) for v in verdicts],
        "pairs": compared,
    }
    if kind != "cmos":
        result["systems"] = {
            name: {
                "mos": found[k].to_dict(),
                "listeners": len({r.listener for r in rows if r.system == name}),
                "items": len({r.item for r in rows if r.system == name}),
            }
            for k, name in enumerate(systems)
        }
    result["notes"] = _notes(result)
    return result


def table(result: Mapping[str, Any]) -> str:
    """For people: a line for each system and each pair, who was left out, and what to keep in mind."""
    of = f"{result['ratings']} ratings of {result['items']} items by {result['listeners']} listeners"
    lines = [f"{result['kind'].upper()}: {of}"]
    systems = result.get("systems", {})
    wide = max(map(len, (*systems, *(f"{p['first']} - {p['second']}" for p in result["pairs"]), "pair")))
    if systems:
        lines += ["", f"{'system':{wide}}   mean  95 % interval  listeners  items"]
        lines += [
            f"{name:{wide}}  {_figure(s['mos'])}  {s['listeners']:9}  {s['items']:5}" for name, s in systems.items()
        ]
    if result["pairs"]:
        lines += ["", f"{'pair':{wide}}  differ  95 % interval   p (Holm)"]
    for p in result["pairs"]:
        line = f"{p['first'] + ' - ' + p['second']:{wide}}  {_figure(p['difference'])}  {_number(p['p_holm'], '9.4f')}"
        if "prefer_first" in p:
            line += "  " + " / ".join(f"{100 * p[k]:.0f} %" for k in _PREFERS) + " first / equal / second"
        lines.append(line)
    lines += ["", *(f"Left out: {who} {why}." for who, why in result["excluded"].items())] if result["excluded"] else []
    return "\n".join([*lines, "", *result["notes"]]).rstrip()


_PREFERS = {
    "prefer_first": lambda y: y > 0,
    "prefer_neither": lambda y: y == 0,
    "prefer_second": lambda y: y < 0,
}


def _oriented(rows: Sequence[Record], groups: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Ratings as of the first of each group, and the numbers of the groups, each [n].

    :raises DataError: a row is of a system that the test does not have.
    """
    index = {group: k for k, group in enumerate(groups)}
    y, group = np.empty(len(rows)), np.empty(len(rows), np.int64)
    for i, r in enumerate(rows):
        heard = (r.system, r.other) if r.other else (r.system,)
        turned = heard not in index
        if turned and heard[::-1] not in index:
            raise DataError(f"{' and '.join(heard)} of {r.item!r} are not of this test. Take the row out.")
        y[i], group[i] = (-r.rating if turned else r.rating), index[heard[::-1] if turned else heard]
    return y, group


def _by(of: Sequence[str], y: np.ndarray, one: np.ndarray, two: np.ndarray | None) -> list[float]:
    """By item or by listener: the mean of some ratings, less that of others; of those who have both."""
    names, code = np.unique(np.asarray(of), return_inverse=True)

    def means(mask: np.ndarray) -> np.ndarray:
        sums, counts = (np.bincount(code[mask], w, len(names)) for w in (y[mask], np.ones(int(mask.sum()))))
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / counts)

    found = means(one) if two is None else means(one) - means(two)
    return [float(x) for x in found[np.isfinite(found)]]


def _p(by_item: Sequence[float], by_listener: Sequence[float], seed: int) -> dict[str, float]:
    found = {
        "p_items": sign_flip(by_item, seed=seed),
        "p_listeners": sign_flip(by_listener, seed=seed),
        "p_both": min_f_prime(by_item, by_listener),
    }
    known = [p for p in found.values() if not math.isnan(p)]
    return {**found, "p": max(known, default=math.nan)}


def _notes(result: Mapping[str, Any]) -> list[str]:
    notes = []
    listeners, items = result["listeners"], result["items"]
    if listeners < GSLM_RATERS or items < GSLM_SAMPLES:
        notes.append(
            f"GSLM asked at least {GSLM_RATERS} raters about {GSLM_SAMPLES} samples; here are {listeners} and {items}."
        )
    if min(listeners, items) == 1:
        what = "listener" if listeners == 1 else "item"
        notes.append(f"There is one {what}: the intervals do not say how another would differ.")
    few = [v["listener"] for v in result["verdicts"] if v["excluded"] is None and not v["checks"]]
    if few:
        notes.append(
            f"{len(few)} of the listeners came to no check: {', '.join(few[:5])}{' ...' if len(few) > 5 else ''}."
        )
    return notes


def _figure(estimate: Mapping[str, Any]) -> str:
    value, low, high = (_number(estimate[k], "5.2f") for k in ("value", "low", "high"))
    return f"{value:>6}  [{low}, {high}]"


def _number(value: float | None, form: str) -> str:
    return "-".rjust(int(form.split(".")[0])) if value is None or math.isnan(value) else f"{value:{form}}"
