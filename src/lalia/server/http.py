"""Requests: reading out, writing down, and chat with audio, as OpenAI's clients ask for them."""

import base64
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lalia.audio import Audio
from lalia.errors import ConfigError, LaliaError
from lalia.model import memory
from lalia.model.calls import call_text, response_text, told_of
from lalia.model.dialogue import Dialogue, Heard, Said, Sound, Written
from lalia.realtime.events import Called
from lalia.server.files import FORMATS, FileFormat, FileWriter, read_recording
from lalia.server.metrics import Metrics
from lalia.server.realtime.conversation import new_id
from lalia.server.settings import Settings
from lalia.server.streaming import one, stream
from lalia.server.talkers import Talker, Talkers
from lalia.server.worker import Worker

__all__ = ["BadRequest", "routes"]

_KEPT_REPLIES, _KEPT_SECONDS = 256, 3600


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


@dataclass
class _Kept:
    """A spoken reply that later messages may name."""

    text: str
    until: float


def routes(talkers: Talkers, worker: Worker, settings: Settings, metrics: Metrics) -> APIRouter:
    """All of them."""
    router = APIRouter()
    kept: OrderedDict[str, _Kept] = OrderedDict()

    def found(name: str | None) -> Talker:
        talker = _find(talkers, name)
        if talker.kind != "turns":
            raise BadRequest(f"Model {talker.name!r} talks at once: use the socket /api/chat.", param="model")
        return talker

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(t) for t in talkers]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _described(_find(talkers, name))

    @router.post("/v1/audio/speech")
    async def speech(body: SpeechBody) -> Response:
        talker = found(body.model)
        if not talker.speaks:
            raise BadRequest(f"Model {talker.name!r} does not speak.", param="model")
        _check_text(body.input, settings)
        if body.speed != 1.0:
            raise BadRequest("The model speaks at its own speed: leave speed at 1.", param="speed")
        voice = _voice(talker, body.voice)
        # What is wrong with it is to be known before anything goes out.
        pieces = stream(worker, lambda: _read_out(talker, body.input, voice, body.response_format))
        first = await _first(pieces)

        async def audio() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        if body.stream_format == "sse":
            return StreamingResponse(_speech_events(audio()), media_type="text/event-stream")
        return StreamingResponse(audio(), media_type=FORMATS[body.response_format])

    @router.post("/v1/audio/transcriptions")
    async def transcriptions(
        file: Annotated[UploadFile, File()],
        model: Annotated[str | None, Form()] = None,
        response_format: Annotated[str, Form()] = "json",
        stream_: Annotated[bool, Form(alias="stream")] = False,
        language: Annotated[str | None, Form()] = None,
    ) -> Response:
        talker = found(model)
        kinds = ("json", "text", "verbose_json", "srt", "vtt")
        if response_format not in kinds:
            raise BadRequest(
                f"There is no format {response_format!r}. Choose {', '.join(kinds)}.", param="response_format"
            )
        data = await file.read()
        name = file.filename or "the recording"
        audio = await one(worker, lambda: read_recording(data, name, settings.audio_seconds))
        metrics.heard.inc(audio.seconds)
        if stream_:
            return StreamingResponse(_transcript_events(worker, talker, audio), media_type="text/event-stream")
        text = await one(worker, lambda: talker.model.transcribe(audio))
        return _transcript(text, audio.seconds, response_format, language or "en")

    @router.post("/v1/chat/completions")
    async def completions(body: ChatBody) -> Response:
        talker = found(body.model)
        if body.n not in (None, 1):
            raise BadRequest("One reply is made at a time: leave n at 1.", param="n")
        speak = "audio" in body.modalities
        form = (body.audio or AudioParameters()).format
        if speak and not talker.speaks:
            raise BadRequest(f"Model {talker.name!r} does not speak: ask for text.", param="modalities")
        if speak and body.stream and form != "pcm16":
            raise BadRequest("Spoken replies are streamed as pcm16.", param="audio.format")
        voice = _voice(talker, None if body.audio is None else body.audio.voice)
        reply = _Completion(talker, body, settings, kept, voice)
        events = stream(worker, reply.events)
        if body.stream:
            first = await _first(events)
            return StreamingResponse(reply.chunks(first, events), media_type="text/event-stream")
        return JSONResponse(await reply.whole(events))

    return router


def _find(talkers: Talkers, name: str | None) -> Talker:
    try:
        return talkers.find(name)
    except ConfigError as error:
        raise BadRequest(str(error), status=404, code="model_not_found", param="model") from None


def _described(talker: Talker) -> dict[str, Any]:
    return {
        "id": talker.name,
        "object": "model",
        "created": 0,
        "owned_by": "lalia",
        "voices": list(talker.voices),
        "kind": talker.kind,
    }


