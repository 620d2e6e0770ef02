"""Requests: reading out, writing down, and chat with audio, as OpenAI's clients ask for them."""

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.server.bodies import AudioParameters, BadRequest, ChatBody, SpeechBody, VoiceId, check_text, server_event
from lalia.server.completions import Completion, KeptReplies
from lalia.server.files import FORMATS, FileFormat, FileWriter, read_recording
from lalia.server.metrics import Metrics
from lalia.server.settings import Settings
from lalia.server.streaming import one, stream
from lalia.server.talkers import Talker, Talkers
from lalia.server.worker import Worker

__all__ = ["routes"]


def routes(talkers: Talkers, worker: Worker, settings: Settings, metrics: Metrics) -> APIRouter:
    """All of them."""
    router = APIRouter()
    kept = KeptReplies()

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
        check_text(body.input, settings)
        if body.speed != 1.0:
            raise BadRequest("The model speaks at its own speed: leave speed at 1.", param="speed")
        voice = _voice(talker, body.voice)
        # What is wrong with it is to be known before anything goes out.
        pieces = stream(worker, lambda: _read_out(talker, body.input, voice, body.response_format, metrics))
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
        reply = Completion(talker, body, settings, kept, voice, metrics)
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


# -- reading out -----------------------------------------------------------------------------------


def _read_out(talker: Talker, text: str, voice: int | None, format_: FileFormat, metrics: Metrics) -> Iterator[bytes]:
    """The bytes of a file, as the text is read out."""
    writer = None
    for audio in talker.model.stream_say(text, voice=voice):
        metrics.spoken.inc(audio.seconds)
        writer = writer or FileWriter(format_, audio.sample_rate)
        data = writer.write(audio)
        if data:
            yield data
    if writer is not None and (rest := writer.close()):
        yield rest


async def _speech_events(audio: AsyncIterator[bytes]) -> AsyncIterator[str]:
    async for piece in audio:
        yield server_event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    yield server_event({"type": "speech.audio.done", "usage": usage})


# -- writing down ----------------------------------------------------------------------------------


async def _transcript_events(worker: Worker, talker: Talker, audio: Audio) -> AsyncIterator[str]:
    """The text as it becomes certain, and the whole of it, which counts."""
    said = ""
    final = ""
    async for draft in stream(worker, lambda: talker.drafts(audio)):
        final = draft
        if draft.startswith(said) and len(draft) > len(said):
            yield server_event({"type": "transcript.text.delta", "delta": draft[len(said) :]})
            said = draft
    yield server_event({"type": "transcript.text.done", "text": final})


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
