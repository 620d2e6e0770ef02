"""Clients that vanish, stall, flood and send garbage, and a server that is stopped: nobody else notices."""

import asyncio
import base64
import contextlib
import gc
import json
import os
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from lalia.server.realtime.session import RealtimeSession
from lalia.server.talkers import Talker
from server_clients import Client, Running

Serve = Callable[..., Running]

ASK = [
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]},
    },
    {"type": "response.create"},
]
PCMU = {"format": {"type": "audio/pcmu"}}


@contextlib.contextmanager
def session(running: Running, **options: Any) -> Iterator[ClientConnection]:
    with connect(running.socket, open_timeout=30, **options) as socket:
        assert json.loads(socket.recv(timeout=30))["type"] == "session.created"
        yield socket


def send(socket: ClientConnection, *events: dict[str, Any]) -> None:
    for event in events:
        socket.send(json.dumps(event))


def until(socket: ClientConnection, *kinds: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(socket.recv(timeout=60))
        if event["type"] in kinds:
            return event


def alone(running: Running) -> None:
    """Wait until nobody is connected."""
    end = time.monotonic() + 30
    while running.server.connections:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_clients_that_vanish(serve: Serve) -> None:
    """In the middle of a reply, of a turn, and before anything."""
    running = serve()
    with session(running) as other:
        for events in (
            [],
            ASK,
            [{"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(9600)).decode()}],
        ):
            with session(running) as socket:
                send(socket, *events)
                if events is ASK:
                    until(socket, "response.output_audio_transcript.delta")
                # Gone without a word: the connection is reset.
                raw = socket.socket
                raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                raw.close()
        send(other, *ASK)
        assert until(other, "response.done")["response"]["status"] == "incomplete"
    alone(running)
    talker = running.server.talkers.first
    assert not talker._batch.rows
    assert not running.server.worker._works


def test_sockets_that_never_become_sessions(serve: Serve) -> None:
    running = serve()
    host, port = running.host.split(":")
    half = [sockets.create_connection((host, int(port))) for _ in range(20)]
    half[0].sendall(b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\n")
    half[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
    with session(running) as socket:
        send(socket, *ASK)
        until(socket, "response.done")
    for one in half:
        one.close()


def test_who_does_not_read_is_ended(serve: Serve) -> None:
    running = serve(waiting_bytes=200_000)
    with connect(running.socket, open_timeout=30, max_queue=1) as slow, session(running) as other:
        retrieve = {"type": "conversation.item.retrieve", "item_id": "big"}
        text = {"type": "input_text", "text": "x" * 19_000}
        item = {"id": "big", "type": "message", "role": "user", "content": [text]}
        send(slow, {"type": "conversation.item.create", "item": item})
        with contextlib.suppress(ConnectionClosed):
            for _ in range(2000):
                send(slow, retrieve)
        send(other, *ASK)
        assert until(other, "response.done")
        end = time.monotonic() + 30
        while len(running.server.connections) > 1:
            assert time.monotonic() < end
            time.sleep(0.01)
    ended = running.server.metrics.ended
    assert ended.labels("too slow: events were not read")._value.get() == 1


def test_who_floods_holds_up_nobody(serve: Serve) -> None:
    """A minute of sound at once: another's reply comes before it is heard."""
    running = serve(events_per_second=1e6)
    noise = base64.b64encode(os.urandom(48_000)).decode()
    with session(running) as flood, session(running) as other:
        send(flood, {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}})
        for _ in range(60):
            send(flood, {"type": "input_audio_buffer.append", "audio": noise})
        send(flood, {"type": "input_audio_buffer.commit"})
        send(other, *ASK)
        until(other, "response.done")
        assert running.server.metrics.events.labels("out", "input_audio_buffer.committed")._value.get() == 0
        until(flood, "input_audio_buffer.committed")


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([{"role": "user", "content": "\ud800"}], "lone surrogate"),
        ([{"role": "system", "content": "x" * 51}, {"role": "user", "content": "x"}], "51 characters"),
        ([{"role": "user", "content": "x"}, {"role": "tool", "content": "x" * 51}], "51 characters"),
    ],
)
def test_a_chat_that_cannot_go_on_is_refused(
    serve: Serve, messages: list[Any], match: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(text_characters=50)
    body = json.dumps({"messages": messages}).encode()
    request = Request(f"{running.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=20)
    assert refused.value.code == 400
    assert match in json.loads(refused.value.read())["error"]["message"]
    assert "work failed" not in caplog.text


def test_sound_that_goes_out_is_counted(serve: Serve) -> None:
    running = serve()
    with session(running) as socket:
        send(socket, {"type": "session.update", "session": {"type": "realtime", "audio": {"output": PCMU}}}, *ASK)
        sound = 0
        while (event := json.loads(socket.recv(timeout=20)))["type"] != "response.done":
            if event["type"] == "response.output_audio.delta":
                sound += len(base64.b64decode(event["delta"]))
    told = running.server.metrics.registry.get_sample_value("lalia_spoken_seconds_total")
    assert told == pytest.approx(sound / 8000, abs=0.01)
    assert sound


def test_too_many_events_are_slowed_down(serve: Serve) -> None:
    running = serve(events_per_second=50.0)
    with session(running) as socket:
        started = time.monotonic()
        send(socket, *[{"type": "input_audio_buffer.clear"}] * 550)
        for _ in range(550):
            until(socket, "input_audio_buffer.cleared")
        # The first 500 are a burst.
        assert time.monotonic() - started > 0.9


def test_messages_that_are_too_long_end_their_session_alone(serve: Serve) -> None:
    running = serve(message_bytes=10_000)
    with session(running) as other:
        with session(running) as socket:
            socket.send("x" * 20_000)
            with pytest.raises(ConnectionClosed) as closed:
                until(socket, "never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        send(other, *ASK)
        until(other, "response.done")


def test_bytes_are_no_events(serve: Serve) -> None:
    with session(serve()) as socket:
        socket.send(b"\0\1\2")
        assert until(socket, "error")["error"]["code"] == "invalid_json"
        send(socket, *ASK)
        until(socket, "response.done")


def test_sessions_end_when_their_time_is_over(serve: Serve) -> None:
    running = serve(session_seconds=0.5, idle_seconds=0.4)
    with session(running) as socket:
        assert until(socket, "error")["error"]["code"] in ("session_expired", "session_idle")
        with pytest.raises(ConnectionClosed):
            until(socket, "never")
    alone(running)


def test_a_fault_of_the_model_is_one_sessions(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve()
    right = RealtimeSession.step

    def sometimes(self: RealtimeSession) -> None:
        if self.config.instructions == "break":
            raise ZeroDivisionError
        right(self)

    monkeypatch.setattr(RealtimeSession, "step", sometimes)
    with session(running) as good, session(running) as bad:
        send(bad, {"type": "session.update", "session": {"instructions": "break"}}, *ASK)
        assert until(bad, "error")["error"]["type"] == "server_error"
        with pytest.raises(ConnectionClosed):
            until(bad, "never")
        send(good, *ASK)
        until(good, "response.done")


def test_nothing_is_left_of_sessions_that_are_over(serve: Serve) -> None:
    running = serve(sessions=4)

    def talk() -> None:
        with session(running) as socket:
            send(socket, *ASK)
            until(socket, "response.output_audio.delta", "response.done")
        alone(running)

    def left() -> int:
        gc.collect()
        return sum(type(x) is RealtimeSession for x in gc.get_objects())

    talk()
    before = left()
    for _ in range(12):
        talk()
    assert left() <= before <= 1


# -- whatever is sent -------------------------------------------------------------------------------

LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["x", "user", "message", "input_text", "server_vad", "audio/pcm", "root", "inf"])
)  # fmt: skip
JUNK = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3), max_leaves=8
)
AUDIO = st.binary(max_size=4000).map(lambda b: base64.b64encode(b).decode())
SESSION = st.dictionaries(
    st.sampled_from(["type", "instructions", "audio", "output_modalities", "max_output_tokens", "tools", "model"]),
    JUNK | st.fixed_dictionaries({}, optional={"input": JUNK, "output": JUNK}),
    max_size=3,
)
CONTENT = st.lists(st.fixed_dictionaries({}, optional={"type": JUNK, "text": JUNK, "audio": AUDIO | JUNK}), max_size=3)
ITEM = st.fixed_dictionaries(
    {}, optional={"id": JUNK, "type": JUNK, "role": JUNK | st.just("user"), "content": CONTENT | JUNK, "output": JUNK}
)
FIELDS: dict[str, dict[str, Any]] = {
    "session.update": {"session": SESSION | JUNK},
    "input_audio_buffer.append": {"audio": AUDIO | JUNK},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "output_audio_buffer.clear": {},
    "conversation.item.create": {"item": ITEM | JUNK, "previous_item_id": JUNK},
    "conversation.item.delete": {"item_id": JUNK},
    "conversation.item.retrieve": {"item_id": JUNK},
    "conversation.item.truncate": {"item_id": JUNK, "content_index": JUNK, "audio_end_ms": JUNK},
    "response.create": {
        "response": st.fixed_dictionaries(
            {}, optional={"input": JUNK, "metadata": JUNK, "audio": JUNK, "instructions": JUNK, "conversation": JUNK}
        )
        | JUNK
    },
    "response.cancel": {"response_id": JUNK},
}
EVENT = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda kind: st.fixed_dictionaries(
        {"type": st.just(kind)}, optional={**FIELDS[kind], "event_id": JUNK, "more": JUNK}
    )
)


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_every_event_has_its_fields(kind: str) -> None:
    from lalia.server.realtime.shapes import CLIENT_EVENTS

    known = json.dumps(CLIENT_EVENTS.json_schema())
    assert json.dumps(kind) in known
    for field in FIELDS[kind]:
        assert f'"{field}"' in known


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(EVENT | JUNK, min_size=1, max_size=8), st.integers(0, 5))
def test_whatever_is_sent_the_session_goes_on(talker: Talker, events: list[Any], steps: int) -> None:
    client = Client(talker)
    for event in events:
        client.text(json.dumps(event))
        client.finish(steps)
    client.finish()
    assert all(e["type"] for e in client.events)
    json.dumps(client.events, allow_nan=False)
    client.send("session.update", session={"type": "realtime", "instructions": "Hello.", "output_modalities": ["text"]})
    client.send("response.create", response={"max_output_tokens": 2})
    assert client.finish()[-1]["type"] == "response.done"
    client.session.close()