async def _first(pieces: AsyncIterator[Any]) -> Any:
    async for piece in pieces:
        return piece
    raise BadRequest("Nothing came of it.", status=500, code="nothing_made")


def _voice(talker: Talker, voice: str | VoiceId | None) -> int | None:
    try:
        return talker.voice(voice.id if isinstance(voice, VoiceId) else voice)
    except ConfigError as error:
        raise BadRequest(str(error), param="voice") from None


def _check_text(text: str, settings: Settings) -> None:
    if len(text) > settings.text_characters:
        raise BadRequest(
            f"The text has {len(text)} characters. Give up to {settings.text_characters}.",
            code="string_above_max_length",
        )


def _event(data: dict[str, Any] | str) -> str:
    return f"data: {data if isinstance(data, str) else json.dumps(data, separators=(',', ':'))}\n\n"


# -- reading out -----------------------------------------------------------------------------------


def _read_out(talker: Talker, text: str, voice: int | None, format_: FileFormat) -> Iterator[bytes]:
    """The bytes of a file, as the text is read out."""
    writer = None
    for audio in talker.model.stream_say(text, voice=voice):
        writer = writer or FileWriter(format_, audio.sample_rate)
        data = writer.write(audio)
        if data:
            yield data
    if writer is not None and (rest := writer.close()):
        yield rest


async def _speech_events(audio: AsyncIterator[bytes]) -> AsyncIterator[str]:
    async for piece in audio:
        yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    yield _event({"type": "speech.audio.done", "usage": usage})


# -- writing down ----------------------------------------------------------------------------------


async def _transcript_events(worker: Worker, talker: Talker, audio: Audio) -> AsyncIterator[str]:
    """The text as it becomes certain, and the whole of it, which counts."""
    said = ""
    final = ""
    async for draft in stream(worker, lambda: talker.drafts(audio)):
        final = draft
        if draft.startswith(said) and len(draft) > len(said):
            yield _event({"type": "transcript.text.delta", "delta": draft[len(said) :]})
            said = draft
    yield _event({"type": "transcript.text.done", "text": final})


def _transcript(text: str, seconds: float, format_: str, language: str) -> Response:
    match format_:
        case "text":
            return PlainTextResponse(text + "\n")
        case "srt":
            return PlainTextResponse(f"1\n{_clock(0, ',')} --> {_clock(seconds, ',')}\n{text}\n\n")
        case "vtt":
            return PlainTextResponse(f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(seconds, '.')}\n{text}\n\n")
        case "verbose_json":
            segment = {"id": 0, "start": 0.0, "end": seconds, "text": text}
            head = {"task": "transcribe", "language": language, "duration": seconds}
            return JSONResponse({**head, "text": text, "segments": [segment]})
        case _:
            return JSONResponse({"text": text, "usage": {"type": "duration", "seconds": round(seconds, 3)}})


def _clock(seconds: float, point: str) -> str:
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


# -- chat ------------------------------------------------------------------------------------------


class _Completion:
    """One reply of a chat."""

    def __init__(
        self,
        talker: Talker,
        body: ChatBody,
        settings: Settings,
        kept: "OrderedDict[str, _Kept]",
        voice: int | None,
    ) -> None:
        self.talker, self.body, self.settings, self.kept, self.voice = talker, body, settings, kept, voice
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
        most = body.max_completion_tokens or body.max_tokens or settings.max_tokens
        system = "\n".join(_text(m) for m in body.messages if m.role in ("system", "developer"))
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
                pending = pending + memory.Request(response_text(_text(message)))
                continue
            for part in _parts(message):
                if part.input_audio is not None:
                    hearing = mind.hear(self._recording(part.input_audio))
                    understood = hearing.understood
                    if understood:
                        pending = pending + hearing.request
                else:
                    _check_text(part.text or "", self.settings)
                    pending, understood = pending + memory.Request(part.text or ""), True
        if pending != memory.Request():
            understood = True
        mind.memory.recall(turns)
        return pending, understood

    def _said(self, message: Message) -> str:
        if message.audio is None:
            calls = [call_text(c.function.name, c.function.arguments) for c in message.tool_calls or ()]
            return "".join((_text(message), *calls))
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
        return read_recording(data, "The recording", self.settings.audio_seconds)

    def _take(self, event: Any) -> None:
        if isinstance(event, Written):
            self.text += event.text
        elif isinstance(event, Sound):
            self.sounds.append(event.audio)
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
            self.kept[self.audio_id] = _Kept(self.text.strip(), time.time() + _KEPT_SECONDS)
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
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})
        yield _event("[DONE]")

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
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.talker.name}


def _parts(message: Message) -> list[ContentPart]:
    if isinstance(message.content, list):
        return message.content
    return [ContentPart(type="text", text=message.content or "")]


def _text(message: Message) -> str:
    return " ".join(p.text for p in _parts(message) if p.text)
