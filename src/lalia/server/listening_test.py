"""A listening test as a page: what a listener's browser is given, and what it sends back."""

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.listening_test import ListeningTest, Refused, Task
from lalia.evaluation.listening_test.material import scale
from lalia.server.running import listen

__all__ = ["application", "is_local", "run"]

_PAGE = Path(__file__).parent / "listening_page"

_SHARED = Path(__file__).parent / "page"
_SHARED_FILES = ("icon.svg", "language.js", "memory.js", "palette.css", "theme.js")

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(), camera=(), geolocation=()",
    "Cache-Control": "no-store",
}

_STATUS = {"code": 403, "screen": 409, "early": 409, "rating": 422}


class Who(BaseModel):
    """A listener by the code."""

    code: str = Field(min_length=1, max_length=40)


class Given(Who):
    """A rating."""

    screen: str = Field(min_length=1, max_length=64)
    rating: int
    plays: int = Field(0, ge=0, le=10_000)


def application(test: ListeningTest, *, local: bool = True) -> FastAPI:
    """What is served: the page, ``/api/next``, ``/api/rate`` and sounds by their tokens.

    Nothing that it sends has the name of a system, an item or a file in it; errors neither, for they hold paths.

    :param local: whether only this machine reaches it; then it is used by that name alone.
    """
    app = FastAPI(title="lalia", docs_url=None, redoc_url=None, openapi_url=None)

    def told(task: Task) -> dict[str, Any]:
        screen = None
        if task.token is not None:
            screen = {
                "token": task.token,
                "sounds": [{"part": part, "token": token} for part, token in task.sounds],
                "choose": task.choose,
            }
        ratings = scale(test.kind)
        return {
            "kind": test.kind,
            "scale": [ratings[0], ratings[-1]],
            "done": task.done,
            "total": task.total,
            "screen": screen,
        }

    # Not async: they read and write files, and so get threads of their own.
    def next_screen(who: Who) -> dict[str, Any]:
        return told(test.next(who.code))

    def rate(given: Given) -> dict[str, Any]:
        return told(test.rate(given.code, given.screen, given.rating, given.plays))

    def sound(token: str) -> Response:
        data = test.sound(token)
        if data is None:
            raise HTTPException(404, "There is no such sound.")
        return Response(data, media_type="audio/wav", headers=_HEADERS)

    def page(name: str) -> Response:
        folder = _SHARED if name in _SHARED_FILES else _PAGE
        path = (folder / name).resolve()
        if path.parent != folder.resolve() or not path.is_file():
            raise HTTPException(404, "There is no such page.")
        return FileResponse(path, headers=_HEADERS)

    def index() -> Response:
        return page("index.html")

    app.add_api_route("/api/next", next_screen, methods=["POST"])
    app.add_api_route("/api/rate", rate, methods=["POST"])
    app.add_api_route("/sound/{token}", sound, methods=["GET"])
    app.add_api_route("/page/{name:path}", page, methods=["GET"])
    app.add_api_route("/", index, methods=["GET"])
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(LaliaError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    if local:
        # A name that somebody made to point here is none of this machine's.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "testserver"])
    return app


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run(test: ListeningTest, *, host: str, port: int, codes: bool, ready: Callable[[], None]) -> None:
    """Serve until it is told to stop (SIGINT, SIGTERM).

    :param codes: whether listeners have codes that were given to them.
    :param ready: called when listeners can come.
    :raises ConfigError: it cannot listen there, or everybody could come in.
    """
    if not is_local(host) and not codes:
        raise ConfigError(
            f"Everybody who reaches {host} could take part. Give --codes FILE, a code a line, or listen at 127.0.0.1."
        )
    listener = listen(host, port)
    config = uvicorn.Config(
        application(test, local=is_local(host)),
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=5,
    )
    ready()
    uvicorn.Server(config).run(sockets=[listener])


async def _refused(_: Request, error: Any) -> Response:
    return JSONResponse({"error": error.reason}, status_code=_STATUS[error.reason])


async def _failed(_: Request, __: Any) -> Response:
    return JSONResponse({"error": "server"}, status_code=500)


async def _invalid(_: Request, __: Any) -> Response:
    return JSONResponse({"error": "code"}, status_code=422)
