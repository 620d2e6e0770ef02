"""The events of the OpenAI Realtime protocol that clients send, as they must be (GA, 2025-08 and later).

Names and shapes are those of ``openai.types.realtime``. Fields that have no meaning here are taken and kept, so that a
client needs no other code for lalia; what is unknown is refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from lalia.server.wire import Kind, WireFormat

__all__ = ["CLIENT_EVENTS", "ClientEvent", "Item", "Part", "ResponseCreate", "ResponseSettings", "Session"]


class Shape(BaseModel):
    """Has no fields but its own."""

    model_config = ConfigDict(extra="forbid", strict=False)


class Format(Shape):
    """Of sound."""

    type: Kind = "audio/pcm"
    rate: Literal[24000, 8000] | None = None

    @model_validator(mode="after")
    def _rate(self) -> "Format":
        fixed = 24000 if self.type == "audio/pcm" else 8000
        if self.rate not in (None, fixed):
            raise ValueError(f"{self.type} has a rate of {fixed}")
        self.rate = fixed  # type: ignore[assignment]
        return self

    def wire(self) -> WireFormat:
        """The same for encoders and decoders."""
        return WireFormat(self.type, self.rate or 24000)


class ServerVad(Shape):
    """A turn ends with a silence."""

    type: Literal["server_vad"]
    threshold: float = Field(default=0.5, gt=0, lt=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=50, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = Field(default=None, ge=5000, le=30_000)


class SemanticVad(Shape):
    """A turn ends where the user seems to be done."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


class Transcription(Shape):
    """What the user said, in words."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    delay: Any = None


class AudioInput(Shape):
    """The sound of the user."""

    format: Format = Field(default_factory=Format)
    noise_reduction: Any = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = Field(default_factory=lambda: ServerVad(type="server_vad"))


class VoiceId(Shape):
    """A voice by its name."""

    id: str


class AudioOutput(Shape):
    """The sound of the model."""

    format: Format = Field(default_factory=Format)
    voice: str | VoiceId | None = None
    speed: float = Field(default=1.0, ge=0.25, le=1.5)


class SessionAudio(Shape):
    """Both."""

    input: AudioInput = Field(default_factory=AudioInput)
    output: AudioOutput = AudioOutput()


MaxTokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]
Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=1)]


class Session(Shape):
    """What holds for a session."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    instructions: str | None = None
    output_modalities: Modalities = Field(default_factory=lambda: ["audio"])  # type: ignore[arg-type]
    audio: SessionAudio = Field(default_factory=SessionAudio)
    max_output_tokens: MaxTokens = "inf"
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: Any = "auto"
    parallel_tool_calls: bool | None = None
    truncation: Any = "auto"
    tracing: Any = None
    prompt: Any = None
    reasoning: Any = None
    include: list[str] | None = None


class Part(Shape):
    """A part of the content of an item."""

    type: Literal["input_text", "input_audio", "output_text", "output_audio", "text"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None


class Item(Shape):
    """Of a conversation, as a client gives it; or one that is there already, by its id."""

    id: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[\w.:-]+$")
    type: Literal["message", "function_call", "function_call_output", "item_reference"] = "message"
    object: str | None = None
    status: str | None = None
    role: Literal["user", "assistant", "system"] | None = None
    content: list[Part] = Field(default_factory=list, max_length=64)
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    output: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Item":
        if self.type == "message" and (self.role is None or not self.content):
            raise ValueError("a message has a role and content")
        if self.type == "item_reference" and self.id is None:
            raise ValueError("an item_reference has an id")
        if self.type == "function_call_output" and (self.call_id is None or self.output is None):
            raise ValueError("a function_call_output has a call_id and an output")
        if self.type == "function_call" and (self.name is None or self.arguments is None):
            raise ValueError("a function_call has a name and arguments")
        allowed = {
            "user": {"input_text", "input_audio"},
            "system": {"input_text"},
            "assistant": {"output_text", "output_audio", "text"},
        }
        for part in self.content:
            if self.role is not None and part.type not in allowed[self.role]:
                raise ValueError(f"a message of role {self.role} has no content of type {part.type}")
            if part.type == "input_audio" and part.audio is None:
                raise ValueError("content of type input_audio has audio")
            if part.type.endswith("text") and part.text is None:
                raise ValueError(f"content of type {part.type} has text")
        return self


class ResponseAudio(Shape):
    """The sound of one response."""

    output: AudioOutput | None = None


class ResponseSettings(Shape):
    """What holds for one response, in place of what holds for the session."""

    instructions: str | None = None
    output_modalities: Modalities | None = None
    audio: ResponseAudio | None = None
    conversation: Literal["auto", "none"] = "auto"
    input: list[Item] | None = Field(default=None, max_length=256)
    max_output_tokens: MaxTokens | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    prompt: Any = None
    reasoning: Any = None


class Event(Shape):
    """Of a client."""

    event_id: str | None = Field(default=None, max_length=512)


class SessionUpdate(Event):
    type: Literal["session.update"]
    session: Session


class Append(Event):
    type: Literal["input_audio_buffer.append"]
    audio: str


class Commit(Event):
    type: Literal["input_audio_buffer.commit"]


class Clear(Event):
    type: Literal["input_audio_buffer.clear"]


class ClearOutput(Event):
    type: Literal["output_audio_buffer.clear"]


class ItemCreate(Event):
    type: Literal["conversation.item.create"]
    previous_item_id: str | None = None
    item: Item


class ItemDelete(Event):
    type: Literal["conversation.item.delete"]
    item_id: str


class ItemRetrieve(Event):
    type: Literal["conversation.item.retrieve"]
    item_id: str


class ItemTruncate(Event):
    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: int = Field(ge=0)
    audio_end_ms: int = Field(ge=0)


class ResponseCreate(Event):
    """Asks for a reply."""

    type: Literal["response.create"]
    response: ResponseSettings = ResponseSettings()


class ResponseCancel(Event):
    type: Literal["response.cancel"]
    response_id: str | None = None


ClientEvent = Annotated[
    SessionUpdate
    | Append
    | Commit
    | Clear
    | ClearOutput
    | ItemCreate
    | ItemDelete
    | ItemRetrieve
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel,
    Field(discriminator="type"),
]

CLIENT_EVENTS: TypeAdapter[ClientEvent] = TypeAdapter(ClientEvent)
