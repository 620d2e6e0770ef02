"""What the figures say, in words: no sentence claims what the intervals and the tests do not carry."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lalia.evaluation.comparison.differences import Difference, Effect, beside
from lalia.evaluation.comparison.measures import Column, Measure, Reading
from lalia.evaluation.statistics import Estimate

__all__ = ["Statement", "amount", "change", "number", "of_effect", "of_ranking", "unit_of"]

Verdict = Literal["carried", "open", "none"]

_NAMED = 3
"""Models of many that a sentence names."""


@dataclass(frozen=True)
class Statement:
    """A sentence, and whether it tells models apart.

    :param verdict: ``carried``: a difference that interval and test show; ``open``: none is shown; ``none``: nothing
        was compared.
    :param best: the models that it says are best.
    """

    text: str
    verdict: Verdict
    best: tuple[str, ...] = ()


def number(value: float, unit: str) -> str:
    """A figure of a unit, without it: a share in per cent, a large number in thousands."""
    if not math.isfinite(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.1f}"
    if unit == "parameters":
        return f"{value / 1e6:.1f}" if value >= 1e6 else f"{value / 1e6:.2f}"
    if unit in ("MOS", "ratio", "times"):
        return f"{value:.2f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


_UNITS = {
    "share": " %",
    "MOS": "",
    "ratio": "",
    "perplexity": "",
    "parameters": " M",
    "ms/s": " ms",
    "times": " times",
    "points": " points",
}
"""What stands behind a figure; other units are themselves."""


def unit_of(unit: str) -> str:
    """What stands behind a figure, with a space where one belongs."""
    return _UNITS.get(unit, f" {unit}")


def amount(estimate: Estimate, unit: str) -> str:
    """``12.3 % [10.1, 14.9]``; what is of one thing has no interval."""
    shown = f"{number(estimate.value, unit)}{unit_of(unit)}"
    if estimate.n == 1:
        return shown
    return f"{shown} [{number(estimate.low, unit)}, {number(estimate.high, unit)}]"


def change(measure: Measure, d: Difference) -> str:
    """A difference with its interval, its p-value, and the items that it is of."""
    e = d.estimate
    if measure.statistic == "log":
        said = f"{number(e.value, 'times')} times [{number(e.low, 'times')}, {number(e.high, 'times')}]"
    else:
        values = (_signed(v, measure.unit) for v in (e.value, e.low, e.high))
        value, low, high = values
        unit = unit_of("points" if measure.unit == "share" else measure.unit)
        said = f"{value}{unit} [{low}, {high}]"
    return f"{said}, {_p(d.p)}, {e.n} {'item' if e.n == 1 else 'items'}"


def _signed(value: float, unit: str) -> str:
    shown = number(abs(value), unit)
    zero = not any(c in "123456789" for c in shown)
    return shown if zero else f"{'+' if value > 0 else '−'}{shown}"


def _p(p: float) -> str:
    # Never rounded to the side of the level on which it is not.
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def of_ranking(column: Column, *, seed: int = 0) -> Statement:
    """Which model has the best figure, and from which others it can be told.

    That one is best is said where it is told from every other: by the interval of the difference over common items and
    a test after Holm; without common items, where their intervals do not meet, which is the stricter. Models that are
    the same in every item are best together.
    """
    m = column.measure
    known = {n: r for n, r in column.readings.items() if math.isfinite(r.estimate.value)}
    if m.better is None or not known:
        return Statement("", "none")
    sign = 1 if m.better == "lower" else -1
    order = sorted(known, key=lambda n: (sign * known[n].estimate.value, n))
    best, word = order[0], "lowest" if m.better == "lower" else "highest"
    figures = {n: r.estimate for n, r in known.items()}
    shown = amount(figures[best], m.unit)
    if len(order) == 1:
        return Statement(f"{best} alone has a figure for {m.about}: {shown}.", "none")
    found = beside(Column(m, known), best, seed=seed)
    same = [best, *(n for n in order[1:] if _equal(found[n], figures[best], figures[n]))]
    rest = [n for n in order if n not in same]
    if not rest:
        return Statement(f"{_listed(same)} have the same {m.about}: {shown}.", "open")
    apart = [n for n in rest if _apart(m, found[n], figures[best], figures[n], sign)]
    have = f"{_listed(same)} {'has' if len(same) == 1 else 'have'}"
    if apart == rest:
        behind, *others = _shared(rest, known)
        more = f", and, told apart too, {_listed([n for names in others for n in names])}" if others else ""
        said = _beside(m, behind, figures, best, found[rest[0]])
        text = f"Of {len(order)} models {have} the {word} {m.about}, {shown}. Behind: {said}{more}."
        return Statement(text, "carried", tuple(same))
    near = _shared([n for n in rest if n not in apart], known)
    doubt = [_beside(m, names, figures, best, found[names[0]]) for names in near[:_NAMED]]
    doubt += [f"and {_listed([n for names in near[_NAMED:] for n in names])}"] if len(near) > _NAMED else []
    told = f" Told apart: {_listed(apart)}." if apart else ""
    text = f"No {word} {m.about} is shown: {have} {shown}, not told apart from {'; '.join(doubt)}.{told}"
    return Statement(text, "open")


def _shared(names: Sequence[str], readings: Mapping[str, Reading]) -> list[list[str]]:
    """Names in their order, those together for whom one of them answered."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(readings[name].by or name, []).append(name)
    return list(groups.values())


