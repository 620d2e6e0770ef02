"""A client at a socket: what goes out does not wait, what comes in too fast does, and every end has its reason."""

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from lalia.server.metrics import Metrics
from lalia.server.settings import Settings
from lalia.server.worker import Call, Work, Worker

__all__ = ["WAITING_BYTES", "Link"]

_log = logging.getLogger(__name__)

WAITING_BYTES = 4 * 2**20
"""Of what came in and waits to be done, from which on no more is read: who sends faster is slowed down."""


class Link(ABC):
    """What all sockets of sessions have in common; made on the event loop.

    :param session_id: for the log.
    """

    def __init__(
        self, socket: WebSocket, worker: Worker, settings: Settings, metrics: Metrics, session_id: str
    ) -> None:
        self.socket, self.worker, self.settings, self.metrics = socket, worker, settings, metrics
        self.id = session_id
        self.loop = asyncio.get_running_loop()
        self.lock = threading.Lock()
        self.room = asyncio.Event()
        """Whether what waits is little enough that more may be read."""
        self.room.set()
        self._out: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._out_bytes = 0
        self._ended: asyncio.Future[tuple[int, str]] = self.loop.create_future()
        self._allowance, self._allowed_at = 10 * settings.events_per_second, worker.clock()
        self._read_at = worker.clock()

    # -- for the kinds of links ----------------------------------------------------------------

    @property
    @abstractmethod
    def replying(self) -> bool:
        """Whether there is something that should be finished before an end."""

    @abstractmethod
    def work(self) -> Work:
        """What the worker does for this client."""

    @abstractmethod
    def leave(self) -> None:
        """Have the worker do no more of it."""

    @abstractmethod
    async def received(self, message: MutableMapping[str, Any]) -> None:
        """Take a message."""

    @abstractmethod
    def tell(self, code: str, message: str, *, fault: bool = False) -> None:
        """Say in the protocol of the client what is wrong."""

    @abstractmethod
    def close(self) -> None:
        """End what is being made; on the worker."""

    # -- from the worker, or from the loop -----------------------------------------------------

    def send(self, data: str | bytes) -> None:
        """Have it go out; who leaves too much unread is ended."""
        with self.lock:
            self._out_bytes += len(data)
            slow = self._out_bytes > self.settings.waiting_bytes
        if slow:
            self.end(1008, "too slow: events were not read")
        else:
            self.loop.call_soon_threadsafe(self._out.put_nowait, data)

    def end(self, code: int, reason: str) -> None:
        """Have the session be over, for a reason."""

        def end() -> None:
            if not self._ended.done():
                self._ended.set_result((code, reason))

        self.loop.call_soon_threadsafe(end)

    # -- on the event loop ---------------------------------------------------------------------

    async def serve(self) -> None:
        """Until the client goes, or has to."""
        work = self.work()
        self.worker.add(work)
        tasks = [asyncio.create_task(x) for x in (self._read(), self._write(), self._watch())]
        waited: list[asyncio.Future[Any]] = [*tasks, self._ended]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.leave()
            # What is being made is closed where it is made.
            done = asyncio.Event()

            def over(_: BaseException | None) -> None:
                self.loop.call_soon_threadsafe(done.set)

            if not self.worker.closed:
                self.worker.add(Call(self._closing(), over, deadline=0.0))
                await done.wait()
        code, reason = self._ended.result() if self._ended.done() else (1000, "client left")
        self.metrics.ended.labels(reason).inc()
        _log.info("session ended", extra={"session": self.id, "code": code, "reason": reason})
        if self.socket.application_state is WebSocketState.CONNECTED:
            try:
                async with asyncio.timeout(2.0):
                    await self.socket.close(code, reason)
            except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
                pass  # it is gone already

    async def finish(self, seconds: float) -> None:
        """Let what is being made go out, and end the session: the server is to stop."""
        until = self.worker.clock() + seconds
        while (self.replying or self._out_bytes) and self.worker.clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.tell("server_stopping", "The server is being stopped. Connect again later.", fault=True)
        await asyncio.sleep(0)
        while self._out_bytes and self.worker.clock() < until + 1.0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self.end(1001, "server stopped")

    def _closing(self) -> Iterator[None]:
        self.close()
        yield

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                self.end(1000, "client left")
                return
            self._read_at = self.worker.clock()
            await self._allow()
            await self.received(message)
            await self.room.wait()

    async def _allow(self) -> None:
        """Wait, where there are too many messages."""
        rate, now = self.settings.events_per_second, self.worker.clock()
        self._allowance = min(self._allowance + (now - self._allowed_at) * rate, 10 * rate) - 1
        self._allowed_at = now
        if self._allowance < 0:
            await asyncio.sleep(-self._allowance / rate)

    async def _write(self) -> None:
        while True:
            data = await self._out.get()
            try:
                await (self.socket.send_text(data) if isinstance(data, str) else self.socket.send_bytes(data))
            except (WebSocketDisconnect, RuntimeError, OSError):
                self.end(1000, "client left")
                return
            with self.lock:
                self._out_bytes -= len(data)

    async def _watch(self) -> None:
        """End a session that is too long, or in which nothing comes."""
        begun = self.worker.clock()
        while True:
            await asyncio.sleep(min(self.settings.idle_seconds / 4, 5.0))
            now = self.worker.clock()
            if now - begun > self.settings.session_seconds:
                self._tell_and_end("session_expired", f"A session lasts {self.settings.session_seconds:g} s at most.")
            elif now - self._read_at > self.settings.idle_seconds and not self.replying:
                self._tell_and_end("session_idle", f"Nothing came for {self.settings.idle_seconds:g} s.")

    def _tell_and_end(self, code: str, message: str) -> None:
        self.tell(code, message)
        self.loop.call_later(0.2, lambda: self.end(1000, code))
