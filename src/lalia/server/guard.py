"""Who may use the server: keys, origins and hosts, asked before anything else is done."""

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from lalia.server.metrics import Metrics
from lalia.server.settings import Settings

__all__ = ["SUBPROTOCOL_KEY", "Guard", "key_of"]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SUBPROTOCOL_KEY = "openai-insecure-api-key."
"""How a page gives a key to a socket, for it can set no headers."""

_OPEN = ("/page/",)
_OPEN_PATHS = ("/", "/health", "/favicon.ico")
"""What needs no key: the page, and whether the server is there."""

_LOCAL = ("localhost", "127.0.0.1", "::1", "testserver")


def key_of(headers: MutableMapping[str, str], subprotocols: Iterable[str]) -> str | None:
    """The key that a client gives, in whatever way."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return next((unquote(p.removeprefix(SUBPROTOCOL_KEY)) for p in subprotocols if p.startswith(SUBPROTOCOL_KEY)), None)


class Guard:
    """ASGI middleware that turns away who may not come in, requests and sockets alike.

    A page of another site may not use a server that its visitor happens to run (its origin tells), nor may one whose
    name was made to point here (its host tells).
    """

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may come in."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, code, message = refusal
        self.metrics.refused.labels(code).inc()
        _log.info("refused", extra={"code": code, "path": scope["path"]})
        kind = "invalid_request_error" if status != 401 else "authentication_error"
        body = json.dumps({"error": {"type": kind, "code": code, "message": message, "param": None}}).encode()
        await _deny(scope, receive, send, status, body)

    def _refusal(self, scope: Scope, headers: MutableMapping[str, str]) -> tuple[int, str, str] | None:
        name, port = _address(f"//{headers.get('host', '')}")
        if self.settings.loopback and name not in (*_LOCAL, self.settings.host):
            return 403, "wrong_host", "This server is used by the name localhost or 127.0.0.1."
        origin = headers.get("origin")
        if origin is not None and origin not in self.settings.origins:
            if name is None or _address(origin) != (name, port):
                return 403, "wrong_origin", f"Pages of {origin} may not use this server (lalia serve --origin)."
        path = scope["path"]
        if not self.settings.keys or path in _OPEN_PATHS or path.startswith(_OPEN):
            return None
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            return None
        given = key_of(headers, scope.get("subprotocols", ()))
        if given is None:
            return 401, "missing_api_key", "Give an API key: the header Authorization: Bearer KEY."
        if not any(secrets.compare_digest(given.encode(), key.encode()) for key in self.settings.keys):
            return 401, "invalid_api_key", "The API key is not one of this server's."
        return None


def _address(url: str) -> tuple[str | None, int | None]:
    """Host and port of a URL; neither of what is none."""
    try:
        split = urlsplit(url)
        return split.hostname, split.port
    except ValueError:
        return None, None


async def _deny(scope: Scope, receive: Receive, send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
