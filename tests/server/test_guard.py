"""Who may come in."""

import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lalia.errors import ConfigError
from lalia.server.settings import Settings
from server_clients import Running

Serve = Callable[..., Running]


def status(running: Running, path: str, **headers: str) -> int:
    request = Request(running.url + path, headers=headers)
    try:
        with urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        told = json.loads(error.read())["error"]["message"]
        return error.code if told.endswith((".", ").")) else 0


def knock(running: Running, **options: Any) -> int:
    """The status that a socket is refused with, or 101."""
    try:
        with connect(running.socket, open_timeout=20, **options) as socket:
            assert json.loads(socket.recv(timeout=20))["type"] == "session.created"
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_without_a_key_it_is_open_to_this_machine(serve: Serve) -> None:
    running = serve()
    assert status(running, "/v1/models") == 200
    assert knock(running) == 101


def test_a_key_is_asked_for(serve: Serve) -> None:
    running = serve(keys=("right", "other"))
    assert status(running, "/v1/models") == 401
    assert status(running, "/metrics") == 401
    assert status(running, "/health") == 200
    assert status(running, "/v1/models", Authorization="Bearer wrong") == 401
    assert status(running, "/v1/models", Authorization="Bearer right") == 200
    assert knock(running) == 401
    assert knock(running, additional_headers={"Authorization": "Bearer right"}) == 101
    # A page can give it only so; what is agreed on is the protocol and not the key.
    key = "openai-insecure-api-key."
    assert knock(running, subprotocols=["realtime", f"{key}wrong"]) == 401
    with connect(running.socket, subprotocols=["realtime", f"{key}other"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "realtime"


def test_pages_of_others_may_not_use_it(serve: Serve) -> None:
    running = serve(origins=("https://friend.example",))
    assert status(running, "/v1/models", Origin=running.url) == 200
    assert status(running, "/v1/models", Origin="https://friend.example") == 200
    for origin in ("https://evil.example", "http://127.0.0.1:1", "null", "http://[", "http://x:99999"):
        assert status(running, "/v1/models", Origin=origin) == 403
        assert knock(running, origin=origin) == 403


def test_pages_that_may_use_it_may_read_its_answers(serve: Serve) -> None:
    running = serve(origins=("https://friend.example",), keys=("k",))
    asked = {
        "Origin": "https://friend.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    with urlopen(Request(running.url + "/v1/audio/speech", headers=asked, method="OPTIONS"), timeout=20) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    for key, code in (("k", 200), ("x", 401)):
        headers = {"Origin": "https://friend.example", "Authorization": f"Bearer {key}"}
        try:
            with urlopen(Request(running.url + "/v1/models", headers=headers), timeout=20) as answer:
                found = answer
        except HTTPError as error:
            found = error
        assert found.status == code
        assert found.headers["Access-Control-Allow-Origin"] == "https://friend.example"


def test_names_that_were_made_to_point_here_may_not_use_it(serve: Serve) -> None:
    running = serve()
    assert status(running, "/", Host="evil.example") == 403
    assert status(running, "/health", Host="[::1") == 403
    assert status(running, "/health", Host="localhost:1") == 200
    # An address of this machine that it was told to listen at is its own.
    assert status(serve(host="127.0.0.7"), "/health", Host="127.0.0.7:1") == 200


def test_pages_lie_in_their_folder(serve: Serve) -> None:
    running = serve()
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/"):
        assert status(running, path) == 404


def test_there_are_only_so_many_sessions(serve: Serve) -> None:
    running = serve(sessions=1)
    with connect(running.socket) as socket:
        socket.recv(timeout=20)
        assert knock(running) == 503
    while running.server.connections:
        pass
    assert knock(running) == 101


def test_models_that_are_not_there(serve: Serve) -> None:
    running = serve()
    with pytest.raises(InvalidStatus) as refused, connect(running.socket + "?model=gpt-realtime", open_timeout=20):
        pass
    assert refused.value.response.status_code == 404


def test_what_is_too_long_is_not_read(serve: Serve) -> None:
    running = serve(upload_bytes=1000)
    request = Request(running.url + "/v1/audio/speech", data=b"x" * 1001, headers={"Content-Type": "application/json"})
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=20)
    assert refused.value.code == 413


def test_a_server_is_open_to_others_only_with_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigError, match="open to everybody"):
            Settings(host=host)
        Settings(host=host, keys=("k",))
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.7"):
        assert Settings(host=host).loopback
    with pytest.raises(ConfigError, match="empty"):
        Settings(keys=(" ",))
    with pytest.raises(ConfigError, match="at least 1 session"):
        Settings(sessions=0)
