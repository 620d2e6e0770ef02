"""A result as lines of text: every figure with its interval, and what the model's card asks for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["table", "verdict"]

_DIGITS = {
    "ms": 0,
    "ms/s": 1,
    "MB": 0,
    "ms/turn": 1,
    "MB/turn": 2,
    "MOS": 2,
    "ratio": 2,
    "bit": 2,
    "bit/s": 0,
    "perplexity": 0,
    "log Hz": 4,
    "frames": 2,
    "r": 3,
}


def table(result: Mapping[str, Any]) -> str:
    """The figures, a block for each benchmark."""
    lines = [f"{result['model']['name']}: figures with their 95 % interval, and what the model's card asks for"]
    for name, part in result["results"].items():
        lines += ["", f"{name}: {part['about']} ({_counted(part)})"]
        width = max((len(figure["about"]) for figure in part["figures"]), default=0)
        for figure in part["figures"]:
            shown = f"  {figure['about']:<{max(width, 46)}} {_interval(figure):<28}"
            if "floor" in figure:
                floor, aim = (_number(figure[k], figure["unit"]) for k in ("floor", "aim"))
                shown += f" floor {floor}, aim {aim}  {verdict(figure)}"
            lines.append(shown.rstrip())
        lines += [f"  note: {note}" for note in [*part["notes"], *_failures(part.get("counts"), part["notes"])]]
    if result["left_out"]:
        lines.append("")
    lines += [f"{name} was left out: {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines)


def _counted(part: Mapping[str, Any]) -> str:
    counts = part.get("counts")
    if counts is None:
        return f"{len(part['items'])} items"
    return ", ".join(f"{counts[k]} {k}" for k in ("asked", "answered", "failed"))


def _failures(counts: Mapping[str, Any] | None, notes: Sequence[str]) -> list[str]:
    """Why the first item failed, where no note says it."""
    reason = next(iter(counts["failures"].values()), None) if counts is not None and counts["failed"] else None
    return [] if reason is None or any(reason in n for n in notes) else [f"the first of those that failed: {reason}"]


def verdict(figure: Mapping[str, Any]) -> str:
    """Where a figure stands between its floor and its aim; nothing where these are words, or there is no figure."""
    value, floor, aim = figure["value"], figure["floor"], figure["aim"]
    if value is None or isinstance(floor, str) or isinstance(aim, str):
        return ""
    sign = 1 if aim > floor else -1
    if sign * (value - aim) >= 0:
        return "reached"
    return "over the floor" if sign * (value - floor) >= 0 else "SHORT OF THE FLOOR"


def _interval(figure: Mapping[str, Any]) -> str:
    unit = figure["unit"]
    if figure["value"] is None or math.isnan(figure["value"]):
        return "none"
    value, low, high = (_number(figure[k], unit) for k in ("value", "low", "high"))
    # The unit is said once.
    low, high = (text.partition(" ")[0] for text in (low, high))
    return f"{value} [{low}, {high}]"


def _number(value: float | str | None, unit: str) -> str:
    if value is None or isinstance(value, str):
        return str(value or "?")
    if unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.{_DIGITS[unit]}f}" + ("" if unit in ("MOS", "ratio", "perplexity", "r") else f" {unit}")
