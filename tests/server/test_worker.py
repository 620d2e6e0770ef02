"""The order of work: whose sound runs dry first comes first."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lalia.server.streaming import one, stream
from lalia.server.worker import Call, Due, Worker


class Job:
    """Units with deadlines, all ready at once unless it says otherwise."""

    def __init__(self, name: str, deadlines: list[float], done: list[str], ready: float = 0.0) -> None:
        self.name, self.deadlines, self.done, self.ready = name, deadlines, done, ready
        self.error: BaseException | None = None

    def due(self) -> Due | None:
        return Due(self.ready, self.deadlines[0]) if self.deadlines else None

    def step(self) -> None:
        if self.deadlines.pop(0) < 0:
            raise ValueError(self.name)
        self.done.append(self.name)

    def failed(self, error: BaseException) -> None:
        self.error = error


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def settle(worker: Worker) -> None:
    """Wait until all that is ready is done."""
    done = threading.Event()
    worker.add(Call(iter(()), lambda _: done.set(), deadline=1e9))
    assert done.wait(20)


def held(worker: Worker) -> threading.Event:
    """The worker does nothing until this is set."""
    gate, begun = threading.Event(), threading.Event()

    def wait() -> Iterator[None]:
        begun.set()
        gate.wait(20)
        yield

    worker.add(Call(wait(), lambda _: None, deadline=-1e9))
    assert begun.wait(20)
    return gate


def test_the_most_urgent_comes_first(worker: Worker) -> None:
    done: list[str] = []
    gate = held(worker)
    for job in (Job("late", [9, 10], done), Job("soon", [1, 5], done), Job("between", [2, 9.5], done)):
        worker.add(job)
    gate.set()
    settle(worker)
    assert done == ["soon", "between", "soon", "late", "between", "late"]


def test_what_is_not_ready_waits_and_holds_up_nobody() -> None:
    now, done = [0.0], list[str]()
    worker = Worker(clock=lambda: now[0])
    later = Job("later", [0.0], done, ready=5.0)
    gate = held(worker)
    for job in (later, Job("now", [100.0], done)):
        worker.add(job)
    gate.set()
    settle(worker)
    assert done == ["now"]
    now[0] = 6.0
    worker.wake()
    settle(worker)
    assert done == ["now", "later"]
    worker.close()


def test_a_fault_ends_one_work_alone(worker: Worker) -> None:
    done: list[str] = []
    bad, good = Job("bad", [-1.0, 1.0], done), Job("good", [2.0, 3.0], done)
    worker.add(bad)
    worker.add(good)
    settle(worker)
    assert done == ["good", "good"]
    assert isinstance(bad.error, ValueError)


def test_pieces_come_as_they_are_made_and_no_more_than_are_taken(worker: Worker) -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            yield i

    async def first(n: int) -> list[int]:
        taken: list[int] = []
        async for i in stream(worker, numbers):
            taken.append(i)
            if len(taken) == n:
                break
        return taken

    assert asyncio.run(first(5)) == [0, 1, 2, 3, 4]
    settle(worker)
    assert len(made) < 100


def test_whoever_stops_taking_ends_the_work(worker: Worker) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async def some() -> None:
        pieces: Any = stream(worker, endless)
        assert await anext(pieces) == 1
        await pieces.aclose()

    asyncio.run(some())
    assert closed.wait(20)
    settle(worker)
    assert not worker._works


def test_what_is_raised_is_raised_where_it_is_waited_for(worker: Worker) -> None:
    def wrong() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(one(worker, wrong))
    assert asyncio.run(one(worker, lambda: 3)) == 3
