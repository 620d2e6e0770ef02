"""Results as tables for a terminal, and as data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.cases import Case
from benchmarks.measure import Machine, Result, Spread, Work, Works
from benchmarks.serving import SILENCE, Serving
from benchmarks.turns import Interval, Turns

__all__ = ["Measured", "as_data", "heading", "serving_table", "table", "turns_table", "works_table"]

Measured = Result | Works | Turns | Serving | str
"""What came out of a case, or why nothing did."""

_COLUMNS = ("", "lalia", "peer", "times faster", "by CPU time", "aim", "machine's limit", "reached", "peak memory")
_GAP = 0.05
"""Seconds that nobody notices."""
_CLOCK = "real-time factor"
_TURN_COLUMNS = ("", "lalia", "peer", "times faster", "aim")
_LOAD_COLUMNS = ("", "clients", "answered", "first sound", "worst", "with gaps", "gaps", "model busy", "memory")
_WORK_COLUMNS = ("", "steps/s", "tokens/s", "real-time factor", "peak memory")


def heading(machine: Machine) -> str:
    """The machine in a line or two."""
    lines = [f"{machine.processor}, {machine.cores} cores, {machine.threads} threads for each side"]
    if machine.load > 0.5:
        lines.append(
            f"Other processes are at work (load {machine.load:.1f}): trust the ratios, not the absolute numbers."
        )
    return "\n".join(lines)


def table(cases: Sequence[Case], results: Mapping[str, Measured]) -> str:
    """The table of one group.

    :param results: by label; a string is why there is none.
    """
    first = cases[0]
    clocked = any(case.clock is not None for case in cases)
    rows = [(*_COLUMNS, _CLOCK) if clocked else _COLUMNS]
    for case in cases:
        result = results[case.label]
        if isinstance(result, str):
            rows.append((case.name, result))
        elif isinstance(result, Result):
            rows.append((case.name, *_cells(result), *([_factors(result)] if clocked else [])))
    peers = "; ".join(dict.fromkeys(case.peer for case in cases if case.peer is not None))
    return f"{first.group}: {first.quantity} (median, least to most), beside {peers}\n" + _align(rows)


def works_table(cases: Sequence[Case], results: Mapping[str, Measured]) -> str:
    """The table of a group whose cases have several works each."""
    rows: list[tuple[str, ...]] = [_WORK_COLUMNS]
    for case in cases:
        result = results[case.label]
        if isinstance(result, str):
            rows.append((case.name, result))
        elif isinstance(result, Works):
            rows += [
                (f"{case.name}: {n}", *_work_cells(w), f"{_mebi(result.peak)} MiB") for n, w in result.works.items()
            ]
    return f"{cases[0].group}, in their tiny forms (median, least to most)\n" + _align(rows)


def turns_table(cases: Sequence[Case], results: Mapping[str, Measured]) -> str:
    """The table of one case: a line for each part of the way to the first sound."""
    (case,) = cases
    result = results[case.label]
    if not isinstance(result, Turns):
        return f"{case.group}: {case.quantity}\n  not measured: {result}"
    rows: list[tuple[str, ...]] = [_TURN_COLUMNS]
    for name, part in result.parts.items():
        last = name == list(result.parts)[-1] and case.aim is not None
        aim = f">= {case.aim.number:g}x faster {'met' if result.reached else 'MISSED'}" if last and case.aim else ""
        rows.append((name, *(_interval(x) for x in (*part.value, part.speed)), aim))
    told = (
        f"{case.group}: {case.quantity} from the end of a question (median, 95 % interval over {result.understood} of "
        f"{result.asked} questions), beside {case.peer}; peak memory {' / '.join(map(_mebi, result.peak))} MiB"
    )
    return told + "\n" + _align(rows)


def serving_table(cases: Sequence[Case], results: Mapping[str, Measured]) -> str:
    """The table of a group whose cases are servers, a line for each number of clients."""
    rows: list[tuple[str, ...]] = [_LOAD_COLUMNS]
    told = [
        (
            f"{cases[0].group}: seconds from a user's last word to the first sound (median, worst), of which the "
            f"server waits {SILENCE} s for another word; answers that stopped in between, and for how long in all"
        )
    ]
    for case in cases:
        result = results[case.label]
        if isinstance(result, str):
            rows.append((case.name, result))
        elif isinstance(result, Serving):
            for load in result.loads:
                firsts = [a.first for a in load.answers] or [float("nan")]
                gaps = [a.gaps for a in load.answers if a.gaps > _GAP]
                rows.append(
                    (
                        *(case.name, str(load.clients), f"{len(load.answers)} of {load.asked}"),
                        *(f"{median(firsts):.2f} s", f"{max(firsts):.2f} s", str(len(gaps)), f"{sum(gaps):.1f} s"),
                        *(f"{100 * load.busy:.0f} %", f"{load.memory:.0f} MiB"),
                    )
                )
            if result.memory is not None:
                told.append(
                    f"{case.name}: {result.memory[0]:.0f} MiB after 10 sessions, {result.memory[1]:.0f} after 200"
                )
    return "\n".join(told) + "\n" + _align(rows)


def _align(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells as lines, the first of all being the names; of two cells, the second is what went wrong."""
    whole = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[i]) for row in whole) for i in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        if len(row) < len(rows[0]):
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
    beside = "" if result.cpu_speed is None else f", {result.cpu_speed.median:.2f}x"
    return (
        _spread(result.value[0]),
        _spread(result.value[1]) if len(result.value) > 1 else "",
        "" if result.speed is None else _spread(result.speed),
        _number(result.cpu_value) + beside,
        aim,
        _number(result.limit),
        f"{100 * result.used:.0f} %",
        " / ".join(_mebi(peak) for peak in result.peak) + " MiB",
    )


def _factors(result: Result) -> str:
    """Seconds of computing per second of sound, of each side."""
    clock = result.case.clock
    return "" if clock is None else " / ".join(_number(clock / value.median) for value in result.value)


def _work_cells(work: Work) -> tuple[str, ...]:
    return tuple("" if s is None else _spread(s) for s in (work.steps, work.tokens, work.factor))


def _mebi(size: int) -> str:
    return f"{size / 2**20:.0f}"


def _interval(interval: Interval) -> str:
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.995 else f"{value:.3f}"


def as_data(machine: Machine, results: Mapping[str, Measured]) -> dict[str, Any]:
    """Everything, round by round, as JSON data."""
    return {
        "machine": asdict(machine),
        "results": {
            label: {"failed": result} if isinstance(result, str) else asdict(result)
            for label, result in results.items()
        },
    }
