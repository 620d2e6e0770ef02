"""Drawings of a comparison, as SVG that needs nothing from outside: quality against cost, and intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from lalia.evaluation.comparison.words import amount, unit_of
from lalia.evaluation.statistics import Estimate

__all__ = ["Point", "Side", "bar", "frontier", "plot"]

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 44
_SPAN = 10.0
"""A cost that spans more than this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Side:
    """An axis."""

    about: str
    unit: str
    better: str


@dataclass(frozen=True)
class Point:
    """A model: ``number`` is what stands beside it in the drawing, and names it in all others."""

    name: str
    number: int
    x: Estimate
    y: Estimate


def frontier(points: Sequence[Point], x: Side, y: Side) -> list[Point]:
    """Those than which no other is as good in both and better in one, by the measured values, by cost."""

    def key(p: Point) -> tuple[float, float]:
        return (
            p.x.value if x.better == "lower" else -p.x.value,
            p.y.value if y.better == "lower" else -p.y.value,
        )

    def beaten(p: Point) -> bool:
        a, b = key(p)
        return any(c <= a and d <= b and (c, d) != (a, b) for c, d in map(key, points))

    return sorted((p for p in points if not beaten(p)), key=key)


def plot(points: Sequence[Point], x: Side, y: Side) -> str:
    """Quality over cost, with the intervals of both, and the frontier."""
    best = frontier(points, x, y)
    xs = [v for p in points for v in (p.x.value, p.x.low, p.x.high) if math.isfinite(v)]
    ys = [v for p in points for v in (p.y.value, p.y.low, p.y.high) if math.isfinite(v)]
    logarithmic = min(xs) > 0 and max(xs) / min(xs) > _SPAN
    place_x, ticks_x = _scale(xs, _LEFT, _WIDTH - _RIGHT, logarithmic)
    place_y, ticks_y = _scale(ys, _HEIGHT - _BOTTOM, _TOP, False)
    label = f"{y.about} against {x.about}"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}" class="plot">']
    for tick in ticks_y:
        at = place_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        label = _tick(tick, y.unit, ticks_y)
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>')
    for tick in ticks_x:
        at = place_x(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        label = _tick(tick, x.unit, ticks_x)
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{label}</text>'
        )
    scale = ", logarithmic" if logarithmic else ""
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="side" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{_title(x)}{scale}</text>'
        f'<text class="side" transform="translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{_title(y)}</text>'
    )
    if len(best) > 1:
        path = " ".join(f"{place_x(p.x.value):.1f},{place_y(p.y.value):.1f}" for p in best)
        parts.append(f'<polyline class="frontier" points="{path}"/>')
    parts += [_mark(p, x, y, place_x, place_y, on=p in best) for p in sorted(points, key=lambda p: p in best)]
    return "".join((*parts, "</svg>"))


def _mark(
    p: Point, x: Side, y: Side, place_x: Callable[[float], float], place_y: Callable[[float], float], *, on: bool
) -> str:
    at, up = place_x(p.x.value), place_y(p.y.value)
    where = "on the frontier" if on else "behind the frontier"
    tip = f"{p.number} {p.name}: {y.about} {amount(p.y, y.unit)}; {x.about} {amount(p.x, x.unit)}; {where}"
    found = [f'<g class="mark c{p.number % 8}{" best" if on else ""}" tabindex="0"><title>{escape(tip)}</title>']
    if math.isfinite(p.y.low) and math.isfinite(p.y.high):
        found.append(
            f'<line class="interval" x1="{at:.1f}" x2="{at:.1f}" '
            f'y1="{place_y(p.y.low):.1f}" y2="{place_y(p.y.high):.1f}"/>'
        )
    if math.isfinite(p.x.low) and math.isfinite(p.x.high):
        found.append(
            f'<line class="interval" x1="{place_x(p.x.low):.1f}" x2="{place_x(p.x.high):.1f}" '
            f'y1="{up:.1f}" y2="{up:.1f}"/>'
        )
    found.append(f'<circle cx="{at:.1f}" cy="{up:.1f}" r="9"/>')
    found.append(f'<text x="{at:.1f}" y="{up + 3.8:.1f}" text-anchor="middle">{p.number}</text></g>')
    return "".join(found)


def _title(side: Side) -> str:
    unit = unit_of(side.unit).strip()
    return escape(f"{side.about}{f' ({unit})' if unit else ''} {'↓' if side.better == 'lower' else '↑'}")


def _tick(value: float, unit: str, ticks: Sequence[float]) -> str:
    scaled = value * {"share": 100, "parameters": 1e-6}.get(unit, 1)
    step = abs(ticks[1] - ticks[0]) * {"share": 100, "parameters": 1e-6}.get(unit, 1) if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{scaled:.{digits}f}"


def _scale(
    values: Sequence[float], start: float, end: float, logarithmic: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value is drawn, and the round values to be marked."""
    if logarithmic:
        low, high = math.log10(min(values)) - 0.1, math.log10(max(values)) + 0.1
        ticks = [10.0**k * m for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 3)]
        ticks = [t for t in ticks if low <= math.log10(t) <= high]
        return lambda v: start + (end - start) * (math.log10(v) - low) / (high - low), ticks
    least, most = min(values), max(values)
    room = (most - least) * 0.08 or abs(most) * 0.1 or 1.0
    low, high = least - room, most + room
    if least >= 0 > low:
        low = 0.0
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    ticks = [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return lambda v: start + (end - start) * (v - low) / (high - low), ticks


def bar(estimate: Estimate, low: float, high: float, others: Sequence[float] = ()) -> str:
    """An interval between two bounds that are those of its column, with marks where references stand."""

    def at(v: float) -> float:
        return 100.0 if high <= low else min(max(100 * (v - low) / (high - low), 0.0), 100.0)

    ends = [v if math.isfinite(v) else estimate.value for v in (estimate.low, estimate.high)]
    left, right = at(ends[0]), at(ends[1])
    marks = "".join(f'<rect class="reference" x="{at(v):.1f}" y="0" width="0.8" height="10"/>' for v in others)
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" x="0" y="4.4" width="100" height="1.2"/>{marks}'
        f'<rect class="range" x="{left:.1f}" y="3" width="{max(right - left, 0.6):.1f}" height="4"/>'
        f'<rect class="value" x="{max(at(estimate.value) - 0.9, 0):.1f}" y="0.5" width="1.8" height="9"/></svg>'
    )
