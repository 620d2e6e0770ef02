"""Ways to talk to the server: a session with nothing in between, and a server on a port of its own."""

import asyncio
import json
import threading
from typing import Any

import torch
import uvicorn

from lalia.realtime import Activity
from lalia.server.app import Server
from lalia.server.realtime.session import RealtimeSession
from lalia.server.settings import Settings
from lalia.server.talkers import Talker, Talkers
from loud import Loud


class Client:
    """A session with nothing in between: what is sent is done, and what comes back is kept."""

    def __init__(self, talker: Talker, settings: Settings | None = None) -> None:
        self.now = 0.0
        self.events: list[dict[str, Any]] = []
        self.session = RealtimeSession(
            talker,
            self.events.append,
            settings or Settings(max_tokens=40),
            lambda: self.now,
            activity=lambda threshold: Activity(Activity.Config(threshold=threshold), detector=Loud()),
        )
        self.session.start()

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """What comes of an event."""
        return self.text(json.dumps({"type": kind, **fields}))

    def text(self, text: str) -> list[dict[str, Any]]:
        before = len(self.events)
        with torch.inference_mode():
            self.session.receive(text)
        return self.events[before:]

    def finish(self, steps: int = 10_000) -> list[dict[str, Any]]:
        """Make the reply, or so many steps of it."""
        before = len(self.events)
        with torch.inference_mode():
            for _ in range(steps):
                if not self.session.replying:
                    break
                self.session.step()
        return self.events[before:]

    def item(self, item_id: str) -> dict[str, Any]:
        (event,) = self.send("conversation.item.retrieve", item_id=item_id)
        return event["item"]  # type: ignore[no-any-return]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Types in order, each once where it comes again and again."""
    found: list[str] = []
    for event in events:
        if not found or found[-1] != event["type"]:
            found.append(event["type"])
    return found


class Running:
    """A server on a port of its own, in a thread."""

    def __init__(self, talkers: Talkers, settings: Settings, **more: Any) -> None:
        self.server = Server(talkers, settings, **more)
        config = uvicorn.Config(
            self.server.app, port=0, log_config=None, ws_max_size=settings.message_bytes, ws_ping_interval=None
        )
        self._uvicorn = uvicorn.Server(config)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            self._thread.join(0.01)
        port = self._uvicorn.servers[0].sockets[0].getsockname()[1]
        self.host = f"127.0.0.1:{port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def socket(self) -> str:
        return f"ws://{self.host}/v1/realtime"

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._uvicorn.serve())

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(30)


def loud_session(*a: Any, **k: Any) -> RealtimeSession:
    """A session whose user speaks where it is loud."""
    return RealtimeSession(
        *a, **k, activity=lambda threshold: Activity(Activity.Config(threshold=threshold), detector=Loud())
    )
