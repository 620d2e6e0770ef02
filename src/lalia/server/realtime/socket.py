"""A session of the Realtime protocol over a WebSocket: what comes in waits its turn, what goes out does not wait."""

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from lalia.server.metrics import Metrics
from lalia.server.realtime.session import RealtimeSession
from lalia.server.settings import Settings
from lalia.server.worker import Call, Due, Worker

__all__ = ["Connection"]

_log = logging.getLogger(__name__)

_APPEND = '"input_audio_buffer.append"'

_BYTES_PER_SECOND = 64_000
"""Of sound in an event: 24 kHz, 16 bits, base64."""

_WAITING_BYTES = 4 * 2**20
"""Of events that wait to be done, from which on no more are read: who sends faster is slowed down."""

_QUANTUM = 0.1
"""Seconds within which an event should be done."""


class Connection:
    """Work for one client: its events, and the replies to them."""

    def __init__(
        self,
        socket: WebSocket,
        make: Callable[[Callable[[dict[str, Any]], None]], RealtimeSession],
        worker: Worker,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._socket, self._worker, self._settings, self._metrics = socket, worker, settings, metrics
        self._loop = asyncio.get_running_loop()
        self.session = make(self._send)
        self._started = False
        self._inbox: deque[tuple[float, float, str]] = deque()
        """Deadline, arrival and text of events."""
        self._inbox_bytes = 0
        self._audio_until = 0.0
        """The clock at which the sound that came would have been spoken, had it not come faster."""
        self._lock = threading.Lock()
        self._room = asyncio.Event()
        self._room.set()
        self._out: asyncio.Queue[str | None] = asyncio.Queue()
        self._out_bytes = 0
        self._ended: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._asked: float | None = None
        self._allowance, self._allowed_at = 10 * settings.events_per_second, worker.clock()
        self.read_at = worker.clock()

    # -- on the worker -------------------------------------------------------------------------

    def due(self) -> Due | None:
        if not self._started:
            return Due(0.0, 0.0)
        reply = self.session.due()
        try:
            event = Due(0.0, self._inbox[0][0])
        except IndexError:
            return reply
        if reply is None or reply.deadline >= event.deadline or reply.ready > self._worker.clock():
            return event
        return reply

    def step(self) -> None:
        if not self._started:
            self._started = True
            self.session.start()
            return
        reply, event = self.session.due(), self._inbox[0] if self._inbox else None
        now = self._worker.clock()
        if event is None or (reply is not None and reply.ready <= now and reply.deadline < event[0]):
            self.session.step()
            return
        with self._lock:
            _, arrived, text = self._inbox.popleft()
            self._inbox_bytes -= len(text)
            freed = self._inbox_bytes <= _WAITING_BYTES
        self.session.receive(text)
        self._metrics.lag.observe(self._worker.clock() - arrived)
        if freed and not self._room.is_set():
            self._loop.call_soon_threadsafe(self._room.set)

    def _closing(self) -> Iterator[None]:
        self.session.close()
        yield

    def failed(self, error: BaseException) -> None:
        self.session.complain("The server failed.", "internal_error", kind="server_error")
        self._end(1011, "internal error")

    def _send(self, event: dict[str, Any]) -> None:
        """From the worker, or from the loop."""
        self._count(event)
        text = json.dumps(event, separators=(",", ":"))
        with self._lock:
            self._out_bytes += len(text)
            slow = self._out_bytes > self._settings.waiting_bytes
        if slow:
            self._end(1008, "too slow: events were not read")
        else:
            self._loop.call_soon_threadsafe(self._out.put_nowait, text)

    def _count(self, event: dict[str, Any]) -> None:
        kind, metrics = event["type"], self._metrics
        metrics.events.labels("out", kind).inc()
        if kind == "response.created":
            self._asked = time.perf_counter()
        elif kind == "response.output_audio.delta":
            if self._asked is not None:
                metrics.first_sound.observe(time.perf_counter() - self._asked)
                self._asked = None
        elif kind == "response.done":
            metrics.replies.labels(event["response"]["status"]).inc()

    def _end(self, code: int, reason: str) -> None:
        def end() -> None:
            if not self._ended.done():
                self._ended.set_result((code, reason))

        self._loop.call_soon_threadsafe(end)

    # -- on the event loop ---------------------------------------------------------------------

    async def serve(self) -> None:
        """Until the client goes, or has to."""
        self._worker.add(self)
        tasks = [asyncio.create_task(x) for x in (self._read(), self._write(), self._watch())]
        waited: list[asyncio.Future[Any]] = [*tasks, self._ended]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._worker.remove(self)
            # What is being made is closed where it is made.
            done = asyncio.Event()

            def over(_: BaseException | None) -> None:
                self._loop.call_soon_threadsafe(done.set)

            if not self._worker.closed:
                self._worker.add(Call(self._closing(), over, deadline=0.0))
                await done.wait()
        code, reason = self._ended.result() if self._ended.done() else (1000, "client left")
        self._metrics.ended.labels(reason).inc()
        _log.info("session ended", extra={"session": self.session.id, "code": code, "reason": reason})
        await self._close(code, reason)

    async def finish(self, seconds: float) -> None:
        """Let the reply that is made go out, and end the session: the server is to stop."""
        until = self._worker.clock() + seconds
        while (self.session.replying or self._out_bytes) and self._worker.clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.session.complain(
            "The server is being stopped. Connect again later.", "server_stopping", kind="server_error"
        )
        await asyncio.sleep(0)
        while self._out_bytes and self._worker.clock() < until + 1.0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._end(1001, "server stopped")

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                self._end(1000, "client left")
                return
            text = message.get("text")
            self.read_at = self._worker.clock()
            if text is None:
                # Sound comes as text here; who sends bytes speaks another protocol.
                self.session.complain("Events are JSON in text messages, not bytes.", "invalid_json")
                continue
            await self._allow()
            self._metrics.events.labels("in", "append" if _APPEND in text[:200] else "other").inc()
            self._put(text)
            if self._inbox_bytes > _WAITING_BYTES:
                self._room.clear()
                await self._room.wait()

    def _put(self, text: str) -> None:
        now = self._worker.clock()
        deadline = max(now, self._audio_until) + _QUANTUM
        if _APPEND in text[:200]:
            seconds = len(text) / _BYTES_PER_SECOND
            self._metrics.heard.inc(seconds)
            # Sound that comes faster than it can be spoken is no more urgent for that.
            self._audio_until = max(now, self._audio_until) + seconds
        with self._lock:
            self._inbox.append((deadline, now, text))
            self._inbox_bytes += len(text)
        self._worker.wake()

    async def _allow(self) -> None:
        """Wait, where there are too many events."""
        rate, now = self._settings.events_per_second, self._worker.clock()
        self._allowance = min(self._allowance + (now - self._allowed_at) * rate, 10 * rate) - 1
        self._allowed_at = now
        if self._allowance < 0:
            await asyncio.sleep(-self._allowance / rate)

    async def _write(self) -> None:
        while (text := await self._out.get()) is not None:
            try:
                await self._socket.send_text(text)
            except (WebSocketDisconnect, RuntimeError, OSError):
                self._end(1000, "client left")
                return
            with self._lock:
                self._out_bytes -= len(text)

    async def _watch(self) -> None:
        """End a session that is too long, or in which nothing comes."""
        begun = self._worker.clock()
        while True:
            await asyncio.sleep(min(self._settings.idle_seconds / 4, 5.0))
            now = self._worker.clock()
            if now - begun > self._settings.session_seconds:
                self._say_and_end("session_expired", f"A session lasts {self._settings.session_seconds:g} s at most.")
            elif now - self.read_at > self._settings.idle_seconds and not self.session.replying:
                self._say_and_end("session_idle", f"Nothing came for {self._settings.idle_seconds:g} s.")

    def _say_and_end(self, code: str, message: str) -> None:
        self.session.complain(message, code)
        self._loop.call_later(0.2, lambda: self._end(1000, code))

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            try:
                async with asyncio.timeout(2.0):
                    await self._socket.close(code, reason)
            except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
                pass  # it is gone already
