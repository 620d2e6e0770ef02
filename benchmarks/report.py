"""Results as tables for a terminal, and as data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.cases import Case
from benchmarks.measure import Machine, Result, Spread

__all__ = ["as_data", "heading", "table"]

_COLUMNS = ("", "lalia", "peer", "times faster", "by CPU time", "aim", "machine's limit", "reached", "peak memory")


def heading(machine: Machine) -> str:
    """The machine in a line or two."""
    lines = [f"{machine.processor}, {machine.cores} cores, {machine.threads} threads for each side"]
    if machine.load > 0.5:
        lines.append(
            f"Other processes are at work (load {machine.load:.1f}): trust the ratios, not the absolute numbers."
        )
    return "\n".join(lines)


def table(cases: Sequence[Case], results: Mapping[str, Result | str]) -> str:
    """The table of one group.

    :param results: by label; a string is why there is none.
    """
    first = cases[0]
    rows = [_COLUMNS]
    for case in cases:
        result = results[case.label]
        rows.append((case.name, *([result] if isinstance(result, str) else _cells(result))))
    whole = [row for row in rows if len(row) == len(_COLUMNS)]
    widths = [max(len(row[i]) for row in whole) for i in range(len(_COLUMNS))]
    widths[0] = max(len(row[0]) for row in rows)
    peers = "; ".join(dict.fromkeys(case.peer for case in cases))
    lines = [f"{first.group}: {first.quantity} (median, least to most), beside {peers}"]
    for row in rows:
        if len(row) < len(_COLUMNS):
            lines.append(f"  {row[0]:<{widths[0]}}  not measured: {row[1]}")
        else:
            lines.append("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _cells(result: Result) -> tuple[str, ...]:
    case = result.case
    aim = ""
    if case.aim is not None:
        sign = "<=" if case.aim.of == "value" and case.quantity == "real-time factor" else ">="
        what = "x faster" if case.aim.of == "ratio" else ""
        aim = f"{sign} {case.aim.number:g}{what} {'met' if result.reached else 'MISSED'}"
    return (
        _spread(result.value[0]),
        _spread(result.value[1]),
        _spread(result.speed),
        f"{_number(result.cpu_value)}, {result.cpu_speed.median:.2f}x",
        aim,
        _number(result.limit),
        f"{100 * result.used:.0f} %",
        " / ".join(f"{peak / 2**20:.0f}" for peak in result.peak) + " MiB",
    )


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.995 else f"{value:.3f}"


def as_data(machine: Machine, results: Mapping[str, Result | str]) -> dict[str, Any]:
    """Everything, round by round, as JSON data."""
    return {
        "machine": asdict(machine),
        "results": {
            label: {"failed": result} if isinstance(result, str) else asdict(result)
            for label, result in results.items()
        },
    }
