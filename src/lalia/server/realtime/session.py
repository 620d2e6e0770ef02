"""A session of the OpenAI Realtime protocol: events of a client in, events of the server out; no sockets, no threads.

Facts: the GA protocol as in ``openai.types.realtime`` 3.54. Where the protocol leaves it open: what was not understood,
or was no speech, is committed and not answered (its transcription "failed"), unless the server is to ask again.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import AudioError, ConfigError, LaliaError
from lalia.model.calls import call_text, response_text, told_of
from lalia.model.dialogue import Dialogue, Hearing
from lalia.model.memory import Request, Turn
from lalia.realtime import Activity, Listening, Utterance
from lalia.realtime.events import Called, Event, Said, Sound, Started, Stopped, Written
from lalia.realtime.session import end
from lalia.server.realtime import shapes
from lalia.server.realtime.asking import Refused, decoded, json_object, merged, parsed
from lalia.server.realtime.conversation import Conversation, Entry, Sounds, new_id
from lalia.server.realtime.reply import Reply
from lalia.server.settings import Settings
from lalia.server.talkers import Talker
from lalia.server.wire import PCM, Decoder
from lalia.server.worker import Due

__all__ = ["RealtimeSession"]

_REASONS = {
    "not_understood": "Nobody spoke, or it was not understood.",
    "not_addressed": "It was not said to the model.",
}

_LEAST_SECONDS = 0.1
"""Of sound, to be a turn."""


class RealtimeSession:
    """One client and one conversation.

    It is told of events by ``receive``, and makes replies in units of ``step``, which ``due`` says when to do.

    :param talker: the model.
    :param send: takes the events of the server.
    :param clock: seconds; only for how much of a reply may have been played.
    :param activity: makes a detector of speech for a threshold.
    """

    def __init__(
        self,
        talker: Talker,
        send: Callable[[dict[str, Any]], None],
        settings: Settings,
        clock: Callable[[], float],
        *,
        activity: Callable[[float], Activity] | None = None,
    ) -> None:
        self.talker, self.settings, self.clock = talker, settings, clock
        self.id = new_id("sess")
        self._emit = send
        self._activity = activity or (lambda threshold: Activity(Activity.Config(threshold=threshold)))
        self.config = shapes.Session(model=talker.name)
        self.config.audio.output.voice = talker.voices[0] if talker.voices else None
        self.conversation = Conversation()
        self._dialogue: Dialogue | None = None
        self._listening: Listening | None = None
        self._offset = 0.0
        """Seconds of sound before this way of listening."""
        self._decoder = Decoder(PCM)
        self._turn_id: str | None = None
        """Of the item that the user's turn becomes."""
        self._reply: Reply | None = None
        self._again = False
        """Whether there is something to answer after the reply that is made."""
        self._quiet_since: float | None = None
        """Seconds of the session since which nobody has spoken after a reply."""
        self._exchanged = -math.inf
        """Seconds of the session at which the last reply was over."""
        self._addressee = talker.model.addressee(**settings.whom)
        self.closed = False

    # -- the outside ---------------------------------------------------------------------------

    def start(self) -> None:
        """Be there: reads the instructions."""
        self._dialogue = self.talker.dialogue(max_tokens=self.settings.max_tokens)
        self.config.instructions = self._dialogue.memory.system
        self._listen()
        self._send("session.created", session=self._session())

    def receive(self, *texts: str) -> None:
        """Do what a client's event asks for; whatever is wrong with it is said, and nothing else changes.

        :param texts: an event; or several that append sound, which is then heard at once.
        """
        sounds: list[Audio] = []
        for text in texts:
            event_id = None
            try:
                raw = json_object(text)
                event_id = raw.get("event_id") if isinstance(raw.get("event_id"), str) else None
                event = parsed(raw)
                if isinstance(event, shapes.Append):
                    sounds.append(self._decoder(decoded(event.audio, "audio")))
                else:
                    self._do(event)
            except Refused as error:
                self.complain(str(error), error.code, param=error.param, event_id=event_id)
            except (AudioError, ConfigError) as error:
                self.complain(str(error), "invalid_value", event_id=event_id)
        if sounds:
            self._append(sounds, event_id)

    def complain(
        self,
        message: str,
        code: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        event_id: str | None = None,
    ) -> None:
        """Say what is wrong."""
        error = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
        self._send("error", error=error)

    def due(self) -> Due | None:
        """When the next unit of a reply may be made, and when its sound will have been played."""
        return None if self._reply is None else self._reply.due

    def step(self) -> None:
        """Make the next unit of the reply."""
        reply = self._reply
        if reply is None:
            return
        try:
            if reply.events is None:
                reply.events = self._events(reply)
            event = next(reply.events, None)
        except LaliaError as error:
            self._end(reply, "failed", error={"type": "server_error", "message": str(error)})
            return
        except Exception:
            # What happened is in the log of the server; the client is to know that it did.
            self._end(reply, "failed", error={"type": "server_error", "code": "fault_of_the_server"})
            raise
        match event:
            case Written():
                reply.write(event.text)
            case Sound():
                reply.sound(event.audio, self.clock())
            case Called():
                reply.call(event)
            case Said() | None:
                reply.finish()
                if reply.full:
                    self._end(reply, "incomplete", reason="max_output_tokens")
                else:
                    self._end(reply, "completed")

    @property
    def replying(self) -> bool:
        """Whether a reply is being made."""
        return self._reply is not None

    def cancel(self, reason: str) -> None:
        """End the reply that is made.

        :param reason: ``turn_detected`` or ``client_cancelled``.
        """
        if self._reply is not None:
            self._end(self._reply, "cancelled", reason=reason)

    def close(self) -> None:
        """No more comes of it."""
        reply, self._reply, self.closed = self._reply, None, True
        end(None if reply is None else reply.events)
        self._dialogue = self._listening = None

    # -- events of the client ------------------------------------------------------------------

    def _do(self, event: Any) -> None:
        match event:
            case shapes.Commit():
                self._commit()
            case shapes.Clear():
                self._ears.clear()
                self._drop()
                # Half a sample that waited for its other half is cleared too.
                self._decoder = Decoder(self._decoder.format)
                self._send("input_audio_buffer.cleared")
            case shapes.ClearOutput():
                raise Refused("Sound that was sent is the client's here: stop playing it.", "unsupported_event")
            case shapes.SessionUpdate():
                self._update(event.session)
            case shapes.ItemCreate():
                self._create(event.item, event.previous_item_id)
            case shapes.ItemDelete():
                self._entry(event.item_id)
                self.conversation.remove(event.item_id)
                self._send("conversation.item.deleted", item_id=event.item_id)
            case shapes.ItemRetrieve():
                item = self._entry(event.item_id).to_json(sound=True)
                self._send("conversation.item.retrieved", item=item)
            case shapes.ItemTruncate():
                self._truncate(event)
            case shapes.ResponseCreate():
                self._respond(event.response)
            case shapes.ResponseCancel():
                if self._reply is None or event.response_id not in (None, self._reply.id):
                    raise Refused("There is no such response in progress.", "response_cancel_not_active")
                self.cancel("client_cancelled")

    def _update(self, new: shapes.Session) -> None:
        config = shapes.Session.model_validate(merged(self.config.model_dump(), new.model_dump(exclude_unset=True)))
        if config.model != self.talker.name:
            raise Refused(
                f"The session is with {self.talker.name!r}. Open another for {config.model!r}.",
                "invalid_value",
                "session.model",
            )
        self._check_output(config.audio.output, "session.audio.output")
        self._check_length(new.instructions or "", "session.instructions")
        self._check_length(_functions(new.tools), "session.tools")
        old, self.config = self.config, config
        if config.instructions is not None and config.instructions != old.instructions:
            try:
                if self._reply is None:
                    self._mind.memory.instruct(config.instructions)
                else:
                    # A reply is written in the state of those that it began with; the next one reads these.
                    self._mind.memory.left(config.instructions)
            except ConfigError:
                self.config = old
                raise
        heard, before = config.audio.input, old.audio.input
        if heard.format != before.format or heard.turn_detection != before.turn_detection:
            self._listen()
        self._send("session.updated", session=self._session())

    def _append(self, sounds: Sequence[Audio], event_id: str | None) -> None:
        sound = Audio(torch.cat([x.samples for x in sounds], dim=-1), sounds[0].sample_rate)
        if not sound.samples.shape[-1]:
            return
        ears, most = self._ears, self.settings.audio_seconds
        if ears.activity is None and ears.seconds + sound.seconds > most:
            self.complain(
                f"The buffer holds up to {most:g} s of sound. Commit it or clear it.",
                "input_audio_buffer_full",
                event_id=event_id,
            )
            return
        for piece in _pieces(sound, 0.1 if len(sounds) == 1 else 0.5):
            if ears.open and ears.activity is not None and ears.seconds + piece.seconds > most:
                # Who never stops is answered all the same.
                self._stopped()
            for event in ears.push(piece):
                if isinstance(event, Started):
                    self._started(ears)
                elif isinstance(event, Stopped):
                    self._stopped()
        self._wait_in_vain()

    def _started(self, ears: Listening) -> None:
        self._turn_id = new_id("item")
        self._quiet_since = None
        detection = self.config.audio.input.turn_detection
        if detection is None:
            return
        start = round(1000 * (self._offset + ears.began))
        self._send("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._turn_id)
        if detection.interrupt_response:
            self.cancel("turn_detected")

    def _stopped(self) -> None:
        detection = self.config.audio.input.turn_detection
        assert detection is not None
        self._send(
            "input_audio_buffer.speech_stopped",
            audio_end_ms=round(1000 * (self._offset + self._ears.time)),
            item_id=self._turn_id,
        )
        try:
            entry = self._take()
        except Refused as error:
            # Nobody sent an event that could be refused: what was said is lost, and the session goes on.
            self._drop()
            self.complain(str(error), error.code)
            return
        nothing = entry.ignored or (entry.unclear and not self.settings.ask)
        if nothing and self._reply is None and self._exchanged > -math.inf:
            self._quiet_since = self._now
        if not detection.create_response or nothing:
            return
        if self._reply is None:
            self._respond(shapes.ResponseSettings())
        else:
            self._again = True

    def _commit(self) -> None:
        if self._ears.seconds < _LEAST_SECONDS or self._turn_id is None:
            raise Refused(
                f"The buffer has {1000 * self._ears.seconds:.0f} ms of sound; a turn has at least 100 ms.",
                "input_audio_buffer_commit_empty",
            )
        self._take()

    def _drop(self) -> None:
        """Have what was said in this turn not be said."""
        self._ears.end()
        self._ears.turn = []
        self._mind.forget()
        self._turn_id = None

    def _take(self) -> Entry:
        """The user's turn becomes an item.

        :raises Refused: there is no room for it; it is as it was then.
        """
        self._room()
        ears, item_id = self._ears, self._turn_id or new_id("item")
        pieces, self._turn_id = ears.turn, None
        ears.end()
        ears.turn = []
        sound = Sounds()
        for piece in pieces:
            sound.add(piece)
        entry = Entry(item_id, "user", [{"type": "input_audio", "transcript": None}], sound=sound, status="completed")
        previous = self.conversation.last
        self.conversation.add(entry)
        self._send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        self._send("conversation.item.added", item=entry.to_json(), previous_item_id=previous)
        self._heard(entry, None, [x.samples[0, 0] for x in pieces])
        self._send("conversation.item.done", item=entry.to_json(), previous_item_id=previous)
        return entry

    def _heard(self, entry: Entry, audio: Audio | None, samples: Sequence[Tensor] = ()) -> None:
        """Understand the sound of an item.

        :param samples: what was said live, of which it is asked whether it was meant for the model.
        """
        try:
            hearing = self._mind.hear(audio)
        except AudioError:
            hearing = Hearing(Request(), "", understood=False)
        entry.unclear, reason = not hearing.understood, "not_understood"
        if self._addressee is not None and samples and hearing.understood:
            since = max(self._offset + self._ears.began - self._exchanged, 0.0)
            said = Utterance(torch.cat(list(samples)), hearing.text, hearing.understood, since)
            if not self._addressee(said).addressed:
                entry.ignored, reason = True, "not_addressed"
        entry.request = None if entry.unclear or entry.ignored else hearing.request
        entry.content[-1]["transcript"] = hearing.text
        if self.config.audio.input.transcription is None:
            return
        head = {"item_id": entry.id, "content_index": len(entry.content) - 1}
        kind = "conversation.item.input_audio_transcription"
        if entry.request is None:
            error = {"type": "transcription_error", "code": reason, "message": _REASONS[reason]}
            self._send(f"{kind}.failed", **head, error=error)
            return
        self._send(f"{kind}.delta", **head, delta=hearing.text)
        seconds = 0.0 if entry.sound is None else entry.sound.seconds
        usage = {"type": "duration", "seconds": round(seconds, 3)}
        self._send(f"{kind}.completed", **head, transcript=hearing.text, usage=usage)

    def _wait_in_vain(self) -> None:
        """Speak first, where nobody has for so long."""
        detection = self.config.audio.input.turn_detection
        timeout = detection.idle_timeout_ms if isinstance(detection, shapes.ServerVad) else None
        since, now = self._quiet_since, self._now
        if timeout is None or since is None or self._reply is not None or now - since < timeout / 1000:
            return
        self._quiet_since = None
        item_id = new_id("item")
        self._send(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=round(1000 * since),
            audio_end_ms=round(1000 * now),
            item_id=item_id,
        )
        self._respond(shapes.ResponseSettings())

    def _create(self, item: shapes.Item, previous: str | None) -> None:
        if item.type == "item_reference":
            raise Refused("An item that is there already is not made again.", "invalid_value", "item.type")
        if previous is not None and previous != "root":
            self._entry(previous)
        if item.id is not None and (item.id == self._turn_id or self.conversation.get(item.id) is not None):
            raise Refused(f"There is an item {item.id!r} already.", "item_already_exists", "item.id")
        self._room()
        entry = self._made_of(item)
        self.conversation.add(entry, previous)
        before = self.conversation.previous(entry.id)
        for kind in ("added", "done"):
            self._send(f"conversation.item.{kind}", item=entry.to_json(), previous_item_id=before)

    def _made_of(self, item: shapes.Item) -> Entry:
        """An entry of an item that a client gives."""
        item_id = item.id or new_id("item")
        if item.type == "item_reference":
            return self._entry(item_id)
        texts = [item.name, item.arguments, item.output, *(x for p in item.content for x in (p.text, p.transcript))]
        self._check_length("".join(x for x in texts if x), "item.content" if item.role else "item")
        if item.role is None:
            shown = item.model_dump(exclude_none=True, include={"type", "name", "call_id", "arguments", "output"})
            entry = Entry(item_id, None, [], other=shown)
            if item.type == "function_call_output":
                entry.request = Request(response_text(item.output or ""))
            else:
                entry.turn = Turn(Request(), self._mind.reply_ids(call_text(item.name or "", item.arguments or "")))
            return entry
        entry = Entry(item_id, item.role, [])
        if item.role == "user":
            entry.request = Request()
        for part in item.content:
            shown = part.model_dump(exclude_none=True)
            shown.pop("audio", None)
            entry.content.append(shown)
            if item.role == "user":
                if part.type == "input_text":
                    entry.request = (entry.request or Request()) + Request(part.text or "")
                else:
                    self._take_sound(entry, part.audio or "")
        if item.role == "assistant":
            entry.turn = Turn(Request(), self._mind.reply_ids(entry.text))
        return entry

    def _take_sound(self, entry: Entry, data: str) -> None:
        """A recording in an item: sound in the format of the session."""
        sound = Decoder(self.config.audio.input.format.wire())(decoded(data, "item.content.audio"))
        if not _LEAST_SECONDS <= sound.seconds <= self.settings.audio_seconds:
            raise Refused(
                f"The audio has {sound.seconds:.2f} s. Give 0.1 to {self.settings.audio_seconds:g} s.",
                "invalid_value",
                "item.content.audio",
            )
        before = entry.request
        entry.sound = entry.sound or Sounds()
        entry.sound.add(sound.to(Listening.sample_rate))
        self._aside(lambda: self._heard(entry, sound))
        if entry.request is not None and before is not None:
            entry.request = before + entry.request
        elif before != Request():
            entry.request, entry.unclear = before, False

    def _aside(self, work: Callable[[], None]) -> None:
        """Hear something else than the microphone, of which a turn may be open."""
        ears, mind = self._ears, self._mind
        work()
        if ears.open:
            # What it heard of the turn so far went with the other sound: it is heard again.
            for piece in ears.turn:
                mind.listen(piece)

    def _truncate(self, event: shapes.ItemTruncate) -> None:
        entry = self._entry(event.item_id)
        made = self._reply is not None and self._reply.entry is entry
        known = made or entry.spoken is not None
        if entry.role != "assistant" or not known or entry.sound is None or event.content_index:
            raise Refused(
                f"Item {entry.id!r} has no sound of a reply at {event.content_index}.", "invalid_value", "item_id"
            )
        if event.audio_end_ms > round(1000 * entry.sound.seconds):
            raise Refused(
                f"Audio content of {round(1000 * entry.sound.seconds)} ms is already shorter than "
                f"{event.audio_end_ms} ms.",
                "invalid_value",
                "audio_end_ms",
            )
        if made:
            self.cancel("client_cancelled")
        assert entry.spoken is not None, "a reply that is over has it"
        seconds = event.audio_end_ms / 1000
        text = entry.spoken.until(seconds)
        entry.sound.cut(seconds)
        entry.content[0]["transcript"] = text
        entry.status = "incomplete"
        if entry.turn is not None:
            entry.turn = Turn(entry.turn.request, self._mind.ids_of(entry.turn.reply, text))
        self._send(
            "conversation.item.truncated",
            item_id=entry.id,
            content_index=event.content_index,
            audio_end_ms=event.audio_end_ms,
        )

    # -- replies -------------------------------------------------------------------------------

    def _respond(self, settings: shapes.ResponseSettings) -> None:
        if self._reply is not None:
            raise Refused(
                f"Response {self._reply.id} is in progress. Wait for it or cancel it.",
                "conversation_already_has_active_response",
            )
        self._check_length(settings.instructions or "", "response.instructions")
        self._check_length(_functions(settings.tools or ()), "response.tools")
        out = self.config.audio.output
        if settings.audio is not None and settings.audio.output is not None:
            given = settings.audio.output.model_dump(exclude_unset=True)
            out = shapes.AudioOutput.model_validate({**out.model_dump(), **given})
            self._check_output(out, "response.audio.output")
        aside = settings.conversation == "none"
        entries = self.conversation.entries
        if settings.input is not None:
            entries = [self._made_of(i) for i in settings.input]
        most = settings.max_output_tokens or self.config.max_output_tokens
        self._again = False
        modality = (settings.output_modalities or self.config.output_modalities)[0]
        self._reply = Reply(
            self._send,
            self.conversation,
            settings=settings,
            modality=modality if self.talker.speaks else "text",
            voice=_name_of(out.voice),
            out=out,
            view=entries,
            in_conversation=not aside,
            created=self.clock(),
            most=self.settings.max_tokens if most == "inf" else min(int(most), self.settings.max_tokens),
            asked=most,
            lead=self.settings.lead,
        )
        self._quiet_since = None
        self._reply.begin()

    def _events(self, reply: Reply) -> Iterator[Event]:
        """The reply, from the conversation as it was when it was asked for."""
        mind = self._mind
        view = Conversation.view(reply.view)
        instructions = reply.settings.instructions
        system = (self.config.instructions or "") if instructions is None else instructions
        tools = self.config.tools if reply.settings.tools is None else reply.settings.tools
        choice = self.config.tool_choice if reply.settings.tool_choice is None else reply.settings.tool_choice
        system = "\n".join(x for x in (system, view.system, "" if choice == "none" else _functions(tools)) if x)
        if system != mind.memory.system:
            mind.memory.instruct(system)
        mind.memory.recall(view.turns)
        mind.speak = reply.modality == "audio"
        mind.voice = self.talker.voice(reply.voice) if mind.speak else None
        mind.max_tokens = reply.most
        reply.parts = view.parts
        if view.request is None:
            yield from mind.ask_again()
            return
        for event in mind.turn(view.request):
            if reply.turn is None:
                reply.turn = mind.memory.turns[-1]
            yield event

    def _end(self, reply: Reply, status: str, **details: Any) -> None:
        """The reply is over, one way or another."""
        self._reply = None
        end(reply.events)
        # Of what was not begun, the model has seen nothing.
        told = 0 if reply.events is None else self._mind.memory.used
        reply.end(status, {"type": status, **details}, self._mind.spoken, told)
        now, left = self._now, 0.0
        if status != "cancelled" and reply.first is not None:
            left = max(reply.first + reply.made - self.clock(), 0.0)
        self._exchanged = now + left
        # Whoever speaks already is not waited for.
        self._quiet_since = None if self._ears.open else now + left
        if self._again and status != "cancelled":
            self._respond(shapes.ResponseSettings())

    # -- parts ---------------------------------------------------------------------------------

    @property
    def _mind(self) -> Dialogue:
        assert self._dialogue is not None, "the session was started"
        return self._dialogue

    @property
    def _now(self) -> float:
        """Seconds of sound that came in the session."""
        return self._offset + self._ears.time

    @property
    def _ears(self) -> Listening:
        assert self._listening is not None, "the session was started"
        return self._listening

    def _listen(self) -> None:
        """Listen anew, as the session says."""
        heard = self.config.audio.input
        self._offset += 0.0 if self._listening is None else self._ears.time
        self._mind.forget()
        self._turn_id = None
        self._decoder = Decoder(heard.format.wire())
        detection, patience = heard.turn_detection, None
        settings = Listening.Config()
        if isinstance(detection, shapes.ServerVad):
            settings = Listening.Config(
                silence=detection.silence_duration_ms / 1000, padding=detection.prefix_padding_ms / 1000
            )
        elif detection is not None:
            patience = self.talker.patience(detection.eagerness)
        threshold = detection.threshold if isinstance(detection, shapes.ServerVad) else 0.5
        activity = None if detection is None else self._activity(threshold)
        self._listening = Listening(self._mind.listen, settings, activity=activity, patience=patience)

    def _entry(self, item_id: str) -> Entry:
        entry = self.conversation.get(item_id)
        if entry is None:
            raise Refused(f"There is no item {item_id!r}.", "item_not_found", "item_id")
        return entry

    def _room(self) -> None:
        if len(self.conversation) >= self.settings.items:
            raise Refused(
                f"The conversation has {len(self.conversation)} items. Delete some, or open another session.",
                "too_many_items",
            )

    def _check_length(self, text: str, param: str) -> None:
        if len(text) > self.settings.text_characters:
            raise Refused(
                f"There are {len(text)} characters. Give up to {self.settings.text_characters}.",
                "string_above_max_length",
                param,
            )

    def _check_output(self, out: shapes.AudioOutput, param: str) -> None:
        if out.speed != 1.0:
            raise Refused(f"The model speaks at its own speed, not at {out.speed:g} times it.", param=f"{param}.speed")
        try:
            self.talker.voice(_name_of(out.voice))
        except ConfigError as error:
            raise Refused(str(error), "invalid_value", f"{param}.voice") from None

    def _session(self) -> dict[str, Any]:
        return {"id": self.id, "object": "realtime.session", **self.config.model_dump(exclude={"include"})}

    def _send(self, kind: str, **fields: Any) -> None:
        if not self.closed:
            self._emit({"type": kind, "event_id": new_id("event"), **fields})


def _functions(tools: Sequence[Mapping[str, Any]]) -> str:
    """What the model is told of the functions of a session."""
    known = ("name", "description", "parameters")
    return told_of([{k: t[k] for k in known if k in t} for t in tools if t.get("type", "function") == "function"])


def _name_of(voice: str | shapes.VoiceId | None) -> str | None:
    return voice.id if isinstance(voice, shapes.VoiceId) else voice


def _pieces(sound: Audio, seconds: float) -> Iterator[Audio]:
    """A long piece in short ones, so that a voice in the middle of it is found where it begins."""
    for samples in torch.split(sound.samples, round(seconds * sound.sample_rate), dim=-1):
        yield Audio(samples, sound.sample_rate)
