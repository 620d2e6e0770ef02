"""What the command line prints: progress, results, and one line for each mistake."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress", "show", "tell"]

_EVERY_SECONDS = 10.0


def tell(text: str) -> None:
    """A line for the person at the terminal; standard output is kept for results."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def show(result: Any, text: str, *, as_json: bool) -> None:
    """The result of a command: one JSON value, or text."""
    print(json.dumps(_plain(result), ensure_ascii=False, allow_nan=False) if as_json else text, flush=True)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null says that there is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


@contextmanager
def progress(label: str, unit: str = "") -> Iterator[Callable[[float, float], None]]:
    """Calls with (done, total) draw a bar on a terminal, and a plain line every few seconds elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = time.monotonic()

    def line(done: float, total: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY_SECONDS:
            last = now
            share = f"{100 * done / total:.0f} % " if total else ""
            tell(f"{label}: {share}({done:.0f} of {total:.0f}{' ' + unit if unit else ''})")

    yield line
