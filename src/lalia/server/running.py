"""Running the application: uvicorn, with an end that is told to every client."""

import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from lalia.errors import ConfigError
from lalia.server.app import Server

__all__ = ["JsonLines", "listen", "run"]

_NAMES = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """A line of JSON for each record: when, how bad, what, and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _NAMES}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Uvicorn(uvicorn.Server):
    """Finishes replies before it closes sockets."""

    def __init__(self, config: uvicorn.Config, server: Server, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._server, self._ready = server, ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: Any = None) -> None:
        for listener in self.servers:
            listener.close()
        await self._server.stop()
        await super().shutdown(sockets)


def run(
    server: Server, *, host: str, port: int, ready: Callable[[], None] = lambda: None, verbose: bool = False
) -> None:
    """Serve until it is told to stop (SIGINT, SIGTERM).

    :param ready: called when clients can come.
    :raises ConfigError: it cannot listen there.
    """
    listener = listen(host, port)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("lalia", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if verbose else logging.WARNING)
    settings = server.settings
    config = uvicorn.Config(
        server.app,
        host=host,
        port=port,
        log_config=None,
        access_log=verbose,
        ws_max_size=settings.message_bytes,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        timeout_graceful_shutdown=max(int(settings.grace), 1),
        server_header=False,
    )
    _Uvicorn(config, server, ready).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """:raises ConfigError: somebody else does, or there is no such address here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"The server cannot listen at {host}, port {port} ({error.strerror}). Choose another --port or --host."
        ) from None
    listener.set_inheritable(True)
    return listener
