"""Talking at once: frames of sound in and out of a WebSocket, as Moshi's clients have it.

Each message is bytes, the first of which is its kind: 0 handshake, 1 sound, 2 text of the model (UTF-8), 3 control,
4 metadata, 5 error, 6 ping; others are passed over (Kyutai's ``rust/protocol.md``). Sound is Ogg Opus of one channel at
24 kHz; or, where the client asks for ``?format=pcm``, 16-bit samples, little-endian.
"""

import logging
import struct
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import torch
from starlette.websockets import WebSocket

from lalia.audio import Audio
from lalia.errors import LaliaError, MissingDependency
from lalia.realtime.framed import Framed
from lalia.server.link import Link
from lalia.server.metrics import Metrics
from lalia.server.realtime.conversation import new_id
from lalia.server.settings import Settings
from lalia.server.wire import PCM, Decoder, Encoder
from lalia.server.worker import Due, Work, Worker

__all__ = ["ChatLink", "Room", "sound_codec"]

_log = logging.getLogger(__name__)

HANDSHAKE, SOUND, TEXT, CONTROL, METADATA, ERROR, PING = range(7)

_RATE, _FRAME = 24_000, 0.08
"""Hz, and seconds that go out at once."""

_MOST_WAITING = 2.0
"""Seconds of sound that may wait to be heard: of more, the client is too fast."""


class _Pcm:
    """Samples as they are."""

    def __init__(self) -> None:
        self._decoder, self._encoder = Decoder(PCM), Encoder(PCM, _RATE)

    def decode(self, data: bytes) -> Audio:
        return self._decoder(data)

    def encode(self, audio: Audio) -> bytes:
        return self._encoder(audio)


class _Opus:
    """Ogg Opus by ``sphn``.

    :raises MissingDependency: it is not installed.
    """

    def __init__(self) -> None:
        try:
            import sphn
        except ImportError:
            raise MissingDependency("sphn", "moshi") from None
        self._reader, self._writer = sphn.OpusStreamReader(_RATE), sphn.OpusStreamWriter(_RATE)

    def decode(self, data: bytes) -> Audio:
        """:raises ValueError: it is no Ogg Opus."""
        return Audio(torch.from_numpy(self._reader.append_bytes(data).copy())[None, None], _RATE)

    def encode(self, audio: Audio) -> bytes:
        return bytes(self._writer.append_pcm(audio.samples[0, 0].numpy()))


def sound_codec(name: Literal["opus", "pcm"]) -> _Pcm | _Opus:
    """:raises MissingDependency: what it needs is not installed."""
    return _Pcm() if name == "pcm" else _Opus()


class Room:
    """Work for the clients of one model, all of whom take their steps together."""

    def __init__(self) -> None:
        self.links: list[ChatLink] = []

    def due(self) -> Due | None:
        firsts = [d for link in self.links if (d := link.first) is not None]
        return Due(0.0, min(firsts)) if firsts else None

    def step(self) -> None:
        active = [link for link in list(self.links) if link.first is not None]
        fed = [link for link in active if link.guarded(link.feed)]
        for link in fed:
            link.guarded(link.take)

    def failed(self, error: BaseException) -> None:
        for link in self.links:
            link.fail()


class ChatLink(Link):
    """A client who talks at once with a model.

    :param open_: a session, framed; called on the worker.
    :param room: with whom it takes its steps.
    """

    def __init__(
        self,
        socket: WebSocket,
        open_: Callable[[], Framed],
        room: Room,
        codec: _Pcm | _Opus,
        worker: Worker,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        super().__init__(socket, worker, settings, metrics, new_id("chat"))
        self._open, self._room, self._codec = open_, room, codec
        self._framed: Framed | None = None
        self._inbox: deque[tuple[float, Audio]] = deque()
        self._waiting = 0.0
        self._heard_until = 0.0
        """The clock at which the sound that came would have been spoken, had it not come faster."""
        self._unsent: list[torch.Tensor] = []

    @property
    def replying(self) -> bool:
        return self._framed is not None and self._framed.speaking

    def work(self) -> Work:
        self._room.links.append(self)
        self.send(bytes([HANDSHAKE]) + struct.pack("<II", 0, 0))
        return self._room

    def leave(self) -> None:
        if self in self._room.links:
            self._room.links.remove(self)
        if not self._room.links:
            self.worker.remove(self._room)

    def close(self) -> None:
        if self._framed is not None:
            self._framed.close()

    def tell(self, code: str, message: str, *, fault: bool = False) -> None:
        self.send(bytes([ERROR]) + f"{code}: {message}".encode())

    # -- on the worker -------------------------------------------------------------------------

    @property
    def first(self) -> float | None:
        """When the first sound that waits was spoken; None where none does."""
        try:
            return self._inbox[0][0]
        except IndexError:
            return None

    def guarded(self, act: Callable[[], None]) -> bool:
        """Do something whose fault is this client's alone; whether it went well."""
        try:
            act()
        except LaliaError as error:
            self.tell("invalid_value", str(error))
            self.end(1008, "bad sound")
        except Exception:  # noqa: BLE001  others are in the same room
            _log.exception("a session failed", extra={"session": self.id})
            self.fail()
            self._inbox.clear()
        else:
            return True
        return False

    def fail(self) -> None:
        """The server is at fault."""
        self.tell("internal_error", "The server failed.", fault=True)
        self.end(1011, "internal error")

    def feed(self) -> None:
        """Hear what waits."""
        if self._framed is None:
            self._framed = self._open()
        with self.lock:
            _, audio = self._inbox.popleft()
            self._waiting -= audio.seconds
            if self._waiting < _MOST_WAITING:
                self.loop.call_soon_threadsafe(self.room.set)
        self._framed.feed(audio)

    def take(self) -> None:
        """Say what comes of it."""
        assert self._framed is not None
        audio, text = self._framed.take()
        self.metrics.spoken.inc(audio.seconds)
        if text:
            self.send(bytes([TEXT]) + text.encode())
        self._unsent.append(audio.samples[0, 0])
        whole = torch.cat(self._unsent)
        size = round(_FRAME * _RATE)
        for frame in whole[: len(whole) // size * size].split(size):
            if data := self._codec.encode(Audio(frame[None, None], _RATE)):
                self.send(bytes([SOUND]) + data)
        self._unsent = [whole[len(whole) // size * size :]]

    # -- on the event loop ---------------------------------------------------------------------

    async def received(self, message: MutableMapping[str, Any]) -> None:
        data = message.get("bytes")
        if not data:
            self.tell("invalid_message", "Messages are bytes, the first of which is their kind.")
            return
        if data[0] == PING:
            self.send(bytes([PING]))
        if data[0] != SOUND:
            return
        try:
            audio = self._codec.decode(data[1:])
        except (ValueError, RuntimeError) as error:
            self.tell("invalid_value", f"The sound cannot be decoded ({error}).")
            self.end(1008, "bad sound")
            return
        if not audio.samples.shape[-1]:
            return
        self.metrics.heard.inc(audio.seconds)
        now = self.worker.clock()
        with self.lock:
            # In frames, between which others have their turn; what comes faster than it can be spoken is not urgent.
            for samples in torch.split(audio.samples, round(_FRAME * _RATE), dim=-1):
                self._heard_until = max(now, self._heard_until)
                self._inbox.append((self._heard_until, Audio(samples, audio.sample_rate)))
                self._heard_until += samples.shape[-1] / audio.sample_rate
            self._waiting += audio.seconds
            if self._waiting > _MOST_WAITING:
                self.room.clear()
        self.worker.wake()
