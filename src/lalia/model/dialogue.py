"""A conversation: turns of speech or text, each answered as it is heard, with what was said before in mind."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import torch

from lalia.audio import Audio, AudioLike
from lalia.device import bound_kernels
from lalia.encoders.delivery import Delivery, DeliveryState
from lalia.encoders.transcripts import cut_loop
from lalia.errors import AudioError, ConfigError
from lalia.lm import ContinuousBatch, SpeechLM
from lalia.model.calls import Calls
from lalia.model.memory import Memory, Request, Turn
from lalia.model.producing import with_temperature
from lalia.model.voicing import Speech, Spoken
from lalia.realtime.events import Event, Heard, Reply, Said, Sound, Written
from lalia.streaming import State
from lalia.tokenizers import Manner, Text

if TYPE_CHECKING:
    from lalia.model.model import Model

__all__ = ["Dialogue", "Event", "Heard", "Hearing", "Said", "Sound", "Written"]

_CIRCLES, _LONGEST_CIRCLE = 8, 12
"""How often tokens are repeated, and how many of them, before a reply is ended."""

_KNOWN = 8
"""Turns of the user whose delivery is remembered."""

_NEXT = 8
"""The part of the context that is kept free for what the user says next: of 1024 steps, half a minute of speech."""


@dataclass(frozen=True)
class Hearing:
    """What was heard in a turn of the user.

    :param text: in words, where the model tells.
    :param understood: whether it takes it for what somebody said.
    """

    request: Request
    text: str
    understood: bool


class Dialogue:
    """A conversation with a model whose recipe says how it is talked to.

    What was said stays in the language model's state, heard as it was heard, so that a later turn costs no more than
    the first. The state has room for ``context`` steps from the beginning (of mini, 46 KB each), and takes no more
    memory later: before it is full, the oldest turns are forgotten, while the user listens to a reply.

    :param model: whose recipe has a ``talk``.
    :param system: the instructions; the recipe's when not given.
    :param context: steps of the language model (tokens) that are kept in mind.
    :param seconds: the longest reply, as sound.
    :param max_tokens: the longest reply, as text.
    :param temperature: of sampling; the recipe's when not given, 0 is the likeliest.
    :param voice: of the vocoder.
    :param speak: whether replies are spoken too.
    :param batch: in which replies are written beside those of other conversations.
    :raises ConfigError: the model is not one that is talked to so, or a setting is out of range.
    """

    def __init__(
        self,
        model: "Model",
        *,
        system: str | None = None,
        context: int = 1024,
        seconds: float = 60.0,
        max_tokens: int = 160,
        temperature: float | None = None,
        seed: int = 0,
        voice: int | str | None = None,
        speak: bool = True,
        batch: ContinuousBatch | None = None,
    ) -> None:
        talk = model.recipe.talk
        if talk is None:
            raise ConfigError(f"Model {model.recipe.name!r} keeps no conversation of turns. Choose another, like mini.")
        if max_tokens < 1 or context < 2 * max_tokens:
            raise ConfigError(
                f"A reply of {max_tokens} tokens in a context of {context}. Give at least 1, and twice that in context."
            )
        self.model, self.talk = model, talk
        self.lm: SpeechLM = model.lms[talk.lm]  # type: ignore[assignment]
        self._batch = batch
        self.seconds, self.max_tokens, self.seed = seconds, max_tokens, seed
        self.speak = speak and model.vocoder is not None
        self.voice = model.voice(voice) if self.speak else None
        sampler = with_temperature(self.lm.config.sampler, temperature)
        if temperature == 0.0:
            sampler = replace(sampler, default=replace(sampler.default, temperature=0.0))
        self._sampler = sampler
        self._text: Text = model.tokenizer(talk.reply)
        self._pieces: list[Audio] = []
        self._hearing: State | None = None
        self._measuring: DeliveryState | None = None
        self._deliveries: list[Delivery] = []
        """How the user said what he said so far, by which it is told what is usual for him."""
        self.spoken: Spoken | None = None
        """Which part of the last reply is heard at what time."""
        self._answered = True
        """Whether the last reply is one to a turn: what was not understood is none, and asking for it is not kept."""
        self._count = 0
        self._listener = model.tokenizer(talk.question)
        self._manner: Manner | None = None if talk.manner is None else model.tokenizer(talk.manner)
        bound_kernels()
        system = talk.system if system is None else system
        self.memory = Memory(self.lm, talk, self._text, system=system, context=context, room=max_tokens)

    def warm_up(self) -> None:
        """Do everything once that is done at a first use alone, so that no user waits for it."""
        with torch.inference_mode():
            list(self.lm.generate(self.memory.known(Request("Hello.")), limits={self.talk.reply: 3}))
            nobody = Audio(torch.zeros(1, 1, 8000), 16_000)
            self._listener.encode(nobody)
            if self._manner is not None:
                self._manner.encode(nobody)
            if self.speak:
                Speech(self.model, self.voice, whole=False).push("Hello.", final=True)

    # -- the user ------------------------------------------------------------------------------

    def listen(self, piece: Audio) -> str:
        """Hear the next piece of what the user is saying, before ``turn`` answers it.

        :param piece: [1, C, N] at the rate of the tokenizer that hears.
        :returns: what was said so far, as far as it is understood by now; "" where it is heard only at the end.
        """
        tokenizer = self._listener
        piece = piece.mono()
        self._pieces.append(piece)
        if self._manner is not None:
            if self._measuring is None:
                self._measuring = self._manner.init_state(1)
            self._manner.hear(piece, self._measuring)
        if not hasattr(tokenizer, "hear") or not hasattr(tokenizer, "init_state"):
            return ""
        if self._hearing is None:
            self._hearing = tokenizer.init_state(1)
        (heard,) = tokenizer.hear(piece, self._hearing)
        return str(heard.text)

    def forget(self) -> None:
        """Forget what was listened to and not answered."""
        self._pieces, self._hearing, self._measuring = [], None, None

    def hear(self, said: "AudioLike | None" = None) -> Hearing:
        """What the user said in a turn, to its end.

        :param said: a recording; what was listened to when not given.
        :raises AudioError: the recording cannot be read, or is empty or silent; nothing was listened to.
        """
        tokenizer = self._listener
        pieces, state, measuring = self._pieces, self._hearing, self._measuring
        self.forget()
        if said is None:
            if not pieces:
                raise AudioError("Nothing was listened to. Give a recording, or pieces of one to listen to.")
            audio = Audio(torch.cat([p.samples for p in pieces], dim=-1), pieces[0].sample_rate)
            audio.check("what was said")
        else:
            audio, state, measuring = self.model.recording(said).mono(), None, None
        rest = audio.cut(audio.seconds)
        if not hasattr(tokenizer, "hear"):
            words, text, understood = tokenizer.encode(audio), "", True
        else:
            (heard,) = tokenizer.hear(audio) if state is None else tokenizer.hear(rest, state, final=True)
            words, text, understood = tokenizer.tokens_of(heard), heard.text, heard.understood
        manner = None
        if self._manner is not None and understood:
            sound = audio if measuring is None else rest
            (delivery,) = self._manner.hear(sound, measuring, final=True, words=[text])
            manner = self._manner.tokens_of(delivery, self._deliveries)
            self._deliveries = [*self._deliveries, delivery][-_KNOWN:]
        return Hearing(Request(words=words, manner=manner), text, understood)

    # -- turns --------------------------------------------------------------------------------------

    def turn(self, said: "AudioLike | Request | None" = None, *, typed: bool = False) -> Iterator[Event]:
        """Answer what the user says.

        A reply that is not waited for to its end counts as said up to there.

        :param said: a recording, or, where it is ``typed``, a text; or what was heard and typed already; what was
            listened to when not given.
        :yields: ``Heard``, where something is heard, then ``Written`` and ``Sound`` as they come, and ``Said``.
        :raises AudioError: the recording cannot be read, or is empty or silent.
        """
        started = time.perf_counter()
        timings: dict[str, float] = {}
        request, understood = said, True
        if typed:
            request = Request(str(said))
        elif not isinstance(said, Request):
            heard = self.hear(said)
            request, understood = heard.request, heard.understood
            timings["encode_ms"] = 1000 * (time.perf_counter() - started)
            yield Heard(heard.text, heard.understood)
        assert isinstance(request, Request)
        yield from self._answer(request if understood else None, timings, started)

    def ask_again(self) -> Iterator[Event]:
        """Reply to what was not understood, or not meant: as ``turn``, but it is not remembered."""
        yield from self._answer(None, {}, time.perf_counter())

    def _answer(self, request: Request | None, timings: dict[str, float], started: float) -> Iterator[Event]:
        speech = Speech(self.model, self.voice, whole=self.talk.by_sentence) if self.speak else None
        pieces = iter([self.talk.unclear]) if request is None else self._reply(request, timings, started)
        text, sounds, calls = "", [], Calls()
        spoken = Spoken()
        self.spoken, self._answered = spoken, request is not None
        for written in chain(pieces, [None]):
            piece, called = calls.push(written or "", final=written is None)
            yield from called
            text += piece
            spoken.text = text
            if piece:
                yield Written(piece)
            made = None if speech is None else speech.push(piece, final=written is None)
            if made is not None and made.samples.shape[-1]:
                timings.setdefault("first_audio_ms", 1000 * (time.perf_counter() - started))
                sounds.append(made)
                spoken.add(made.seconds, speech.share if speech else 0.0)
                yield Sound(made)
                if sum(x.seconds for x in sounds) >= self.seconds:
                    break
        total = time.perf_counter() - started
        audio = Audio(torch.cat([x.samples for x in sounds], dim=-1), sounds[0].sample_rate) if sounds else None
        audio = audio if audio is None else audio.cut(0.0, self.seconds)
        timings.setdefault("first_audio_ms", 1000 * total)
        timings["total_ms"] = 1000 * total
        if audio is not None:
            timings["rtf"] = total / audio.seconds
        # While the user listens, not when he has spoken.
        self.memory.close()
        self.memory.make_room(self.memory.context // _NEXT)
        yield Said(Reply(text.strip(), audio, timings))

    def _reply(self, request: Request, timings: dict[str, float], started: float) -> Iterator[str]:
        """The reply in pieces of text, while the state is kept."""
        turn, known = self.memory.ask(request)
        self._count += 1
        writer = self._text.stream()
        made = (self._batch or self.lm).generate(
            known,
            sampler=self._sampler,
            complete=list(known),
            limits={self.talk.reply: self.max_tokens},
            seeds=[self.seed + self._count],
            state=self.memory.state,
        )
        ended = False
        try:
            # Closed, not left to be collected: the state is what it leaves.
            with closing(made):  # type: ignore[type-var]
                for part in made:
                    if self.talk.reply not in part:
                        continue
                    timings.setdefault("first_token_ms", 1000 * (time.perf_counter() - started))
                    new = part[self.talk.reply].values[0, 0].tolist()
                    turn.reply += new
                    piece = writer.push(new)
                    if piece:
                        yield piece
                    if in_circles(turn.reply):
                        break
                else:
                    ended = len(turn.reply) < self.max_tokens
            rest = writer.push([], final=True)
            if rest:
                yield rest
        finally:
            self.memory.answered(ended=ended)

    def answer(self, said: "AudioLike | Request | None" = None, *, typed: bool = False) -> Reply:
        """The whole reply to what the user says; see ``turn``."""
        *_, last = self.turn(said, typed=typed)
        assert isinstance(last, Said)
        return last.reply

    # -- what was said and what was not -----------------------------------------------------------

    def ids_of(self, ids: Sequence[int], text: str) -> list[int]:
        """As many of the ids of a reply as make no more than this beginning of its text."""
        writer, kept, length = self._text.stream(), 0, 0
        for one in ids:
            length += len(writer.push([one]))
            if length > len(text):
                break
            kept += 1
        return list(ids[:kept])

    def reply_ids(self, text: str) -> list[int]:
        """The ids of a reply that somebody else gave."""
        return list(map(int, self._text.encode(text).values[0, 0].tolist()))

    def truncate(self, seconds: float) -> str:
        """Have the last reply end where the user stopped it: what he did not hear was not said.

        :param seconds: of its sound that were heard.
        :returns: the part of its text that counts as said: whole words.
        :raises ConfigError: there is no reply whose text is known.
        """
        if self.spoken is None:
            raise ConfigError("There is no spoken reply to end. Have one said first.")
        text, self.spoken = self.spoken.until(seconds), None
        turns = self.memory.turns
        if self._answered and turns:
            self.memory.recall([*turns[:-1], Turn(turns[-1].request, self.ids_of(turns[-1].reply, text))])
        return text

    def retract(self) -> None:
        """Have the last turn, the user's and the reply, not been said: he was not done when it began.

        :raises ConfigError: there is none.
        """
        if self.spoken is None:
            raise ConfigError("There is no turn to retract. Have one first.")
        self.spoken = None
        if self._answered:
            self.memory.recall(self.memory.turns[:-1])
            self._deliveries = self._deliveries[:-1]


def in_circles(ids: Sequence[int]) -> bool:
    """Whether a text says the same few tokens again and again: small language models do, and would to the limit."""
    return cut_loop(ids, longest=_LONGEST_CIRCLE, rounds=_CIRCLES, least=_CIRCLES) is not None
