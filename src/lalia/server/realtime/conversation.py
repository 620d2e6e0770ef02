"""The items of a conversation as a client sees them, and the turns that the model has in mind of them."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from lalia.audio import Audio
from lalia.model.memory import Request, Turn
from lalia.model.voicing import Spoken
from lalia.server.wire import PCM, Encoder, pcm16

__all__ = ["Conversation", "Entry", "Sounds", "View", "new_id"]


def new_id(kind: str) -> str:
    """An id that nobody guesses: ``kind`` and 21 letters."""
    return f"{kind}_{secrets.token_urlsafe(16)[:21]}"


class Sounds:
    """Sound that is kept to be asked for again: 16 bits a sample."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self.rate = 0
        self.samples = 0

    def add(self, audio: Audio) -> None:
        """A piece [1, 1, N]."""
        self.rate = audio.sample_rate
        self._pieces.append(pcm16(audio.samples[0, 0].float().cpu().numpy()))
        self.samples += len(self._pieces[-1])

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.samples / self.rate if self.rate else 0.0

    def cut(self, seconds: float) -> None:
        """Keep the beginning."""
        self.samples = min(self.samples, round(seconds * self.rate))
        if not self._pieces:
            return
        whole = np.concatenate([np.zeros(0, "<i2"), *self._pieces])
        self._pieces = [whole[: self.samples]]

    def drop(self) -> None:
        """Keep none, only how long it was."""
        self._pieces = []

    def base64(self) -> str | None:
        """All of it as the protocol writes it; None where it is not kept."""
        if not self._pieces:
            return None
        whole = np.concatenate(self._pieces).astype(np.float32) / 32768
        encode = Encoder(PCM, self.rate)
        made = encode(Audio(torch.from_numpy(whole)[None, None], self.rate), final=True)
        return base64.b64encode(made).decode()


@dataclass
class Entry:
    """An item.

    :param content: its parts as the protocol writes them, without sound.
    :param request: of a user's, what the model takes it for; None where it is nothing that is answered.
    :param unclear: of a user's, whether it was not understood.
    :param ignored: of a user's, whether it was understood, and not meant for the model.
    :param turn: of a reply, the turn that it ends.
    :param parts: ids of the items of the user that it answers.
    :param spoken: of a reply, which part of it is heard at what time.
    """

    id: str
    role: Literal["user", "assistant", "system"] | None
    content: list[dict[str, Any]]
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    sound: Sounds | None = None
    request: Request | None = None
    unclear: bool = False
    ignored: bool = False
    turn: Turn | None = None
    parts: tuple[str, ...] = ()
    spoken: Spoken | None = None
    other: dict[str, Any] = field(default_factory=dict)
    """Fields of an item that is no message."""

    @property
    def text(self) -> str:
        """What is written or said in it."""
        return " ".join(x for p in self.content if (x := p.get("text") or p.get("transcript")))

    def to_json(self, *, sound: bool = False) -> dict[str, Any]:
        """As the protocol writes it.

        :param sound: whether what is kept of it comes along.
        """
        if self.role is None:
            return {"id": self.id, "object": "realtime.item", "status": self.status, **self.other}
        content = [dict(p) for p in self.content]
        if sound and self.sound is not None:
            for part in content:
                if part["type"].endswith("audio"):
                    part["audio"] = self.sound.base64()
                    break
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "status": self.status,
            "role": self.role,
            "content": content,
        }


@dataclass(frozen=True)
class View:
    """A conversation as the model takes it.

    :param system: instructions that came as items.
    :param turns: that are over.
    :param request: what is to be answered now; None where it was not understood.
    :param parts: the ids of the items that it consists of.
    """

    system: str
    turns: list[Turn]
    request: Request | None
    parts: tuple[str, ...]


class Conversation:
    """Items in order.

    :param most_bytes: of sound that is kept; of more, the oldest is dropped.
    """

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        self.id = new_id("conv")
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._most = most_bytes

    def __len__(self) -> int:
        return len(self._order)

    def get(self, item_id: str) -> Entry | None:
        """An item by its id."""
        return self._entries.get(item_id)

    @property
    def last(self) -> str | None:
        """The id of the last item."""
        return self._order[-1] if self._order else None

    def previous(self, item_id: str) -> str | None:
        """The id of the item before."""
        at = self._order.index(item_id)
        return self._order[at - 1] if at else None

    def add(self, entry: Entry, previous: str | None = None) -> None:
        """Put an item behind another; "root" is the beginning, and None the end."""
        at = len(self._order) if previous is None else 0 if previous == "root" else self._order.index(previous) + 1
        self._entries[entry.id] = entry
        self._order.insert(at, entry.id)
        kept = 0
        for item_id in reversed(self._order):
            sound = self._entries[item_id].sound
            if sound is not None:
                kept += 2 * sound.samples
                if kept > self._most:
                    sound.drop()

    def remove(self, item_id: str) -> None:
        """Have it not be there."""
        self._order.remove(item_id)
        del self._entries[item_id]

    @property
    def entries(self) -> list[Entry]:
        """All of them, in order."""
        return [self._entries[i] for i in self._order]

    @staticmethod
    def view(entries: Sequence[Entry]) -> View:
        """What the model is to have in mind of items, and to answer."""
        system: list[str] = []
        turns: list[Turn] = []
        pending: list[Entry] = []
        unclear = False
        for entry in entries:
            if entry.role == "system":
                system.append(entry.text)
            elif entry.role == "user" or (entry.role is None and entry.request is not None):
                unclear = entry.unclear
                if entry.request is not None:
                    pending.append(entry)
            elif entry.role == "assistant" or entry.turn is not None:
                unclear = False
                if entry.turn is None or not entry.turn.reply:
                    continue  # nothing of it was said: what the user says next goes on from before
                ids = tuple(e.id for e in pending)
                if turns and not pending:
                    turns[-1] = Turn(turns[-1].request, [*turns[-1].reply, *entry.turn.reply])
                elif entry.parts == ids:
                    turns.append(entry.turn)
                else:
                    entry.parts, entry.turn = ids, Turn(_joined(pending), entry.turn.reply)
                    turns.append(entry.turn)
                pending = []
        request = None if unclear and not pending else _joined(pending)
        return View("\n".join(system), turns, request, tuple(e.id for e in pending))


def _joined(entries: Sequence[Entry]) -> Request:
    joined = Request()
    for entry in entries:
        assert entry.request is not None
        joined = joined + entry.request if joined != Request() else entry.request
    return joined