def _equal(d: Difference | None, one: Estimate, other: Estimate) -> bool:
    return one == other if d is None else d.none


def _apart(m: Measure, d: Difference | None, best: Estimate, other: Estimate, sign: int) -> bool:
    if d is not None:
        return d.carried and sign * (d.estimate.value - d.neutral) > 0
    if m.statistic == "exact":
        return best.value != other.value
    clear = best.high < other.low if sign > 0 else best.low > other.high
    return clear and min(best.n, other.n) > 1


def _beside(m: Measure, names: Sequence[str], figures: Mapping[str, Estimate], best: str, d: Difference | None) -> str:
    """Another than the best, with those that share its figure, and what is known of the difference."""
    shown = f"{_listed(names)}, {amount(figures[names[0]], m.unit)}"
    if d is not None:
        few = ", too few to tell" if d.too_few and not d.carried else ""
        return f"{shown} ({change(m, d)}{few})"
    if m.statistic == "exact":
        return shown
    one, other = figures[best], figures[names[0]]
    meet = one.low <= other.high and other.low <= one.high
    return f"{shown} (no common items; the intervals {'meet' if meet else 'do not meet'})"


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many the first, and how many more. The table has them all."""
    if len(names) > _NAMED + 1:
        names = [*names[:_NAMED], f"{len(names) - _NAMED} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


_AXES: Mapping[str, str] = {
    "tokenizer": "tokenizer",
    "lm": "language model",
    "start": "start of the language model",
    "layout": "layout",
    "vocoder": "vocoder",
}


def of_effect(effect: Effect) -> Statement:
    """What one part in place of another changes, where all else is alike."""
    m, d = effect.measure, effect.difference
    alike = f"all but its {' and '.join(_AXES[a] for a in effect.along)} alike" if effect.along else "all else alike"
    begun = f"With the {_AXES[effect.axis]} {effect.one} in place of {effect.other}, {alike}"
    count = f"{len(effect.pairs)} {'pair' if len(effect.pairs) == 1 else 'pairs'} of models"
    if d.carried:
        way = "higher" if d.estimate.value > d.neutral else "lower"
        return Statement(f"{begun}, {m.about} is {way}: {change(m, d)}, {count}.", "carried")
    if d.none:
        return Statement(f"{begun}, {m.about} is the same in all {d.estimate.n} items, {count}.", "open")
    why = "too few items to tell" if d.too_few else "within chance"
    return Statement(f"{begun}, no change of {m.about} is shown, {why}: {change(m, d)}, {count}.", "open")
