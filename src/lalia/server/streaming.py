"""Work of the worker as something to wait for: what a request's units give, as they give it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar, cast

from lalia.server.worker import Call, Due, Worker

__all__ = ["one", "stream"]

T = TypeVar("T")

_AHEAD = 64
"""Pieces that are made before somebody takes the first."""


class _Streamed(Call, Generic[T]):
    """A call whose pieces go to an event loop; no more are made than are taken."""

    def __init__(self, make: Callable[[], Iterator[T]], loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        self.queue: asyncio.Queue[tuple[T | None, BaseException | None, bool]] = asyncio.Queue()
        self._loop, self.waiting = loop, 0
        super().__init__(self._units_of(make), self._over, deadline=deadline)

    def _units_of(self, make: Callable[[], Iterator[T]]) -> Iterator[None]:
        for piece in make():
            self.waiting += 1
            self._put((piece, None, False))
            yield

    def _over(self, error: BaseException | None) -> None:
        self._put((None, error, True))

    def _put(self, what: tuple[T | None, BaseException | None, bool]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.queue.put_nowait, what)

    def due(self) -> Due | None:
        return None if self.waiting >= _AHEAD and not self.cancelled else super().due()


async def stream(worker: Worker, make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """What an iterator gives that is gone through on the worker, a piece a unit.

    Whoever stops going through it ends the work.

    :param make: called on the worker.
    """
    call = _Streamed(make, asyncio.get_running_loop(), worker.clock())
    worker.add(call)
    try:
        while True:
            piece, error, last = await call.queue.get()
            if error is not None:
                raise error
            if last:
                return
            call.waiting -= 1
            worker.wake()
            yield cast(T, piece)
    finally:
        call.cancel()
        worker.wake()


async def one(worker: Worker, make: Callable[[], T]) -> T:
    """What a function gives that is called on the worker."""

    def once() -> Iterator[T]:
        yield make()

    async for value in stream(worker, once):
        return value
    raise RuntimeError("the work gave nothing")
