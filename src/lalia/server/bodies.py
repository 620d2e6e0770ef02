"""What requests of OpenAI's clients hold, and how they are refused."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lalia.errors import LaliaError
from lalia.server.files import FileFormat
from lalia.server.settings import Settings

__all__ = [
    "AudioParameters",
    "BadRequest",
    "ChatBody",
    "ContentPart",
    "InputAudio",
    "Message",
    "SpeechBody",
    "VoiceId",
    "check_text",
    "parts_of",
    "server_event",
    "text_of",
]


class BadRequest(LaliaError):
    """A request is wrong.

    :param status: of HTTP.
    """

    def __init__(
        self, message: str, *, status: int = 400, code: str = "invalid_value", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class Body(BaseModel):
    """Of a request; fields that have no meaning here are taken."""

    model_config = ConfigDict(extra="allow")


class VoiceId(Body):
    """A voice by its name."""

    id: str


class SpeechBody(Body):
    """What is to be read out."""

    model: str | None = None
    input: str = Field(min_length=1)
    voice: str | VoiceId | None = None
    response_format: FileFormat = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"


class InputAudio(Body):
    """A recording."""

    data: str
    format: str = "wav"


class ContentPart(Body):
    """Of a message."""

    type: Literal["text", "input_audio", "refusal"]
    text: str | None = None
    input_audio: InputAudio | None = None


class AudioId(Body):
    """A spoken reply of before."""

    id: str


class Function(Body):
    """That is called, or can be."""

    name: str
    arguments: str = "{}"


class ToolCall(Body):
    """Of an earlier message."""

    function: Function


class Message(Body):
    """Of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    audio: AudioId | None = None
    tool_calls: list[ToolCall] | None = None


class AudioParameters(Body):
    """Of a spoken reply."""

    voice: str | VoiceId | None = None
    format: Literal["pcm16", "wav", "flac", "mp3", "opus"] = "wav"


class ChatBody(Body):
    """A chat that is to go on."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=1000)
    modalities: list[Literal["text", "audio"]] = Field(default_factory=lambda: ["text"])  # type: ignore[arg-type]
    audio: AudioParameters | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    seed: int | None = Field(None, ge=0)
    n: int | None = 1
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None


def parts_of(message: Message) -> list[ContentPart]:
    """What it consists of; a text is one part."""
    if isinstance(message.content, list):
        return message.content
    return [ContentPart(type="text", text=message.content or "")]


def text_of(message: Message) -> str:
    """All that is written in it."""
    return " ".join(p.text for p in parts_of(message) if p.text)


def check_text(text: str, settings: Settings) -> None:
    """
    :raises BadRequest: it is too long.
    """
    if len(text) > settings.text_characters:
        raise BadRequest(
            f"The text has {len(text)} characters. Give up to {settings.text_characters}.",
            code="string_above_max_length",
        )


def server_event(data: dict[str, Any] | str) -> str:
    """As it goes out in a stream of server-sent events."""
    return f"data: {data if isinstance(data, str) else json.dumps(data, separators=(',', ':'))}\n\n"
