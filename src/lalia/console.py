"""What the command line prints: progress, results, and one line for each mistake."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress", "show", "tell"]


def tell(text: str) -> None:
    """A line for the person at the terminal; standard output is kept for results."""
    print(text, file=sys.stderr, flush=True)


def show(result: Any, text: str, *, as_json: bool) -> None:
    """The result of a command: one JSON object, or text."""
    print(json.dumps(result, ensure_ascii=False) if as_json else text, flush=True)


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
        if now - last >= 10.0 or (total and done >= total):
            last = now
            share = f"{100 * done / total:.0f} %" if total else ""
            tell(f"{label}: {share} ({done:.0f} of {total:.0f}{' ' + unit if unit else ''})")

    yield line
