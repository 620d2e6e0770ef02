"""How a server is set up: who may use it, and how much of it."""

import ipaddress
from dataclasses import dataclass
from typing import Any

from lalia.errors import ConfigError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """
    :param host: the address that it listens at.
    :param keys: any of these is asked for; nothing is where there are none.
    :param origins: of pages that may use it besides its own (``https://example.org``).
    :param sessions: at once; more are told to come again.
    :param session_seconds: the longest session.
    :param idle_seconds: after which a session in which nothing comes is over.
    :param message_bytes: the longest message of a socket.
    :param upload_bytes: the longest body of a request.
    :param audio_seconds: the longest turn of a user, and the longest recording.
    :param text_characters: the longest text.
    :param items: of a conversation.
    :param events_per_second: of a client, on average; short bursts may be ten times as many.
    :param waiting_bytes: that a client may leave unread before its session is ended.
    :param lead: seconds of a reply that are made ahead of what may have been played.
    :param max_tokens: of a reply.
    :param grace: seconds for replies to be finished when the server is stopped.
    :param ask: whether it asks again for what it did not understand, in place of silence.
    :param near: whether only who speaks close to the microphone is answered.
    :param asked: whether only what is asked of an assistant is answered, as far as the model has learned to tell.
    :param wake: phrases with any of which it is to be called; none where all is meant for it.
    """

    host: str = "127.0.0.1"
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    sessions: int = 16
    session_seconds: float = 3600.0
    idle_seconds: float = 300.0
    message_bytes: int = 16 * 2**20
    upload_bytes: int = 32 * 2**20
    audio_seconds: float = 120.0
    text_characters: int = 20_000
    items: int = 1000
    events_per_second: float = 200.0
    waiting_bytes: int = 8 * 2**20
    lead: float = 5.0
    max_tokens: int = 160
    grace: float = 10.0
    ask: bool = False
    near: bool = False
    asked: bool = False
    wake: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.loopback and not self.keys:
            raise ConfigError(
                f"The server would be open to everybody who reaches {self.host}. "
                "Give an API key in LALIA_API_KEY or --api-key-file, or listen at 127.0.0.1."
            )
        if any(not key.strip() or not key.isascii() for key in self.keys):
            raise ConfigError("An API key is empty or has letters that no header holds. Use letters, digits and -_.")
        if self.sessions < 1 or self.lead <= 0 or self.grace < 0:
            raise ConfigError(
                f"The server has {self.sessions} sessions, a lead of {self.lead} s and a grace of {self.grace} s. "
                "Give at least 1 session, more than 0 s of lead and no less than 0 s of grace."
            )

    @property
    def whom(self) -> dict[str, Any]:
        """Who is answered, as ``Model.addressee`` takes it."""
        return {"near": self.near, "asked": self.asked, "wake": self.wake}

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
