"""A conversation: turns of speech or text, each answered as it is heard, with what was said before in mind."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalia.audio import Audio, AudioLike
from lalia.device import bound_kernels
from lalia.encoders.delivery import Delivery, DeliveryState
from lalia.encoders.transcripts import cut_loop
from lalia.errors import AudioError, ConfigError
from lalia.lm import SpeechLM, absorb
from lalia.model.producing import with_temperature
from lalia.model.template import Template
from lalia.model.voicing import Speech, Spoken, tokens_of
from lalia.realtime.events import Event, Heard, Reply, Said, Sound, Written
from lalia.streaming import State
from lalia.streams import Streams, TokenSequence, nothing
from lalia.tokenizers import Manner, Text

if TYPE_CHECKING:
    from lalia.model.model import Model

__all__ = ["Dialogue", "Event", "Heard", "Said", "Sound", "Written"]

_CIRCLES, _LONGEST_CIRCLE = 8, 12
"""How often tokens are repeated, and how many of them, before a reply is ended."""

_KNOWN = 8
"""Turns of the user whose delivery is remembered."""

_NEXT = 8
"""The part of the context that is kept free for what the user says next: of 1024 steps, half a minute of speech."""


@dataclass(frozen=True)
class _Said:
    """What the user said: words as they were heard or typed, and how, where that is heard."""

    words: TokenSequence | str
    manner: TokenSequence | None = None


@dataclass
class _Turn:
    """What the user said, and the ids of the reply without its end."""

    said: _Said
    reply: list[int] = field(default_factory=list)


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
        self.context, self.seconds, self.max_tokens, self.seed = context, seconds, max_tokens, seed
        self.speak = speak and model.vocoder is not None
        self.voice = model.voice(voice) if self.speak else None
        sampler = with_temperature(self.lm.config.sampler, temperature)
        if temperature == 0.0:
            sampler = replace(sampler, default=replace(sampler.default, temperature=0.0))
        self._sampler = sampler
        self._text: Text = model.tokenizer(talk.reply)
        self._template = Template.of(self._text.tokenizer, self._text.config.name)
        self._system = talk.system if system is None else system
        self._turns: list[_Turn] = []
        self._unseen: list[int] | None = None
        """Ids of the last reply that the language model has not read; None where it waits for the user."""
        self._pieces: list[Audio] = []
        self._hearing: State | None = None
        self._measuring: DeliveryState | None = None
        self._deliveries: list[Delivery] = []
        """How the user said what he said so far, by which it is told what is usual for him."""
        self._spoken: Spoken | None = None
        self._answered = True
        """Whether the last reply is one to a turn: what was not understood is none, and asking for it is not kept."""
        self._count = 0
        self._listener = model.tokenizer(talk.question)
        self._manner: Manner | None = None if talk.manner is None else model.tokenizer(talk.manner)
        bound_kernels()
        self._state: State | None
        self._state, self._used = self._begin()
        around = self._template.again + self._template.reply
        self._most = self.context - self.max_tokens - self._used - len(self._ids(around)) - 1
        """Tokens of a turn of the user."""
        if self._most < 1:
            raise ConfigError(f"The instructions take {self._used} of {context} tokens. Shorten them or raise it.")

    # -- the language model's memory ---------------------------------------------------------------

    def warm_up(self) -> None:
        """Do everything once that is done at a first use alone, so that no user waits for it."""
        with torch.inference_mode():
            list(self.lm.generate(self._known(_Said("Hello.")), limits={self.talk.reply: 3}))
            nobody = Audio(torch.zeros(1, 1, 8000), 16_000)
            self._listener.encode(nobody)
            if self._manner is not None:
                self._manner.encode(nobody)
            if self.speak:
                Speech(self.model, self.voice, whole=False).push("Hello.", final=True)

    def _begin(self) -> tuple[State, int]:
        """The state after the instructions, where the user is to speak."""
        text = self._text.encode(self._template.before(self._system), special=True)
        text = self.lm.without_start(text)
        return absorb(self.lm, {self.talk.before: text}, capacity=self.context), text.num_tokens + 1

    def _ids(self, text: str) -> Tensor:
        return self._text.encode(text, special=True).values[0, 0]

    def _known(self, said: _Said) -> Streams:
        """What the user says, and the template behind it."""
        typed, words, specs = torch.zeros(0, dtype=torch.long), said.words, self.model.specs
        manner = {}
        if self.talk.manner is not None:
            manner[self.talk.manner] = nothing(specs[self.talk.manner]) if said.manner is None else said.manner
        most = self._most - _steps(manner)
        if isinstance(words, str):
            # Names of special tokens in what is typed are letters like any other.
            typed = self._text.encode(words).values[0, 0][-most:]
            words = nothing(specs[self.talk.question])
        elif words.num_tokens > most:
            # Of a monologue, the end: it is what was said last.
            words = words.cut(words.num_tokens - most)
        after = self._ids(self._template.reply)
        return {
            self.talk.before: tokens_of(typed),
            self.talk.question: words,
            **manner,
            self.talk.after: tokens_of(after),
        }

    def _close(self) -> None:
        """Read the end of the last reply, and the template up to the next turn of the user, if that was not done."""
        if self._unseen is None:
            return
        ids = torch.cat([torch.tensor(self._unseen, dtype=torch.long), self._ids(self._template.again)])
        absorb(self.lm, {self.talk.before: tokens_of(ids)}, self._state)
        self._used += len(ids)
        self._unseen = None

    def _make_room(self, steps: int) -> None:
        """Forget the oldest turns, where there would be too much to keep in mind."""
        room = self.context - self.max_tokens - steps
        if self._used <= room or not self._turns:
            return
        again = len(self._ids(self._template.again))
        turns, kept, needed = self._turns, 0, 0
        self._forget()
        # Down to half, so that it does not happen at every turn; but the last is kept, if it can be.
        while kept < len(turns):
            turn = turns[-1 - kept]
            needed += _steps(self._known(turn.said)) + len(turn.reply) + again
            if self._used + needed > (room // 2 if kept else room):
                break
            kept += 1
        self._recall(turns[len(turns) - kept :])

    def _forget(self) -> None:
        """Be as before the first turn."""
        self._turns, self._unseen = [], None
        # The old state first, so that there are never two.
        self._state = None
        self._state, self._used = self._begin()

    def _go_back(self, *instead: _Turn) -> None:
        """Have the last turn not been, or been another."""
        turns = [*self._turns[:-1], *instead]
        self._forget()
        self._recall(turns)

    def _recall(self, turns: Sequence[_Turn]) -> None:
        """Have turns in mind, behind those that are there."""
        for turn in turns:
            known = self._known(turn.said)
            known[self.talk.reply] = tokens_of(torch.tensor(turn.reply, dtype=torch.long))
            absorb(self.lm, known, self._state)
            self._used += _steps(known)
            self._turns.append(turn)
            self._unseen = []
            self._close()

    # -- turns --------------------------------------------------------------------------------------

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

    def turn(self, said: "AudioLike | None" = None, *, typed: bool = False) -> Iterator[Event]:
        """Answer what the user says.

        A reply that is not waited for to its end counts as said up to there.

        :param said: a recording, or, where it is ``typed``, a text; what was listened to when not given.
        :yields: ``Heard``, then ``Written`` and ``Sound`` as they come, and ``Said`` at the end.
        :raises AudioError: the recording cannot be read, or is empty or silent.
        """
        started = time.perf_counter()
        timings: dict[str, float] = {}
        speech = Speech(self.model, self.voice, whole=self.talk.by_sentence) if self.speak else None
        question, understood = _Said(str(said)), True
        if not typed:
            heard = self._hear(said)
            question, understood = heard.said, heard.understood
            timings["encode_ms"] = 1000 * (time.perf_counter() - started)
            yield Heard(heard.text, heard.understood)
        pieces = self._reply(question, timings, started) if understood else iter([self.talk.unclear])
        text, sounds = "", []
        spoken = Spoken()
        self._spoken, self._answered = spoken, understood
        for piece in chain(pieces, [None]):
            text += piece or ""
            spoken.text = text
            if piece:
                yield Written(piece)
            made = None if speech is None else speech.push(piece or "", final=piece is None)
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
        self._close()
        self._make_room(self.context // _NEXT)
        yield Said(Reply(text.strip(), audio, timings))

    def truncate(self, seconds: float) -> str:
        """Have the last reply end where the user stopped it: what he did not hear was not said.

        The language model is to have read no more than that, and reads the conversation again up to there.

        :param seconds: of its sound that were heard.
        :returns: the part of its text that counts as said: whole words.
        :raises ConfigError: there is no reply whose text is known.
        """
        if self._spoken is None:
            raise ConfigError("There is no spoken reply to end. Have one said first.")
        text, self._spoken = self._spoken.until(seconds), None
        if not self._answered or not self._turns:
            return text
        turn = self._turns[-1]
        writer, kept, length = self._text.stream(), 0, 0
        for one in turn.reply:
            length += len(writer.push([one]))
            if length > len(text):
                break
            kept += 1
        if kept < len(turn.reply):
            self._go_back(replace(turn, reply=turn.reply[:kept]))
        return text

    def retract(self) -> None:
        """Have the last turn, the user's and the reply, not been said: he was not done when it began.

        :raises ConfigError: there is none.
        """
        if self._spoken is None:
            raise ConfigError("There is no turn to retract. Have one first.")
        self._spoken = None
        if self._answered:
            self._go_back()
            self._deliveries = self._deliveries[:-1]

    def answer(self, said: "AudioLike | None" = None, *, typed: bool = False) -> Reply:
        """The whole reply to what the user says; see ``turn``."""
        *_, last = self.turn(said, typed=typed)
        assert isinstance(last, Said)
        return last.reply

    def _reply(self, question: _Said, timings: dict[str, float], started: float) -> Iterator[str]:
        """The reply in pieces of text, while the state is kept."""
        self._close()
        known = self._known(question)
        self._make_room(_steps(known))
        turn = _Turn(question)
        self._turns.append(turn)
        self._used += _steps(known)
        self._count += 1
        writer = self._text.stream()
        made = self.lm.generate(
            known,
            sampler=self._sampler,
            complete=list(known),
            limits={self.talk.reply: self.max_tokens},
            seeds=[self.seed + self._count],
            state=self._state,
        )
        ended = False
        try:
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
            self._unseen = [] if ended else turn.reply[-1:]
            self._used += len(turn.reply) - len(self._unseen)

    def _hear(self, said: "AudioLike | None") -> "_Hearing":
        """:raises AudioError: the recording cannot be read, or is empty or silent; nothing was listened to."""
        tokenizer = self._listener
        pieces, state, measuring = self._pieces, self._hearing, self._measuring
        self._pieces, self._hearing, self._measuring = [], None, None
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
        return _Hearing(_Said(words, manner), text, understood)


@dataclass(frozen=True)
class _Hearing:
    said: _Said
    text: str
    understood: bool


def in_circles(ids: Sequence[int]) -> bool:
    """Whether a text says the same few tokens again and again: small language models do, and would to the limit."""
    return cut_loop(ids, longest=_LONGEST_CIRCLE, rounds=_CIRCLES, least=_CIRCLES) is not None


def _steps(known: Streams) -> int:
    return sum(int(t.lengths[0]) for t in known.values())
