"""The application: every way in, over one worker."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from lalia.errors import ConfigError, LaliaError, MissingDependency
from lalia.server.bodies import BadRequest
from lalia.server.fullduplex import ChatLink, Room, sound_codec
from lalia.server.guard import Guard
from lalia.server.http import routes
from lalia.server.metrics import Metrics
from lalia.server.realtime.session import RealtimeSession
from lalia.server.realtime.socket import Connection
from lalia.server.settings import Settings
from lalia.server.talkers import Talkers
from lalia.server.worker import Worker
from lalia.version import __version__

__all__ = ["Server"]

_log = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "page"

_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server:
    """A FastAPI application with what it holds.

    :param talkers: the models, the default first.
    :param session: makes a session of the Realtime protocol; one is made over the model when not given.
    """

    def __init__(
        self,
        talkers: Talkers,
        settings: Settings,
        *,
        session: Callable[..., RealtimeSession] = RealtimeSession,
    ) -> None:
        self.talkers, self.settings = talkers, settings
        self.worker = Worker()
        self.metrics = Metrics(lambda: self.worker.busy)
        self.connections: set[Any] = set()
        self.stopping = False
        self._rooms: dict[str, Room] = {}
        self._session = session
        app = FastAPI(title="lalia", version=__version__, docs_url=None, redoc_url=None, lifespan=self._lifespan)
        app.include_router(routes(talkers, self.worker, settings, self.metrics))
        app.add_api_websocket_route("/v1/realtime", self._realtime)
        app.add_api_websocket_route("/api/chat", self._chat)
        app.add_api_route("/health", self._health, methods=["GET"])
        app.add_api_route("/metrics", self._metrics_page, methods=["GET"])
        app.add_api_route("/", self._index, methods=["GET"], include_in_schema=False)
        app.add_api_route("/page/{name:path}", self._file, methods=["GET"], include_in_schema=False)
        app.add_exception_handler(BadRequest, _bad_request)
        app.add_exception_handler(LaliaError, _wrong)
        app.add_exception_handler(UnicodeEncodeError, _half)
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(HTTPException, _http_error)
        app.middleware("http")(self._limit)
        app.add_middleware(Guard, settings=settings, metrics=self.metrics)
        if settings.origins:
            # Pages of these may read what they are answered, that a key is missing too.
            app.add_middleware(
                CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"]
            )
        self.app = app

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        yield
        await self.stop()
        self.worker.close()

    async def stop(self) -> None:
        """Let nobody new in, let replies be finished, and tell every client."""
        if self.stopping:
            return
        self.stopping = True
        _log.info("stopping", extra={"sessions": len(self.connections)})
        await asyncio.gather(*(c.finish(self.settings.grace) for c in list(self.connections)), return_exceptions=True)
        for _ in range(100):
            if not self.connections:
                break
            await asyncio.sleep(0.02)

    # -- sockets -------------------------------------------------------------------------------

    async def _welcome(self, socket: WebSocket) -> Any:
        """The model that is meant; None where the client was turned away."""
        full = len(self.connections) >= self.settings.sessions
        if full or self.stopping:
            self.metrics.refused.labels("server_stopping" if self.stopping else "too_many_sessions").inc()
            await _turn_away(socket, 503, "There are too many sessions. Try again later.", retry=5)
            return None
        try:
            return self.talkers.find(socket.query_params.get("model"))
        except ConfigError as error:
            await _turn_away(socket, 404, str(error))
            return None

    async def _chat(self, socket: WebSocket) -> None:
        talker = await self._welcome(socket)
        if talker is None:
            return
        try:
            codec = sound_codec("pcm" if socket.query_params.get("format") == "pcm" else "opus")
        except MissingDependency as error:
            await _turn_away(socket, 501, str(error))
            return
        await socket.accept(subprotocol=_offered(socket, "chat"))
        room = self._rooms.setdefault(talker.name, Room()) if talker.kind == "duplex" else Room()
        begin = partial(talker.open, self.settings)
        await self._hold(ChatLink(socket, begin, room, codec, self.worker, self.settings, self.metrics), "duplex")

    async def _realtime(self, socket: WebSocket) -> None:
        talker = await self._welcome(socket)
        if talker is None:
            return
        if talker.kind != "turns":
            await _turn_away(socket, 400, f"Model {talker.name!r} talks at once: use /api/chat.")
            return
        await socket.accept(subprotocol=_offered(socket, "realtime"))
        connection = Connection(
            socket,
            lambda send: self._session(talker, send, self.settings, self.worker.clock),
            self.worker,
            self.settings,
            self.metrics,
        )
        await self._hold(connection, "realtime")

    async def _hold(self, connection: Any, protocol: str) -> None:
        """Serve a connection that counts as a session."""
        self.connections.add(connection)
        self.metrics.opened.labels(protocol).inc()
        self.metrics.sessions.labels(protocol).inc()
        _log.info("session opened", extra={"session": connection.id, "protocol": protocol})
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)
            self.metrics.sessions.labels(protocol).dec()

    # -- requests ------------------------------------------------------------------------------

    async def _health(self) -> dict[str, Any]:
        return {
            "status": "stopping" if self.stopping else "ok",
            "version": __version__,
            "models": [t.name for t in self.talkers],
            "sessions": len(self.connections),
            "most_sessions": self.settings.sessions,
            "api_key": bool(self.settings.keys),
        }

    async def _metrics_page(self) -> Response:
        data, kind = self.metrics.page()
        return Response(data, media_type=kind)

    async def _index(self) -> Response:
        return self._page_file("index.html")

    async def _file(self, name: str) -> Response:
        return self._page_file(name)

    def _page_file(self, name: str) -> Response:
        path = (_PAGE / name).resolve()
        if not path.is_relative_to(_PAGE.resolve()) or not path.is_file():
            raise HTTPException(404, "There is no such page.")
        headers = {
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
            "Cache-Control": "no-cache",
        }
        return FileResponse(path, headers=headers)

    async def _limit(self, request: Request, call_next: Any) -> Response:
        """Turn away bodies that are too long, and count."""
        length = request.headers.get("content-length", "0")
        if request.method == "POST" and (
            not length.isdecimal()
            or int(length) > self.settings.upload_bytes
            or ("content-length" not in request.headers)
        ):
            response: Response = _error(
                413,
                f"The request is longer than {self.settings.upload_bytes} bytes, or does not say how long it is.",
                "request_too_large",
            )
        elif request.method == "POST" and self.stopping:
            response = _error(503, "The server is being stopped.", "server_stopping")
        else:
            response = await call_next(request)
        route = request.scope.get("route")
        path = getattr(route, "path", "other")
        self.metrics.requests.labels(path, str(response.status_code)).inc()
        return response


def _offered(socket: WebSocket, name: str) -> str | None:
    """A protocol, where the client offers it: a page may only give its key beside one."""
    return name if name in socket.scope.get("subprotocols", []) else None


async def _turn_away(socket: WebSocket, status: int, message: str, *, retry: int | None = None) -> None:
    """Refuse a socket before it is one, with a reason where the server can give it."""
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        headers = {} if retry is None else {"Retry-After": str(retry)}
        await socket.send_denial_response(_error(status, message, "refused", headers=headers))
    else:
        await socket.close(1013 if status == 503 else 1008, message[:120])


def _error(
    status: int, message: str, code: str, *, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "code": code, "param": param}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


async def _bad_request(_: Request, error: Any) -> Response:
    return _error(error.status, str(error), error.code, param=error.param)


async def _wrong(_: Request, error: Any) -> Response:
    return _error(400, str(error), "invalid_value")


async def _half(_: Request, __: Any) -> Response:
    """Escapes of JSON may stand for half of a character, which no tokenizer reads."""
    return _error(400, "The text has half of a character (a lone surrogate).", "invalid_value")


async def _invalid(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    path = ".".join(str(x) for x in first["loc"][1:])
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return _error(400, f"{path or 'The request'}: {first['msg']}.", code, param=path or None)


async def _http_error(_: Request, error: Any) -> Response:
    return _error(error.status_code, str(error.detail), "not_found" if error.status_code == 404 else "refused")
