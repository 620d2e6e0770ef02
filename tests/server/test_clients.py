"""The official client of OpenAI, unchanged, talks to mini."""

import asyncio
import base64
import io
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import soxr

import lalia
from lalia.model import Model
from lalia.server.realtime.session import RealtimeSession
from lalia.server.settings import Settings
from lalia.server.talkers import Talker, Talkers
from server_clients import Running

QUESTION = Path(__file__).parents[2] / "examples/question.flac"
RATE = 24_000


@pytest.fixture(scope="module")
def mini() -> Model:
    model = lalia.load("mini")
    model.compact()
    return model


@pytest.fixture(scope="module")
def server(mini: Model) -> Iterator[Running]:
    running = Running(Talkers([Talker("mini", mini)]), Settings(max_tokens=60), session=RealtimeSession)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def talkative() -> None:
    """These weights were trained: nothing is pretended."""


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)


def pcm(path: Path = QUESTION) -> bytes:
    samples, rate = soundfile.read(path, dtype="float32")
    return (np.clip(soxr.resample(samples, rate, RATE), -1, 1) * 32767).astype("<i2").tobytes()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Talk:
    """A connection, all of whose events are kept."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.events = connection, list[Any]()

    async def send(self, data: bytes, piece: int = 9600) -> None:
        for i in range(0, len(data), piece):
            await self.connection.input_audio_buffer.append(audio=b64(data[i : i + piece]))

    async def until(self, *kinds: str) -> Any:
        async for event in self.connection:
            self.events.append(event)
            assert event.type != "error" or "error" in kinds, event
            if event.type in kinds:
                return event
        raise AssertionError(f"the server ended the session before {kinds}")

    def sound(self, item_id: str | None = None) -> bytes:
        return b"".join(
            base64.b64decode(e.delta)
            for e in self.events
            if e.type == "response.output_audio.delta" and item_id in (None, e.item_id)
        )


async def connected(server: Running) -> AsyncIterator[Talk]:
    client = openai.AsyncOpenAI(api_key="none", base_url=f"{server.url}/v1")
    async with client.realtime.connect(model="mini") as connection:
        talk = Talk(connection)
        await talk.until("session.created")
        yield talk


def talking(server: Running, act: Any) -> Any:
    """Run what is done with a connection."""

    async def run() -> Any:
        async for talk in connected(server):
            return await asyncio.wait_for(act(talk), 240)
        return None

    return asyncio.run(run())


SILENCE = bytes(2 * RATE)
"""A second of it."""


def test_a_spoken_conversation(server: Running, mini: Model) -> None:
    """Audio in, audio and transcript out; what the audio says is what the transcript says; then a typed turn."""

    async def act(talk: Talk) -> None:
        await talk.connection.session.update(
            session={"type": "realtime", "audio": {"input": {"transcription": {"model": "mini"}}}}
        )
        await talk.until("session.updated")
        await talk.send(pcm() + SILENCE)
        heard = await talk.until("conversation.item.input_audio_transcription.completed")
        assert "capital of france" in heard.transcript.lower()
        done = await talk.until("response.done")
        assert done.response.status == "completed"
        said = done.response.output[0].content[0].transcript
        assert "Paris" in said
        sound = np.frombuffer(talk.sound(), "<i2").astype(np.float32) / 32768
        assert "paris" in mini.transcribe((sound, RATE)).lower()
        await talk.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And of Italy?"}]}
        )
        await talk.connection.response.create()
        done = await talk.until("response.done")
        assert "Rome" in done.response.output[0].content[0].transcript

    talking(server, act)


def test_who_speaks_interrupts_and_what_was_heard_is_kept(server: Running) -> None:
    async def act(talk: Talk) -> None:
        await talk.connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Tell me a long story about a dog and a cat."}],
            }
        )
        await talk.connection.response.create()
        first = await talk.until("response.output_audio.delta")
        await talk.send(pcm())
        await talk.until("input_audio_buffer.speech_started")
        done = await talk.until("response.done")
        assert done.response.status == "cancelled"
        assert done.response.status_details.reason == "turn_detected"
        whole = done.response.output[0].content[0].transcript
        heard = len(talk.sound(first.item_id)) // 2 * 1000 // RATE // 2
        await talk.connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=heard)
        cut = await talk.until("conversation.item.truncated")
        assert cut.audio_end_ms == heard
        await talk.connection.conversation.item.retrieve(item_id=first.item_id)
        item = (await talk.until("conversation.item.retrieved")).item
        kept = item.content[0].transcript
        assert whole.startswith(kept)
        assert len(kept) < len(whole)
        assert len(base64.b64decode(item.content[0].audio)) // 2 * 1000 // RATE == pytest.approx(heard, abs=2)
        await talk.send(SILENCE)
        done = await talk.until("response.done")
        assert "Paris" in done.response.output[0].content[0].transcript

    talking(server, act)


def test_turns_by_hand_and_mistakes(server: Running) -> None:
    async def act(talk: Talk) -> None:
        await talk.connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "audio": {"input": {"turn_detection": None}}}
        )
        await talk.until("session.updated")
        await talk.send(pcm())
        await talk.connection.input_audio_buffer.commit()
        await talk.until("conversation.item.done")
        assert "response.created" not in {e.type for e in talk.events}
        await talk.connection.response.create()
        done = await talk.until("response.done")
        assert "Paris" in done.response.output[0].content[0].text
        await talk.connection.input_audio_buffer.commit(event_id="empty")
        error = await talk.until("error")
        assert error.error.code == "input_audio_buffer_commit_empty"
        assert error.error.event_id == "empty"
        await talk.connection.conversation.item.delete(item_id="nothing")
        assert (await talk.until("error")).error.code == "item_not_found"

    talking(server, act)


def test_reading_out(client: openai.OpenAI, mini: Model) -> None:
    for format_ in ("wav", "pcm", "flac", "mp3", "opus"):
        spoken = client.audio.speech.create(
            model="mini", voice="alloy", input="The quick brown fox jumps over the lazy dog.", response_format=format_
        )
        if format_ == "pcm":
            sound, rate = np.frombuffer(spoken.content, "<i2").astype(np.float32) / 32768, RATE
        else:
            sound, rate = soundfile.read(io.BytesIO(spoken.content), dtype="float32")
        assert 1.5 < len(sound) / rate < 6, format_
    assert "quick brown fox" in mini.transcribe((sound, rate)).lower()
    with client.audio.speech.with_streaming_response.create(
        model="mini", voice="alloy", input="First this, and then a good deal more of it. " * 4, response_format="pcm"
    ) as stream:
        assert sum(1 for _ in stream.iter_bytes(4096)) > 2
    with pytest.raises(openai.BadRequestError, match="no voice 'nobody'"):
        client.audio.speech.create(model="mini", voice="nobody", input="Hello.")
    with pytest.raises(openai.BadRequestError, match="nothing to read out"):
        client.audio.speech.create(model="mini", voice="alloy", input=" ?! ")
    with pytest.raises(openai.NotFoundError, match="no model 'tts-1'"):
        client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")


def test_writing_down(client: openai.OpenAI, tmp_path: Path) -> None:
    for format_ in ("json", "text", "verbose_json", "srt", "vtt"):
        with QUESTION.open("rb") as file:
            written = client.audio.transcriptions.create(model="mini", file=file, response_format=format_)
        assert "capital of france" in str(getattr(written, "text", written)).lower()
    with QUESTION.open("rb") as file:
        *deltas, done = client.audio.transcriptions.create(model="mini", file=file, stream=True)
    assert done.type == "transcript.text.done"
    assert "capital of France" in done.text
    assert all(e.type == "transcript.text.delta" for e in deltas)
    (tmp_path / "broken.wav").write_bytes(b"RIFF....WAVEfmt ")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    for name, match in (("broken.wav", "no recording"), ("silent.wav", "silent")):
        with (tmp_path / name).open("rb") as file, pytest.raises(openai.BadRequestError, match=match):
            client.audio.transcriptions.create(model="mini", file=file)


def test_chat_with_audio(client: openai.OpenAI, mini: Model) -> None:
    question: Any = {
        "role": "user",
        "content": [{"type": "input_audio", "input_audio": {"data": b64(QUESTION.read_bytes()), "format": "wav"}}],
    }
    made = client.chat.completions.create(
        model="mini",
        messages=[question],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        temperature=0,
    )
    message = made.choices[0].message
    assert message.audio is not None
    assert "Paris" in message.audio.transcript
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(message.audio.data)), dtype="float32")
    assert "paris" in mini.transcribe((sound, rate)).lower()
    assert made.usage is not None
    assert made.usage.completion_tokens > 3
    more: Any = [
        {"role": "system", "content": "Answer in a few words."},
        question,
        {"role": "assistant", "audio": {"id": message.audio.id}},
        {"role": "user", "content": "And of Italy?"},
    ]
    again = client.chat.completions.create(model="mini", messages=more, temperature=0)
    assert "Rome" in (again.choices[0].message.content or "")
    text, ended = "", None
    for chunk in client.chat.completions.create(
        model="mini", messages=more, temperature=0, stream=True, stream_options={"include_usage": True}
    ):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            ended = choice.finish_reason or ended
    assert text.strip() == again.choices[0].message.content
    assert ended == "stop"
    short = client.chat.completions.create(model="mini", messages=more, max_tokens=2)
    assert short.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="no spoken reply"):
        client.chat.completions.create(
            model="mini", messages=[question, {"role": "assistant", "audio": {"id": "audio_x"}}, question]
        )


def test_models_and_what_operators_see(client: openai.OpenAI, server: Running) -> None:
    assert [m.id for m in client.models.list()] == ["mini"]
    assert client.models.retrieve("mini").owned_by == "lalia"
    health = client.get(f"{server.url}/health", cast_to=dict[str, Any])
    assert health["status"] == "ok"
    page = client.get(f"{server.url}/metrics", cast_to=str)
    busy = re.search(r"^lalia_busy_seconds ([\d.e+-]+)$", page, re.MULTILINE)
    assert busy is not None
    assert float(busy[1]) > 0
    assert re.search(r'^lalia_sessions\{protocol="realtime"\} 0.0$', page, re.MULTILINE)
    # Nothing of what was said.
    assert "France" not in page
