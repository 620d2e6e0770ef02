"""A chat with audio that goes on, as OpenAI's clients ask for it (``/v1/chat/completions``)."""

import base64
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from lalia.audio import Audio
from lalia.model import memory
from lalia.model.calls import call_text, response_text, told_of
from lalia.model.dialogue import Dialogue, Heard, Said, Sound, Written
from lalia.realtime.events import Called
from lalia.server.bodies import (
    AudioParameters,
    BadRequest,
    ChatBody,
    InputAudio,
    Message,
    check_text,
    parts_of,
    server_event,
    text_of,
)
from lalia.server.files import FileFormat, FileWriter, read_recording
from lalia.server.metrics import Metrics
from lalia.server.realtime.conversation import new_id
from lalia.server.settings import Settings
from lalia.server.talkers import Talker

__all__ = ["Completion", "KeptReplies"]

_KEPT_REPLIES, _KEPT_SECONDS = 256, 3600


@dataclass
class KeptReply:
    """A spoken reply that later messages may name."""

    text: str
    until: float


KeptReplies = OrderedDict[str, KeptReply]
"""By id, the oldest first."""


class Completion:
    """One reply of a chat."""

    def __init__(
        self,
        talker: Talker,
        body: ChatBody,
        settings: Settings,
        kept: KeptReplies,
        voice: int | None,
        metrics: Metrics,
    ) -> None:
        self.talker, self.body, self.settings, self.kept, self.voice = talker, body, settings, kept, voice
        self.metrics = metrics
        self.speak = "audio" in body.modalities
        self.format = (body.audio or AudioParameters()).format
        self.id, self.created = new_id("chatcmpl"), int(time.time())
        self.audio_id = new_id("audio")
        self.dialogue: Dialogue | None = None
        self.sounds: list[Audio] = []
        self.calls: list[dict[str, Any]] = []
        self.text = ""

    def events(self) -> Iterator[Written | Sound | Called | Said]:
        """The reply; on the worker."""
        body, settings = self.body, self.settings
        for message in body.messages:
            check_text(text_of(message), settings)
        most = body.max_completion_tokens or body.max_tokens or settings.max_tokens
        system = "\n".join(text_of(m) for m in body.messages if m.role in ("system", "developer"))
        if body.tools and body.tool_choice != "none":
            told = told_of([t["function"] for t in body.tools if isinstance(t.get("function"), dict)])
            system = "\n".join((system or self.talker.instructions, told))
        self.dialogue = mind = self.talker.dialogue(
            **({"system": system} if system else {}),
            max_tokens=min(most, settings.max_tokens),
            temperature=body.temperature,
            seed=body.seed or 0,
            speak=self.speak,
        )
        mind.voice = self.voice if self.speak else None
        request, understood = self._recall(mind)
        events = mind.turn(request) if understood else mind.ask_again()
        for event in events:
            if not isinstance(event, Heard):
                yield event

    def _recall(self, mind: Dialogue) -> tuple[memory.Request, bool]:
        """Have the earlier messages in mind; the last of the user, and whether it was understood."""
        turns: list[memory.Turn] = []
        pending, understood = memory.Request(), True
        for message in self.body.messages:
            if message.role in ("system", "developer"):
                continue
            if message.role == "assistant":
                ids = mind.reply_ids(self._said(message))
                if turns and pending == memory.Request():
                    turns[-1].reply.extend(ids)
                else:
                    turns.append(memory.Turn(pending, ids))
                pending, understood = memory.Request(), True
                continue
            if message.role == "tool":
                pending = pending + memory.Request(response_text(text_of(message)))
                continue
            for part in parts_of(message):
                if part.input_audio is not None:
                    hearing = mind.hear(self._recording(part.input_audio))
                    understood = hearing.understood
                    if understood:
                        pending = pending + hearing.request
                else:
                    pending, understood = pending + memory.Request(part.text or ""), True
        if pending != memory.Request():
            understood = True
        mind.memory.recall(turns)
        return pending, understood

    def _said(self, message: Message) -> str:
        if message.audio is None:
            calls = [call_text(c.function.name, c.function.arguments) for c in message.tool_calls or ()]
            return "".join((text_of(message), *calls))
        known = self.kept.get(message.audio.id)
        if known is None or known.until < time.time():
            raise BadRequest(
                f"There is no spoken reply {message.audio.id!r} any more. Give its transcript as content.",
                code="audio_not_found",
                param="messages",
            )
        return known.text

    def _recording(self, given: InputAudio) -> Audio:
        try:
            data = base64.b64decode(given.data, validate=True)
        except ValueError:
            raise BadRequest("The audio is no base64.", param="messages") from None
        audio = read_recording(data, "The recording", self.settings.audio_seconds)
        self.metrics.heard.inc(audio.seconds)
        return audio

    def _take(self, event: Any) -> None:
        if isinstance(event, Written):
            self.text += event.text
        elif isinstance(event, Sound):
            self.sounds.append(event.audio)
            self.metrics.spoken.inc(event.audio.seconds)
        elif isinstance(event, Called):
            function = {"name": event.name, "arguments": event.arguments}
            self.calls.append({"id": new_id("call"), "type": "function", "function": function})

    def _end(self) -> tuple[str, dict[str, int]]:
        """Why it ended, and what it took."""
        assert self.dialogue is not None
        mind = self.dialogue.memory
        made = len(mind.turns[-1].reply) if mind.turns else 0
        full = made >= self.dialogue.max_tokens
        if self.speak:
            self.kept[self.audio_id] = KeptReply(self.text.strip(), time.time() + _KEPT_SECONDS)
            while len(self.kept) > _KEPT_REPLIES:
                self.kept.popitem(last=False)
        usage = {"prompt_tokens": max(mind.used - made, 0), "completion_tokens": made, "total_tokens": mind.used}
        self.dialogue = None
        return "length" if full else "tool_calls" if self.calls else "stop", usage

    async def whole(self, events: AsyncIterator[Any]) -> dict[str, Any]:
        """The reply as one."""
        async for event in events:
            self._take(event)
        reason, usage = self._end()
        message: dict[str, Any] = {"role": "assistant", "content": self.text.strip(), "refusal": None}
        if self.speak:
            message["content"] = None
            message["audio"] = {
                "id": self.audio_id,
                "data": base64.b64encode(self._file()).decode(),
                "expires_at": self.created + _KEPT_SECONDS,
                "transcript": self.text.strip(),
            }
        if self.calls:
            message["tool_calls"] = self.calls
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage}

    def _file(self) -> bytes:
        if not self.sounds:
            return b""
        kind: FileFormat = "pcm" if self.format == "pcm16" else self.format
        writer = FileWriter(kind, self.sounds[0].sample_rate)
        return b"".join([*(writer.write(x) for x in self.sounds), writer.close()])

    async def chunks(self, first: Any, events: AsyncIterator[Any]) -> AsyncIterator[str]:
        """The reply as it comes."""
        yield self._chunk({"role": "assistant", "content": None if self.speak else ""})
        yield self._piece(first)
        async for event in events:
            yield self._piece(event)
        reason, usage = self._end()
        yield self._chunk({}, reason)
        if (self.body.stream_options or {}).get("include_usage"):
            yield server_event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})
        yield server_event("[DONE]")

    def _piece(self, event: Any) -> str:
        self._take(event)
        if isinstance(event, Written):
            return self._chunk(
                {"audio": {"id": self.audio_id, "transcript": event.text}} if self.speak else {"content": event.text}
            )
        if isinstance(event, Called):
            return self._chunk({"tool_calls": [{"index": len(self.calls) - 1, **self.calls[-1]}]})
        if isinstance(event, Sound):
            data = FileWriter("pcm", event.audio.sample_rate).write(event.audio)
            return self._chunk({"audio": {"id": self.audio_id, "data": base64.b64encode(data).decode()}})
        return (
            self._chunk({"audio": {"id": self.audio_id, "expires_at": self.created + _KEPT_SECONDS}})
            if (self.speak)
            else ""
        )

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return server_event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.talker.name}