# -- the end ---------------------------------------------------------------------------------------


def test_who_is_connected_is_told_that_the_server_stops(serve: Serve) -> None:
    """A reply that is being made is finished; then every client is told, and let go."""
    running = serve(grace=30.0)
    with session(running) as idle, session(running) as busy:
        send(busy, *ASK)
        until(busy, "response.output_item.added")
        stopping = asyncio.run_coroutine_threadsafe(running.server.stop(), running.loop)
        assert until(idle, "error")["error"]["code"] == "server_stopping"
        assert until(busy, "response.done")["response"]["status"] == "incomplete"
        assert until(busy, "error")["error"]["code"] == "server_stopping"
        for socket in (idle, busy):
            with pytest.raises(ConnectionClosed) as closed:
                until(socket, "never")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        stopping.result(60)


ROOT = Path(__file__).parents[2]

STAND_IN = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
from lalia.model import dialogue
from lalia.tokenizers import soft_text
from lalia import model
from tiny_mini import tiny_mini
soft_text.Heard.understood = True
dialogue.in_circles = lambda ids: False
import lalia.cli.serving as serving
serving.load_model = lambda *a: tiny_mini()
from lalia.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_reply(how: int) -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", STAND_IN, "serve", "--port", str(port), "--json", "--grace", "20"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"url": f"http://127.0.0.1:{port}", "models": ["mini"]}
            with connect(f"ws://127.0.0.1:{port}/v1/realtime", open_timeout=30) as socket:
                send(socket, *ASK)
                until(socket, "response.output_item.added")
                process.send_signal(how)
                assert until(socket, "response.done")["response"]["status"] == "incomplete"
                assert until(socket, "error")["error"]["code"] == "server_stopping"
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "Traceback" not in err
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGTERM)


def test_a_port_that_is_taken() -> None:
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-c", STAND_IN, "serve", "--port", str(port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert ran.returncode == 2
    assert f"cannot listen at 127.0.0.1, port {port}" in ran.stderr
    assert "Traceback" not in ran.stderr
