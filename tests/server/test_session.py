"""A session of the Realtime protocol, event by event."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lalia.model.dialogue import Dialogue
from server_clients import Client, kinds

RATE = 24_000

REPLY = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


def sound(*parts: float) -> str:
    """Silence and voice in turns, seconds of each, beginning with silence."""
    rng = np.random.default_rng(0)
    pieces = [
        rng.uniform(-0.9, 0.9, round(RATE * t)) * (i % 2) + 0.01 * rng.uniform(-1, 1) for i, t in enumerate(parts)
    ]
    loud = np.concatenate([np.where(np.abs(p) > 0.05, np.sign(p) * 0.9, p) for p in pieces])
    return base64.b64encode((loud * 32767).astype("<i2").tobytes()).decode()


def say(client: Client, *parts: float) -> list[dict[str, Any]]:
    return client.send("input_audio_buffer.append", audio=sound(*parts))


def of(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [e for e in events if e["type"] == kind]
    return found


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **more}


def samples(events: list[dict[str, Any]]) -> int:
    return sum(len(base64.b64decode(e["delta"])) // 2 for e in events if e["type"] == "response.output_audio.delta")


def without_repeats(events: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(e["type"] for e in events))


def test_it_begins_with_the_session(client: Client) -> None:
    (event,) = client.events
    assert event["type"] == "session.created"
    session = event["session"]
    assert session["model"] == "mini"
    assert session["type"] == "realtime"
    assert session["instructions"].startswith("You are")
    assert session["output_modalities"] == ["audio"]
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session["audio"]["output"]["voice"] in client.session.talker.voices


def test_a_spoken_turn_is_answered(client: Client) -> None:
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"transcription": {}}}})
    events = say(client, 1.0, 1.0, 0.7)
    assert without_repeats(events) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.done",
        "response.created",
    ]
    started, stopped = of(events, "input_audio_buffer.speech_started"), of(events, "input_audio_buffer.speech_stopped")
    # What is heard begins 0.3 s before the voice, and ends with the silence.
    assert started["audio_start_ms"] == pytest.approx(700, abs=120)
    assert stopped["audio_end_ms"] == pytest.approx(2500, abs=120)
    ids = {e["item_id"] for e in (started, stopped, of(events, "input_audio_buffer.committed"))}
    assert ids == {of(events, "conversation.item.added")["item"]["id"]}
    reply = [*events[-1:], *client.finish()]
    assert without_repeats(reply) == REPLY
    done = of(reply, "response.done")["response"]
    assert done["status"] == "incomplete"  # random weights do not end by themselves
    assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert done["usage"]["output_tokens"] == 40
    text = "".join(e["delta"] for e in reply if e["type"] == "response.output_audio_transcript.delta").strip()
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": text}]
    assert samples(reply) > 0


def test_sound_that_waited_is_heard_at_once_and_means_the_same(client: Client) -> None:
    texts = [
        json.dumps({"type": "input_audio_buffer.append", "audio": data})
        for data in (sound(0.4), "no base64", sound(0.0, 0.5), sound(0.0, 0.4), sound(0.8))
    ]
    with torch.inference_mode():
        client.session.receive(*texts)
    assert without_repeats(client.events) == [
        "session.created",
        "error",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    entry = client.session.conversation.entries[0]
    assert entry.sound is not None
    # From 0.4 s before the voice, which is all, to where the silence was long enough.
    assert entry.sound.seconds == pytest.approx(2.0, abs=0.15)


def test_events_have_ids_of_their_own(client: Client) -> None:
    say(client, 0.2, 0.5, 0.7)
    client.finish()
    ids = [e["event_id"] for e in client.events]
    assert len(set(ids)) == len(ids)


def test_who_speaks_stops_the_reply(client: Client) -> None:
    say(client, 0.2, 0.5, 0.7)
    client.finish(steps=12)
    assert client.session.replying
    events = say(client, 0.2, 0.3)
    assert without_repeats(events)[0] == "input_audio_buffer.speech_started"
    done = of(events, "response.done")["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"]["reason"] == "turn_detected"
    assert done["output"][0]["status"] == "incomplete"
    assert not client.session.replying
    # His next turn is answered, with what was said so far in mind.
    assert of(say(client, 0.1, 0.3, 0.7), "response.created")
    client.finish()
    mind = client.session._mind.memory
    assert len(mind.turns) == 2
    assert int(mind.state.position[0]) == mind.used  # type: ignore[union-attr]


def test_what_was_not_heard_was_not_said(client: Client) -> None:
    client.send("conversation.item.create", item=user("Tell me all."))
    client.send("response.create")
    made = client.finish()
    item = of(made, "response.output_item.added")["item"]
    length = round(1000 * samples(made) / RATE)
    entry = client.session.conversation.get(item["id"])
    assert entry is not None
    assert entry.turn is not None
    whole = list(entry.turn.reply)
    (error,) = client.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=length + 50)
    assert "already shorter" in error["error"]["message"]
    (event,) = client.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=length // 3)
    assert event["type"] == "conversation.item.truncated"
    assert len(entry.turn.reply) < len(whole)
    assert whole[: len(entry.turn.reply)] == entry.turn.reply
    kept = client.item(item["id"])
    heard = len(base64.b64decode(kept["content"][0]["audio"])) / 2 / RATE
    assert heard == pytest.approx(length / 3000, abs=0.01)
    assert kept["status"] == "incomplete"
    client.send("conversation.item.create", item=user("And then?"))
    client.send("response.create")
    client.finish()
    assert [t.reply for t in client.session._mind.memory.turns][:-1] in ([entry.turn.reply], [])


def test_new_instructions_are_those_of_the_next_reply(client: Client) -> None:
    client.send("conversation.item.create", item=user("Tell me all."))
    client.send("response.create")
    client.finish(steps=6)
    assert client.session.replying
    (event,) = client.send("session.update", session={"type": "realtime", "instructions": "Be another."})
    assert event["session"]["instructions"] == "Be another."
    (error,) = client.send("session.update", session={"type": "realtime", "instructions": "x" * 5000})
    assert "instructions" in error["error"]["message"]
    assert of(client.finish(), "response.done")["response"]["usage"]["output_tokens"] == 40
    mind = client.session._mind.memory
    assert int(mind.state.position[0]) == mind.used  # type: ignore[union-attr]
    assert mind.system.startswith("You are")
    client.send("response.create", response={"max_output_tokens": 3})
    client.finish()
    assert mind.system == "Be another."
    assert int(mind.state.position[0]) == mind.used  # type: ignore[union-attr]


def test_a_reply_is_cut_while_it_is_made(client: Client) -> None:
    client.send("conversation.item.create", item=user("Tell me all."))
    client.send("response.create")
    while not samples(client.events):
        client.finish(steps=1)
    item_id = of(client.events, "response.output_item.added")["item"]["id"]
    events = client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=10)
    assert kinds(events)[-2:] == ["response.done", "conversation.item.truncated"]
    assert of(events, "response.done")["response"]["status"] == "cancelled"
    assert len(base64.b64decode(client.item(item_id)["content"][0]["audio"])) == 480
    long = {"item_id": item_id, "content_index": 0, "audio_end_ms": 10**400}
    (error,) = client.send("conversation.item.truncate", **long)
    assert "already shorter" in error["error"]["message"]


def test_of_a_sound_that_is_not_kept_nothing_is_given(client: Client) -> None:
    client.send("conversation.item.create", item=user("Tell me all."))
    client.send("response.create")
    item_id = of(client.finish(), "response.output_item.added")["item"]["id"]
    client.session.conversation._most = 10
    client.send("conversation.item.create", item=user("x"))
    client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=100)
    assert client.item(item_id)["content"][0]["audio"] is None


def test_what_is_cleared_is_cleared_to_the_byte(client: Client) -> None:
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    client.send("input_audio_buffer.append", audio=base64.b64encode(bytes(3)).decode())
    client.send("input_audio_buffer.clear")
    client.send("input_audio_buffer.append", audio=base64.b64encode(b"\0\1" * RATE).decode())
    client.send("input_audio_buffer.commit")
    (entry,) = client.session.conversation.entries
    kept = np.frombuffer(base64.b64decode(client.item(entry.id)["content"][0]["audio"]), "<i2")
    assert np.median(kept) == pytest.approx(256, abs=2)


def test_turns_that_the_client_ends(client: Client) -> None:
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    assert say(client, 0.0, 0.5, 2.0, 0.5) == []
    events = client.send("input_audio_buffer.commit")
    assert without_repeats(events) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert not client.session.replying
    (error,) = client.send("input_audio_buffer.commit")
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    say(client, 0.0, 0.5)
    assert kinds(client.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    (error,) = client.send("input_audio_buffer.commit")
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    client.send("response.create")
    assert of(client.finish(), "response.done")


def test_turns_that_nobody_answers_by_himself(client: Client) -> None:
    detection = {"type": "server_vad", "create_response": False, "interrupt_response": False}
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    assert "response.created" not in kinds(say(client, 0.2, 0.5, 0.7))
    client.send("response.create")
    client.finish(steps=8)
    assert kinds(say(client, 0.2, 0.5)) == ["input_audio_buffer.speech_started"]
    assert client.session.replying


def test_a_turn_during_a_reply_is_answered_after_it(client: Client) -> None:
    detection = {"type": "server_vad", "interrupt_response": False}
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    say(client, 0.2, 0.5, 0.7)
    client.finish(steps=8)
    assert "response.created" not in kinds(say(client, 0.2, 0.5, 0.7))
    events = client.finish()
    assert kinds([e for e in events if e["type"] in ("response.done", "response.created")]) == [
        "response.done",
        "response.created",
        "response.done",
    ]


def test_what_is_not_understood_is_not_answered(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from lalia.tokenizers import soft_text

    monkeypatch.setattr(soft_text.Heard, "understood", False)
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"transcription": {}}}})
    events = say(client, 0.2, 0.5, 0.7)
    failed = of(events, "conversation.item.input_audio_transcription.failed")
    assert failed["error"]["code"] == "not_understood"
    assert "response.created" not in kinds(events)
    # Who asks for a reply all the same is asked what he said.
    client.send("response.create")
    done = of(client.finish(), "response.done")["response"]
    assert "did not understand" in done["output"][0]["content"][0]["transcript"]
    assert not client.session._mind.memory.turns


def test_who_does_not_call_it_is_not_answered(
    new_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, told = Dialogue.hear, [""]
    monkeypatch.setattr(Dialogue, "hear", lambda self, said=None: replace(right(self, said), text=told[-1]))
    client = new_client(wake=("hey lalia",))
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"transcription": {}}}})
    told.append("Where are my keys?")
    events = say(client, 0.2, 0.5, 0.7)
    failed = of(events, "conversation.item.input_audio_transcription.failed")
    assert failed["error"]["code"] == "not_addressed"
    assert "response.created" not in kinds(events)
    assert client.item(failed["item_id"])["content"][0]["transcript"] == "Where are my keys?"
    # It is no part of what is answered later.
    client.send("conversation.item.create", item=user("Hello."))
    client.send("response.create", response={"max_output_tokens": 2})
    client.finish()
    assert client.session._mind.memory.turns[-1].request.words is None
    told.append("Hey Lalya, where are my keys?")
    assert of(say(client, 20.0, 0.5, 0.7), "response.created")
    client.finish()
    # Who has just been answered need not call again.
    told.append("And my hat?")
    assert of(say(client, 0.2, 0.5, 0.7), "response.created")


def test_text_alone(client: Client) -> None:
    client.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
    client.send("conversation.item.create", item=user("Hello."))
    client.send("response.create")
    events = client.finish()
    assert without_repeats(events) == [x.replace("_audio_transcript", "_text") for x in REPLY[1:] if "_audio." not in x]
    assert of(events, "response.done")["response"]["output"][0]["content"][0]["type"] == "output_text"


def test_a_response_of_its_own(client: Client) -> None:
    """Out of the conversation, of other items, with other instructions, at other lengths."""
    client.send("conversation.item.create", item=user("Remember me.", id="first"))
    before = len(client.session.conversation)
    client.send(
        "response.create",
        response={
            "conversation": "none",
            "input": [{"type": "item_reference", "id": "first"}, user("And me.")],
            "output_modalities": ["text"],
            "instructions": "Be brief.",
            "max_output_tokens": 5,
            "metadata": {"topic": "test"},
        },
    )
    events = client.finish()
    done = of(events, "response.done")["response"]
    assert done["metadata"] == {"topic": "test"}
    assert done["conversation_id"] is None
    assert done["usage"]["output_tokens"] == 5
    assert "conversation.item.added" not in kinds(events)
    assert len(client.session.conversation) == before
    assert client.session._mind.memory.system == "Be brief."
    client.send("response.create", response={"max_output_tokens": 3})
    client.finish()
    assert client.session._mind.memory.system.startswith("You are")


def test_a_conversation_that_the_client_has(client: Client) -> None:
    """Items may come in any order and go again; the model has in mind what is there."""
    client.send("conversation.item.create", item=user("One.", id="one"))
    assistant = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Two."}]}
    (added, _) = client.send("conversation.item.create", item={**assistant, "id": "two"}, previous_item_id="one")
    assert added["previous_item_id"] == "one"
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be kind."}]}
    (added, _) = client.send("conversation.item.create", item={**system, "id": "zero"}, previous_item_id="root")
    assert added["previous_item_id"] is None
    client.send("conversation.item.create", item=user("Three.", id="three"))
    item_id = of(say(client, 0.2, 0.5), "input_audio_buffer.speech_started")["item_id"]
    (error,) = client.send("conversation.item.create", item=user("Four.", id=item_id))
    assert error["error"]["code"] == "item_already_exists"
    client.send("input_audio_buffer.clear")
    client.send("response.create", response={"max_output_tokens": 4})
    client.finish()
    mind = client.session._mind
    assert [t.request.text for t in mind.memory.turns] == ["One.", "Three."]
    assert mind._text.decode(_tokens(mind.memory.turns[0].reply))[0] == "Two."
    assert mind.memory.system.endswith("Be kind.")
    assert kinds(client.send("conversation.item.delete", item_id="two")) == ["conversation.item.deleted"]
    client.send("response.create", response={"max_output_tokens": 4})
    client.finish()
    # Without the reply between them, both are one turn; the reply to it goes on.
    assert mind.memory.turns[0].request.text == "One. Three."
    assert int(mind.memory.state.position[0]) == mind.memory.used  # type: ignore[union-attr]


def _tokens(ids: list[int]) -> Any:
    from lalia.model.memory import tokens_of

    return tokens_of(torch.tensor(ids))


def test_a_recording_as_an_item(client: Client) -> None:
    say(client, 0.2, 0.5)  # the microphone is open meanwhile
    item = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "What is this?"}, {"type": "input_audio", "audio": sound(0.1, 0.5)}],
    }
    added, _ = client.send("conversation.item.create", item=item)
    entry = client.session.conversation.get(added["item"]["id"])
    assert entry is not None
    assert entry.request is not None
    assert entry.request.text == "What is this?"
    assert entry.request.words is not None
    heard = client.item(entry.id)["content"][1]
    assert len(base64.b64decode(heard["audio"])) / 2 / RATE == pytest.approx(0.6, abs=0.01)
    events = say(client, 0.7)
    assert of(events, "response.created")
    mine = client.session.conversation.get(of(events, "input_audio_buffer.committed")["item_id"])
    assert mine is not None
    assert mine.sound is not None
    assert mine.sound.seconds == pytest.approx(1.2, abs=0.15)


def test_other_formats(client: Client) -> None:
    formats = {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcma"}}}
    (event,) = client.send("session.update", session={"type": "realtime", "audio": formats})
    assert event["session"]["audio"]["output"]["format"] == {"type": "audio/pcma", "rate": 8000}
    quiet, loud = bytes([0xFF]) * 1600, (bytes([0x80]) * 20 + bytes([0x00]) * 20) * 100
    for data in (quiet, loud, quiet * 4):
        client.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())
    events = client.finish()
    made = b"".join(base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta")
    entry = client.session.conversation.entries[-1]
    assert entry.sound is not None
    assert len(made) / 8000 == pytest.approx(entry.sound.seconds, abs=0.01)


def test_who_says_nothing_is_spoken_to(client: Client) -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    say(client, 0.2, 0.5, 0.7)
    made = client.finish()
    assert say(client, samples(made) / RATE + 4.0) == []
    events = say(client, 1.5)
    assert kinds(events) == ["input_audio_buffer.timeout_triggered", "response.created"]
    client.finish()


def test_who_speaks_is_not_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from lalia.tokenizers import soft_text

    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    say(client, 0.2, 0.5, 0.7)
    client.finish(steps=12)
    assert client.session.replying
    assert of(say(client, 0.2, 0.5), "response.done")["response"]["status"] == "cancelled"
    assert say(client, 0.0, 9.0) == []
    # A noise is nobody who speaks.
    monkeypatch.setattr(soft_text.Heard, "understood", False)
    assert "response.created" not in kinds(say(client, 1.0))
    assert kinds(say(client, 5.0)) == ["input_audio_buffer.timeout_triggered", "response.created"]


def test_what_was_played_while_it_was_made_is_not_waited_for_again(client: Client) -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    say(client, 0.2, 0.5, 0.7)
    while client.session.replying:
        client.finish(steps=1)
        client.now += 1.0
    assert kinds(say(client, 5.1)) == ["input_audio_buffer.timeout_triggered", "response.created"]


def test_no_more_is_made_than_is_wanted_by_now(client: Client) -> None:
    """A reply begins at once; when there is sound, more is due half a second before what was made has been played."""
    client.send("conversation.item.create", item=user("Hello."))
    client.now = 7.0
    client.send("response.create")
    due = client.session.due()
    assert due is not None
    assert due.deadline < 7.0
    client.finish(steps=1)
    due = client.session.due()
    assert due is not None
    assert due.deadline == 7.0
    while client.session.replying and not samples(client.events):
        client.finish(steps=1)
    due = client.session.due()
    assert due is not None
    made = client.session._reply.made  # type: ignore[union-attr]
    assert due.deadline == pytest.approx(7.0 + made - 0.5)
    assert due.ready == pytest.approx(7.0 + made - 5.0)


@pytest.mark.parametrize(
    ("text", "code", "match"),
    [
        ("", "invalid_json", "no JSON"),
        ("{", "invalid_json", "no JSON"),
        ("[1]", "invalid_json", "no JSON object"),
        ("[" * 100_000, "invalid_json", ""),
        ('{"type": "session.update", "session": {"instructions": "\\ud800"}}', "invalid_value", "surrogate"),
        ("{}", "invalid_event_type", "type"),
        ('{"type": "session.destroy"}', "invalid_event_type", "type"),
        ('{"type": 5}', "invalid_event_type", "type"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 3}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "invalid_value", "base64"),
        ('{"type": "input_audio_buffer.commit", "more": 1}', "unknown_parameter", "more"),
        ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty", "0 ms"),
        ('{"type": "output_audio_buffer.clear"}', "unsupported_event", "client"),
        ('{"type": "session.update"}', "missing_required_parameter", "session"),
        ('{"type": "session.update", "session": {"voice": "x"}}', "unknown_parameter", "voice"),
        ('{"type": "session.update", "session": {"model": "other"}}', "invalid_value", "other"),
        ('{"type": "session.update", "session": {"output_modalities": ["text", "audio"]}}', "invalid_value", "output"),
        (
            '{"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}',
            "invalid_value",
            "no voice 'nobody'",
        ),
        ('{"type": "session.update", "session": {"audio": {"output": {"speed": 1.2}}}}', "invalid_value", "speed"),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8}}}}}',
            "invalid_value",
            "24000",
        ),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "psychic"}}}}}',
            "invalid_event_type",
            "server_vad",
        ),
        ('{"type": "conversation.item.retrieve", "item_id": "x"}', "item_not_found", "'x'"),
        ('{"type": "conversation.item.delete", "item_id": "x"}', "item_not_found", "'x'"),
        (
            '{"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": -1}',
            "invalid_value",
            "audio_end_ms",
        ),
        (
            '{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": []}}',
            "invalid_value",
            "role and content",
        ),
        (
            (
                '{"type": "conversation.item.create", "item": {"type": "message", "role": "user", '
                '"content": [{"type": "output_text", "text": "x"}]}}'
            ),
            "invalid_value",
            "output_text",
        ),
        (
            (
                '{"type": "conversation.item.create", "previous_item_id": "x", "item": {"type": "message", '
                '"role": "user", "content": [{"type": "input_text", "text": "x"}]}}'
            ),
            "item_not_found",
            "'x'",
        ),
        ('{"type": "response.cancel"}', "response_cancel_not_active", "no such response"),
        ('{"type": "response.create", "response": {"max_output_tokens": 0}}', "invalid_value", "max_output_tokens"),
        (
            '{"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "x"}]}}',
            "item_not_found",
            "'x'",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_else_happens(client: Client, text: str, code: str, match: str) -> None:
    named = text.replace("{", '{"event_id": "mine", ', 1) if text.startswith('{"type"') else text
    (event,) = client.text(named)
    assert event["type"] == "error"
    error = event["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code
    assert match in error["message"]
    if named != text:
        assert error["event_id"] == "mine"
    assert not client.session.replying
    client.send("conversation.item.create", item=user("Still there?"))
    client.send("response.create", response={"max_output_tokens": 2})
    assert of(client.finish(), "response.done")


def test_one_reply_at_a_time(client: Client) -> None:
    client.send("response.create")
    (error,) = client.send("response.create")
    assert error["error"]["code"] == "conversation_already_has_active_response"
    (error,) = client.send("response.cancel", response_id="resp_other")
    assert error["error"]["code"] == "response_cancel_not_active"
    done = of(client.send("response.cancel"), "response.done")["response"]
    assert done["status"] == "cancelled"
    assert done["output"] == []
    assert done["usage"]["total_tokens"] == 0
    assert client.finish() == []


def test_what_is_too_much_is_refused(new_client: Callable[..., Client]) -> None:
    client = new_client(audio_seconds=2.0, text_characters=50, items=2)
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    (error,) = say(client, 0.0, 2.5)
    assert error["error"]["code"] == "input_audio_buffer_full"
    say(client, 0.0, 1.5)
    (error,) = say(client, 0.0, 1.5)
    assert error["error"]["code"] == "input_audio_buffer_full"
    (error,) = client.send("conversation.item.create", item=user("x" * 51))
    assert error["error"]["code"] == "string_above_max_length"
    output = {"type": "function_call_output", "call_id": "x", "output": "x" * 51}
    call = {"type": "function_call", "name": "x", "arguments": "x" * 51}
    tool = {"type": "function", "name": "x", "description": "x" * 51}
    for kind, fields in [
        ("conversation.item.create", {"item": output}),
        ("conversation.item.create", {"item": call}),
        ("session.update", {"session": {"type": "realtime", "instructions": "x" * 51}}),
        ("session.update", {"session": {"type": "realtime", "tools": [tool]}}),
        ("response.create", {"response": {"instructions": "x" * 51}}),
        ("response.create", {"response": {"tools": [tool]}}),
    ]:
        (error,) = client.send(kind, **fields)
        assert error["error"]["code"] == "string_above_max_length"
    assert not client.session.replying
    for _ in range(2):
        client.send("conversation.item.create", item=user("x"))
    (error,) = client.send("conversation.item.create", item=user("x"))
    assert error["error"]["code"] == "too_many_items"
    (error,) = new_client().send("session.update", session={"type": "realtime", "instructions": "x" * 5000})
    assert "The instructions take" in error["error"]["message"]


def test_a_spoken_turn_for_which_there_is_no_room_is_told(new_client: Callable[..., Client]) -> None:
    client = new_client(items=1)
    client.send("conversation.item.create", item=user("x", id="x"))
    for _ in range(2):
        events = say(client, 0.2, 0.5, 0.7)
        assert without_repeats(events)[-2:] == ["input_audio_buffer.speech_stopped", "error"]
        assert of(events, "error")["error"]["code"] == "too_many_items"
    client.send("conversation.item.delete", item_id="x")
    assert of(say(client, 0.2, 0.5, 0.7), "response.created")
    (entry,) = client.session.conversation.entries
    assert entry.sound is not None
    assert entry.sound.seconds < 1.5
    client.send("response.cancel")
    # What the client commits waits until there is room.
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    say(client, 0.0, 0.5)
    (error,) = client.send("input_audio_buffer.commit")
    assert error["error"]["code"] == "too_many_items"
    client.send("conversation.item.delete", item_id=entry.id)
    assert of(client.send("input_audio_buffer.commit"), "input_audio_buffer.committed")


def test_who_never_stops_is_answered_all_the_same(new_client: Callable[..., Client]) -> None:
    client = new_client(audio_seconds=2.0)
    events = [e for _ in range(5) for e in say(client, 0.0, 0.5)]
    assert of(events, "input_audio_buffer.committed")
    assert of(events, "response.created")
    # At once it is no longer, either.
    say(client, 0.0, 7.0, 0.7)
    heard = [e.sound.seconds for e in client.session.conversation.entries if e.role == "user" and e.sound]
    assert len(heard) == 5
    assert max(heard) <= 2.0


def test_a_fault_of_the_model_fails_the_reply_alone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*a: Any, **k: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as broken_model:
        broken_model.setattr(Dialogue, "turn", broken)
        client.send("response.create")
        with pytest.raises(ZeroDivisionError):
            client.finish()
    done = of(client.events, "response.done")["response"]
    assert done["status"] == "failed"
    client.send("response.create", response={"max_output_tokens": 2})
    assert of(client.finish(), "response.done")


def test_a_function_that_the_model_asks_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a text LM that was taught to, which the smallest one was not: it is told what to say."""
    right = Dialogue._reply

    def asking(self: Dialogue, request: Any, *rest: Any) -> Any:
        list(right(self, request, *rest))
        turn = self.memory.turns[-1]
        told = request.text.startswith("<tool_response>")
        text = "It is late." if told else '<tool_call>{"name": "clock", "arguments": {"zone": "UTC"}}</tool_call>'
        turn.reply[:] = self.reply_ids(text)
        yield text

    tool = {"type": "function", "name": "clock", "description": "The time.", "parameters": {"type": "object"}}
    client.send("session.update", session={"type": "realtime", "tools": [tool], "output_modalities": ["text"]})
    client.send("conversation.item.create", item=user("How late is it?"))
    monkeypatch.setattr(Dialogue, "_reply", asking)
    client.send("response.create")
    events = client.finish()
    assert without_repeats(events) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    (call,) = of(events, "response.done")["response"]["output"]
    assert call["type"] == "function_call"
    assert (call["name"], json.loads(call["arguments"])) == ("clock", {"zone": "UTC"})
    assert '"clock"' in client.session._mind.memory.system
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "23:55"}
    client.send("conversation.item.create", item=output)
    client.send("response.create")
    done = of(client.finish(), "response.done")["response"]
    assert done["output"][0]["content"][0]["text"] == "It is late."
    mind = client.session._mind
    assert [t.request.text for t in mind.memory.turns] == [
        "How late is it?",
        "<tool_response>\n23:55\n</tool_response>",
    ]
    assert "clock" in mind._text.decode(_tokens(mind.memory.turns[0].reply))[0]
    # A response may do without.
    client.send("response.create", response={"tool_choice": "none"})
    client.finish()
    assert "clock" not in client.session._mind.memory.system
