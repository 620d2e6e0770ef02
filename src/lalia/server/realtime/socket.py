"""A session of the Realtime protocol at a WebSocket."""

import json
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.websockets import WebSocket

from lalia.server.link import WAITING_BYTES, Link
from lalia.server.metrics import Metrics
from lalia.server.realtime.session import RealtimeSession
from lalia.server.settings import Settings
from lalia.server.wire import PCM, WireFormat
from lalia.server.worker import Due, Work, Worker

__all__ = ["Connection"]

_APPEND = '"input_audio_buffer.append"'

_BYTES_PER_SECOND = 64_000
"""Of sound in an event: 24 kHz, 16 bits, base64."""

_AT_ONCE = _BYTES_PER_SECOND // 2
"""Of sound that is heard at once, at most, where more of it waits."""

_QUANTUM = 0.1
"""Seconds within which an event should be done."""


class Connection(Link):
    """Work for one client: its events, and the replies to them.

    :param make: a session that sends by what it is given.
    """

    def __init__(
        self,
        socket: WebSocket,
        make: Callable[[Callable[[dict[str, Any]], None]], RealtimeSession],
        worker: Worker,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.session = make(self._emit)
        super().__init__(socket, worker, settings, metrics, self.session.id)
        self._started = False
        self._inbox: deque[tuple[float, float, str]] = deque()
        """Deadline, arrival and text of events."""
        self._inbox_bytes = 0
        self._audio_until = 0.0
        """The clock at which the sound that came would have been spoken, had it not come faster."""
        self._asked: float | None = None
        self._format = PCM
        """Of the reply that is made."""

    @property
    def replying(self) -> bool:
        return self.session.replying

    def work(self) -> Work:
        return self

    def leave(self) -> None:
        self.worker.remove(self)

    def close(self) -> None:
        self.session.close()

    def tell(self, code: str, message: str, *, fault: bool = False) -> None:
        self.session.complain(message, code, kind="server_error" if fault else "invalid_request_error")

    # -- on the worker -------------------------------------------------------------------------

    def due(self) -> Due | None:
        if not self._started:
            return Due(0.0, 0.0)
        reply = self.session.due()
        try:
            event = Due(0.0, self._inbox[0][0])
        except IndexError:
            return reply
        if reply is None or reply.deadline >= event.deadline or reply.ready > self.worker.clock():
            return event
        return reply

    def step(self) -> None:
        if not self._started:
            self._started = True
            self.session.start()
            return
        reply, event = self.session.due(), self._inbox[0] if self._inbox else None
        now = self.worker.clock()
        if event is None or (reply is not None and reply.ready <= now and reply.deadline < event[0]):
            self.session.step()
            return
        with self.lock:
            _, arrived, text = self._inbox.popleft()
            taken = [text]
            # Sound that has had to wait is heard in longer pieces, which cost less.
            size = len(text)
            while _is_sound(text) and self._inbox and _is_sound(self._inbox[0][2]) and size < _AT_ONCE:
                taken.append(self._inbox.popleft()[2])
                size += len(taken[-1])
            self._inbox_bytes -= sum(map(len, taken))
            freed = self._inbox_bytes <= WAITING_BYTES
        self.session.receive(*taken)
        self.metrics.lag.observe(self.worker.clock() - arrived)
        if freed and not self.room.is_set():
            self.loop.call_soon_threadsafe(self.room.set)

    def failed(self, error: BaseException) -> None:
        self.tell("internal_error", "The server failed.", fault=True)
        self.end(1011, "internal error")

    def _emit(self, event: dict[str, Any]) -> None:
        self._count(event)
        self.send(json.dumps(event, separators=(",", ":")))

    def _count(self, event: dict[str, Any]) -> None:
        kind, metrics = event["type"], self.metrics
        metrics.events.labels("out", kind).inc()
        if kind == "response.created":
            self._asked = time.perf_counter()
            form = event["response"]["audio"]["output"]["format"]
            self._format = WireFormat(form["type"], form.get("rate", 8000))
        elif kind == "response.output_audio.delta":
            metrics.spoken.inc(len(event["delta"]) * 3 / 4 / self._format.width / self._format.rate)
            if self._asked is not None:
                metrics.first_sound.observe(time.perf_counter() - self._asked)
                self._asked = None
        elif kind == "response.done":
            metrics.replies.labels(event["response"]["status"]).inc()

    # -- on the event loop ---------------------------------------------------------------------

    async def received(self, message: MutableMapping[str, Any]) -> None:
        text = message.get("text")
        if text is None:
            # Sound comes as text here; who sends bytes speaks another protocol.
            self.tell("invalid_json", "Events are JSON in text messages, not bytes.")
            return
        sound = _is_sound(text)
        self.metrics.events.labels("in", "append" if sound else "other").inc()
        now = self.worker.clock()
        deadline = max(now, self._audio_until) + _QUANTUM
        if sound:
            seconds = len(text) / _BYTES_PER_SECOND
            self.metrics.heard.inc(seconds)
            # Sound that comes faster than it can be spoken is no more urgent for that.
            self._audio_until = max(now, self._audio_until) + seconds
        with self.lock:
            self._inbox.append((deadline, now, text))
            self._inbox_bytes += len(text)
            if self._inbox_bytes > WAITING_BYTES:
                self.room.clear()
        self.worker.wake()


def _is_sound(text: str) -> bool:
    return _APPEND in text[:200]
