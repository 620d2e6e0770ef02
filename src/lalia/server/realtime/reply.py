"""A reply of the Realtime protocol: what has been made of it, and the events by which a client is told."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from lalia.audio import Audio
from lalia.model.memory import Turn
from lalia.realtime.events import Called, Event
from lalia.server.realtime import shapes
from lalia.server.realtime.conversation import Conversation, Entry, Sounds, Spoken, new_id
from lalia.server.wire import Encoder
from lalia.server.worker import Due

__all__ = ["Reply"]

_RESERVE = 0.5
"""Seconds before a reply runs dry at which more of it should be there: a piece of sound takes several units."""

Modality = Literal["audio", "text"]


@dataclass
class Reply:
    """A reply that is made.

    :param send: takes a kind of event and its fields.
    :param conversation: in which it becomes an item, if ``in_conversation``.
    :param view: the items that it answers.
    :param created: when it was asked for, in seconds.
    :param most: tokens of it.
    :param asked: what a client asked for as the most tokens.
    :param lead: seconds by which its sound is made ahead of its being played.
    """

    send: Callable[..., None]
    conversation: Conversation
    _: KW_ONLY
    settings: shapes.ResponseSettings
    modality: Modality
    voice: str | None
    out: shapes.AudioOutput
    view: Sequence[Entry]
    in_conversation: bool
    created: float
    most: int
    asked: int | Literal["inf"]
    lead: float
    id: str = field(default_factory=lambda: new_id("resp"))
    status: str = "in_progress"
    details: dict[str, Any] | None = None
    entry: Entry | None = None
    """The item that it becomes; None until there is something of it."""
    calls: list[Entry] = field(default_factory=list)
    """Functions that it asks for."""
    events: Iterator[Event] | None = None
    """What is still to come of the model."""
    text: str = ""
    turn: Turn | None = None
    parts: tuple[str, ...] = ()
    encoder: Encoder | None = None
    first: float | None = None
    """When its first sound was made."""
    made: float = 0.0
    """Seconds of it."""

    @property
    def due(self) -> Due:
        """When the next unit may be made, and when its sound will have been played."""
        if self.first is None:
            # Once it has begun, it shares the steps of the model with those that are written already.
            return Due(self.created, self.created if self.events is not None else 0.0)
        dry = self.first + self.made
        return Due(dry - self.lead, dry - _RESERVE)

    @property
    def full(self) -> bool:
        """Whether it has as many tokens as it may have."""
        return self.turn is not None and len(self.turn.reply) >= self.most

    def begin(self) -> None:
        """Say that it is made."""
        self.send("response.created", response=self.to_json())

    def write(self, text: str) -> None:
        """More of its text."""
        self._open()
        self.text += text
        self._delta("text" if self.modality == "text" else "audio_transcript", text)

    def sound(self, audio: Audio, now: float) -> None:
        """More of its sound, made ``now``."""
        self._open()
        assert self.entry is not None
        assert self.entry.sound is not None
        if self.encoder is None:
            self.encoder, self.first = Encoder(self.out.format.wire(), audio.sample_rate), now
        self.entry.sound.add(audio)
        self.made += audio.seconds
        if data := self.encoder(audio):
            self._delta("audio", base64.b64encode(data).decode())

    def call(self, asked: Called) -> None:
        """The model asks for a function."""
        other = {"type": "function_call", "name": asked.name, "call_id": new_id("call"), "arguments": ""}
        entry = Entry(new_id("item"), None, [], status="in_progress", other=other)
        index = len(self.calls) + (self.entry is not None)
        self.calls.append(entry)
        previous = self._add(entry, index)
        other["arguments"], entry.status = asked.arguments, "completed"
        head = {"response_id": self.id, "item_id": entry.id, "output_index": index, "call_id": other["call_id"]}
        self.send("response.function_call_arguments.delta", **head, delta=asked.arguments)
        self.send("response.function_call_arguments.done", **head, name=asked.name, arguments=asked.arguments)
        self.send("response.output_item.done", response_id=self.id, output_index=index, item=entry.to_json())
        if self.in_conversation:
            self.send("conversation.item.done", item=entry.to_json(), previous_item_id=previous)

    def finish(self) -> None:
        """The last of its sound, which waited for more."""
        if self.encoder is not None and (rest := self.encoder(None, final=True)):
            self._delta("audio", base64.b64encode(rest).decode())

    def end(self, status: str, details: dict[str, Any], spoken: Spoken | None, told: int) -> None:
        """It is over, one way or another.

        :param spoken: when which word of it is said.
        :param told: tokens that the model has seen.
        """
        self.status, self.details = status, details
        entry = self.entry
        if entry is None and self.calls:
            # What was written is remembered by the last call, as nothing was said.
            self.calls[-1].turn, self.calls[-1].parts = self.turn, self.parts
        if entry is not None:
            entry.status = "completed" if status == "completed" else "incomplete"
            entry.content[0]["text" if self.modality == "text" else "transcript"] = self.text.strip()
            entry.turn, entry.parts, entry.spoken = self.turn, self.parts, spoken
            head = self._head
            if self.modality == "text":
                self.send("response.output_text.done", **head, text=self.text.strip())
            else:
                self.send("response.output_audio.done", **head)
                self.send("response.output_audio_transcript.done", **head, transcript=self.text.strip())
            self.send("response.content_part.done", **head, part=self._part(self.text.strip()))
            self.send("response.output_item.done", response_id=self.id, output_index=0, item=entry.to_json())
            if self.in_conversation and self.conversation.get(entry.id) is not None:
                before = self.conversation.previous(entry.id)
                self.send("conversation.item.done", item=entry.to_json(), previous_item_id=before)
        self.send("response.done", response=self.to_json(told))

    def to_json(self, told: int = 0) -> dict[str, Any]:
        """As the protocol has it.

        :param told: tokens that the model has seen, where the reply is over.
        """
        over, usage = self.status != "in_progress", None
        if over:
            made = 0 if self.turn is None else len(self.turn.reply)
            usage = {"total_tokens": told, "input_tokens": max(told - made, 0), "output_tokens": made}
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": self.status,
            "status_details": self.details,
            "output": [e.to_json() for e in (self.entry, *self.calls) if e is not None and over],
            "conversation_id": self.conversation.id if self.in_conversation else None,
            "output_modalities": [self.modality],
            "max_output_tokens": self.asked,
            "audio": {"output": {"format": self.out.format.wire().to_json(), "voice": self.voice}},
            "usage": usage,
            "metadata": self.settings.metadata,
        }

    def _open(self) -> None:
        """Its item, at the first that there is of it."""
        if self.entry is not None:
            return
        kind = "output_text" if self.modality == "text" else "output_audio"
        self.entry = Entry(new_id("item"), "assistant", [], status="in_progress")
        self._add(self.entry, 0)
        self.entry.content.append({"type": kind, "text" if self.modality == "text" else "transcript": ""})
        self.entry.sound = Sounds() if self.modality == "audio" else None
        self.send("response.content_part.added", **self._head, part=self._part(""))

    def _add(self, entry: Entry, index: int) -> str | None:
        """Say that there is an item of it; the one before that in the conversation."""
        previous = self.conversation.last
        self.send("response.output_item.added", response_id=self.id, output_index=index, item=entry.to_json())
        if self.in_conversation:
            self.conversation.add(entry)
            self.send("conversation.item.added", item=entry.to_json(), previous_item_id=previous)
        return previous

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "text", "text": text} if self.modality == "text" else {"type": "audio", "transcript": text}

    @property
    def _head(self) -> dict[str, Any]:
        assert self.entry is not None
        return {"response_id": self.id, "item_id": self.entry.id, "output_index": 0, "content_index": 0}

    def _delta(self, kind: str, delta: str) -> None:
        self.send(f"response.output_{kind}.delta", **self._head, delta=delta)
