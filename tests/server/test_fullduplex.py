"""Talking at once over a socket, as Moshi's clients do."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sphn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from lalia.audio import Audio
from lalia.server.settings import Settings
from lalia.server.talkers import Talker, Talkers
from server_clients import Running

RATE, FRAME = 24_000, 1920
QUESTION = Path(__file__).parents[2] / "examples/question.flac"


@pytest.fixture
def running(moshi: Talker, talker: Talker) -> Iterator[Running]:
    made = Running(Talkers([moshi, talker]), Settings(max_tokens=40, grace=1.0))
    yield made
    made.close()


@contextlib.contextmanager
def chat(running: Running, query: str = "?format=pcm") -> Iterator[ClientConnection]:
    with connect(f"ws://{running.host}/api/chat{query}", open_timeout=30) as socket:
        shake = socket.recv(timeout=30)
        assert isinstance(shake, bytes)
        assert shake[0] == 0
        yield socket


def knock(url: str) -> int:
    """The status that a socket is refused with."""
    with pytest.raises(InvalidStatus) as refused, connect(url, open_timeout=30):
        pass
    return refused.value.response.status_code


def question() -> np.ndarray:
    return Audio.load(QUESTION, mono=True, sample_rate=RATE).samples[0, 0].numpy()


def say(socket: ClientConnection, samples: np.ndarray) -> None:
    for i in range(0, len(samples) // FRAME * FRAME, FRAME):
        socket.send(b"\1" + (samples[i : i + FRAME] * 32767).astype("<i2").tobytes())


def hear(socket: ClientConnection, frames: int, decode: Callable[[bytes], int] = len) -> list[bytes]:
    """So many bytes of sound, in frames of 16-bit samples, and the texts between."""
    found, sound = [], 0
    while sound < frames * FRAME * 2:
        message = socket.recv(timeout=60)
        assert isinstance(message, bytes)
        assert message[0] in (1, 2), message
        if message[0] == 1:
            sound += decode(message[1:])
        found.append(message)
    return found


def test_a_frame_in_a_frame_out(running: Running) -> None:
    """As much sound comes back as goes in, and each frame before the next but one is sent."""
    sound = question()
    with chat(running) as socket:
        say(socket, sound[:FRAME])
        hear(socket, 1)
        for i in range(1, 6):
            say(socket, sound[i * FRAME : (i + 1) * FRAME])
            hear(socket, 1)
        socket.send(b"\6")
        assert socket.recv(timeout=30) == b"\6"
        socket.send(b"\x63what is this")
        socket.send("text")
        error = socket.recv(timeout=30)
        assert error[0] == 5


def test_what_each_hears_is_his_own(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once get what each gets alone, and one who leaves takes nothing along."""
    from lalia.server import talkers

    monkeypatch.setattr(talkers.secrets, "randbelow", lambda n: 5)
    sound = question()[: 12 * FRAME]

    def alone(samples: np.ndarray) -> list[bytes]:
        with chat(running) as socket:
            say(socket, samples)
            return hear(socket, 12)

    expected = [alone(sound), alone(0.2 * sound[::-1])]
    assert expected[0] != expected[1]
    with chat(running) as first, chat(running) as second, chat(running) as third:
        say(third, sound[: 3 * FRAME])
        third.close()
        for i in range(12):
            piece = slice(i * FRAME, (i + 1) * FRAME)
            say(first, sound[piece])
            say(second, (0.2 * sound[::-1])[piece])
        assert b"".join(hear(first, 12)) == b"".join(expected[0])
        assert b"".join(hear(second, 12)) == b"".join(expected[1])
    while running.server.connections:
        pass
    duplex = running.server.talkers.find("moshi")._duplex
    assert duplex is not None
    assert not duplex.sessions
    assert not running.server._rooms["moshi"].links


def test_much_at_once_is_heard_in_frames(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between which others have their turn."""
    from lalia.realtime.framed import Framed

    feed, pieces = Framed.feed, list[float]()

    def noted(self: Framed, piece: Audio) -> None:
        pieces.append(piece.seconds)
        feed(self, piece)

    monkeypatch.setattr(Framed, "feed", noted)
    sound = question()[: 10 * FRAME]
    with chat(running) as socket:
        socket.send(b"\1" + (sound * 32767).astype("<i2").tobytes())
        hear(socket, 10)
    assert pieces == [FRAME / RATE] * 10
    told = running.server.metrics.registry.get_sample_value("lalia_spoken_seconds_total")
    assert told == pytest.approx(10 * FRAME / RATE)


def test_opus(running: Running) -> None:
    writer, reader = sphn.OpusStreamWriter(RATE), sphn.OpusStreamReader(RATE)
    sound = question()[: 10 * FRAME]
    with chat(running, "") as socket:
        for i in range(0, len(sound), FRAME):
            socket.send(b"\1" + writer.append_pcm(sound[i : i + FRAME]))
        # The codec is ahead by a few milliseconds.
        hear(socket, 9, lambda data: 2 * len(reader.append_bytes(data)))
    with chat(running, "") as socket:
        socket.send(b"\1" + b"garbage" * 100)
        error = socket.recv(timeout=30)
        assert error[0] == 5
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_a_model_of_turns_answers_too(running: Running) -> None:
    sound = np.concatenate([question(), np.zeros(3 * RATE, np.float32)])
    with chat(running, "?format=pcm&model=mini") as socket:
        say(socket, sound)
        made = hear(socket, len(sound) // FRAME)
        spoken = np.frombuffer(b"".join(m[1:] for m in made if m[0] == 1), "<i2")
        assert np.abs(spoken).max() > 0
        assert any(m[0] == 2 for m in made)


def test_a_model_of_turns_answers_whom_the_server_answers(moshi: Talker, talker: Talker) -> None:
    told = Running(Talkers([moshi, talker]), Settings(grace=0.1, wake=("hey lalia",)))
    sound = np.concatenate([question(), np.zeros(3 * RATE, np.float32)])
    with chat(told, "?format=pcm&model=mini") as socket:
        say(socket, sound)
        made = hear(socket, len(sound) // FRAME)
        spoken = np.frombuffer(b"".join(m[1:] for m in made if m[0] == 1), "<i2")
        assert np.abs(spoken).max() == 0
    told.close()


def test_each_protocol_has_its_models(running: Running) -> None:
    assert knock(running.socket + "?model=moshi") == 400
    assert knock(f"ws://{running.host}/api/chat?model=none") == 404


def test_a_fault_is_one_clients(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from lalia.server.fullduplex import ChatLink

    feed, broken = ChatLink.feed, list[Any]()

    def sometimes(self: ChatLink) -> None:
        if self in broken:
            raise ZeroDivisionError
        feed(self)

    monkeypatch.setattr(ChatLink, "feed", sometimes)
    sound = question()[: 4 * FRAME]
    with chat(running) as good:
        others = set(running.server.connections)
        with chat(running) as bad:
            broken += set(running.server.connections) - others
            say(bad, sound)
            error = bad.recv(timeout=30)
            assert error[0] == 5
            assert b"internal_error" in error  # type: ignore[operator]
        say(good, sound)
        hear(good, 4)
