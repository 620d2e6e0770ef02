"""The one thread on which all work of the model is done: a unit at a time, the most urgent first.

A model uses all cores by itself, so that two units at once would only take longer each. What makes many sessions fair
is the order: whoever's sound runs dry first comes first, and what is not wanted yet waits.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, Protocol

import torch

from lalia.errors import LaliaError

__all__ = ["Call", "Due", "Work", "Worker"]

_log = logging.getLogger(__name__)


class Due(NamedTuple):
    """When the next unit of a work may be done, and when it should be, on the clock of the worker."""

    ready: float
    deadline: float


class Work(Protocol):
    """Work in units."""

    def due(self) -> Due | None:
        """When the next unit is; None where there is nothing to do until the worker is told otherwise."""
        ...

    def step(self) -> None:
        """Do it. What it raises ends the work."""
        ...

    def failed(self, error: BaseException) -> None:
        """``step`` raised this; the work is not asked again."""
        ...


class Call:
    """Work that is done when its units are, one after another, like that of a request.

    :param units: a generator; a unit ends where it yields.
    :param done: is told at the end, or what was raised.
    """

    def __init__(self, units: Iterator[None], done: Callable[[BaseException | None], None], *, deadline: float) -> None:
        self._units: Iterator[None] | None = units
        self._done, self._deadline = done, deadline
        self.cancelled = False

    def cancel(self) -> None:
        """No more of it is wanted; the units are closed on the worker."""
        self.cancelled = True

    def due(self) -> Due | None:
        return None if self._units is None else Due(0.0, self._deadline)

    def step(self) -> None:
        assert self._units is not None
        if self.cancelled:
            if isinstance(self._units, Generator):
                self._units.close()
        else:
            for _ in self._units:
                return
        self._units = None
        self._done(None)

    def failed(self, error: BaseException) -> None:
        self._units = None
        self._done(error)

    @property
    def over(self) -> bool:
        """Whether nothing of it is left."""
        return self._units is None


class Worker:
    """Does the work that it is given, until it is closed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.busy = 0.0
        """Seconds of work done so far."""
        self._works: dict[int, Work] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lalia-model", daemon=True)
        self._thread.start()

    def add(self, work: Work) -> None:
        """Take on a work."""
        with self._changed:
            self._works[id(work)] = work
            self._changed.notify()

    def remove(self, work: Work) -> None:
        """Do no more of a work after the unit that is being done."""
        with self._changed:
            self._works.pop(id(work), None)

    def wake(self) -> None:
        """There may be something to do."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Stop after the unit that is being done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether it does no more work."""
        return self._closed

    def _next(self) -> Work | None:
        """The most urgent work that is ready; waits for one, and gives none when it is closed."""
        with self._changed:
            while not self._closed:
                now, soonest = self.clock(), None
                best: tuple[float, Work] | None = None
                for key, work in list(self._works.items()):
                    due = work.due()
                    if due is None:
                        if isinstance(work, Call) and work.over:
                            del self._works[key]
                    elif due.ready <= now:
                        if best is None or due.deadline < best[0]:
                            best = (due.deadline, work)
                    elif soonest is None or due.ready < soonest:
                        soonest = due.ready
                if best is not None:
                    return best[1]
                self._changed.wait(None if soonest is None else max(soonest - now, 0.001))
            return None

    def _run(self) -> None:
        with torch.inference_mode():
            while (work := self._next()) is not None:
                started = time.perf_counter()
                try:
                    work.step()
                except Exception as error:  # noqa: BLE001  one session's fault is not another's
                    self.remove(work)
                    # What a request is refused for is told to whom it concerns, and may quote what he sent.
                    if not (isinstance(work, Call) and isinstance(error, LaliaError | UnicodeEncodeError)):
                        _log.exception("work failed")
                    work.failed(error)
                self.busy += time.perf_counter() - started
