"""What the figures say, in words: no sentence claims what the intervals and the tests do not carry."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lalia.evaluation.comparison.differences import Difference, Effect, beside
from lalia.evaluation.comparison.measures import Column, Measure
from lalia.evaluation.statistics import Estimate

__all__ = ["Statement", "amount", "change", "number", "of_effect", "of_ranking", "unit_of"]

Verdict = Literal["carried", "open", "none"]


@dataclass(frozen=True)
class Statement:
    """A sentence, and whether it tells models apart.

    :param verdict: ``carried``: a difference that interval and test show; ``open``: none is shown; ``none``: nothing
        was compared.
    """

    text: str
    verdict: Verdict


def number(value: float, unit: str) -> str:
    """A figure of a unit, without it: a share in per cent, a large number in thousands."""
    if not math.isfinite(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.1f}"
    if unit == "parameters":
        return f"{value / 1e6:.1f}"
    if unit in ("MOS", "ratio", "times"):
        return f"{value:.2f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


_UNITS = {
    "share": " %",
    "MOS": "",
    "ratio": "",
    "nats": "",
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

    That one is best is said where it is told from every other, after Holm; models without common items are told apart
    by nothing, whatever their intervals.
    """
    m = column.measure
    known = {n: r for n, r in column.readings.items() if math.isfinite(r.estimate.value)}
    if m.better is None or not known:
        return Statement("", "none")
    sign = 1 if m.better == "lower" else -1
    order = sorted(known, key=lambda n: (sign * known[n].estimate.value, n))
    best, word = order[0], "lowest" if m.better == "lower" else "highest"
    shown = amount(known[best].estimate, m.unit)
    if len(order) == 1:
        return Statement(f"{best} alone has a figure for {m.about}: {shown}.", "none")
    if m.statistic == "exact":
        return _exact(column, order, word)
    found = beside(Column(m, known), best, seed=seed)
    apart = [n for n in order[1:] if _beaten(found[n], sign)]
    begun = f"Of {len(order)} models {best} has the {word} {m.about}"
    if len(apart) == len(order) - 1:
        said = "; ".join(f"{n} has {amount(known[n].estimate, m.unit)} ({_diff(m, found[n])})" for n in apart[:1])
        more = f", and so are the {len(apart) - 1} behind it" if len(apart) > 1 else ""
        return Statement(f"{begun}, {shown}. The next is told from it{more}: {said}.", "carried")
    doubt = [n for n in order[1:] if n not in apart]
    reasons = "; ".join(_doubt(n, amount(known[n].estimate, m.unit), m, found[n]) for n in doubt)
    told = f" It is told from {_listed(apart)}." if apart else ""
    text = f"The {word} {m.about} that was measured is {shown}, of {best}, but it is not shown to be the {word}: "
    return Statement(f"{text}{reasons}.{told}", "open")


def _exact(column: Column, order: Sequence[str], word: str) -> Statement:
    """Of figures that are known, not estimated."""
    m = column.measure
    first, second = (column.readings[n].estimate for n in order[:2])
    if first.value == second.value:
        same = [n for n in order if column.readings[n].estimate.value == first.value]
        return Statement(f"{_listed(same)} have the same {m.about}, {amount(first, m.unit)}.", "open")
    said = f"{amount(first, m.unit)}; {order[1]} has {amount(second, m.unit)}"
    return Statement(f"Of {len(order)} models {order[0]} has the {word} {m.about}, {said}.", "carried")


def _beaten(d: Difference | None, sign: int) -> bool:
    return d is not None and d.carried and sign * (d.estimate.value - d.neutral) > 0


def _diff(m: Measure, d: Difference | None) -> str:
    assert d is not None
    return change(m, d)


def _doubt(name: str, shown: str, m: Measure, d: Difference | None) -> str:
    """Why a model is not told from the best."""
    if d is None:
        return f"{name} has {shown}, and no items by which the two could be compared"
    if d.too_few:
        return f"{name} has {shown}, and {d.estimate.n} common items are too few to tell ({change(m, d)})"
    return f"the difference to {name}, {shown}, is within chance ({change(m, d)})"


def _listed(names: Sequence[str]) -> str:
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
    begun = f"With the {_AXES[effect.axis]} {effect.one} in place of {effect.other}, all else alike"
    count = f"{len(effect.pairs)} {'pair' if len(effect.pairs) == 1 else 'pairs'} of models"
    if d.carried:
        way = "higher" if d.estimate.value > d.neutral else "lower"
        return Statement(f"{begun}, {m.about} is {way}: {change(m, d)}, {count}.", "carried")
    why = "too few items to tell" if d.too_few else "within chance"
    return Statement(f"{begun}, no change of {m.about} is shown, {why}: {change(m, d)}, {count}.", "open")
