"""What a language model has in mind of a conversation: turns in its state, each read once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lalia.errors import ConfigError
from lalia.lm import SpeechLM, absorb
from lalia.model.template import Template
from lalia.nn.kv import KVState
from lalia.recipe import Talk
from lalia.streaming import State
from lalia.streams import Streams, TokenSequence, nothing
from lalia.tokenizers import Text

__all__ = ["Memory", "Request", "Turn", "tokens_of"]


@dataclass(frozen=True)
class Request:
    """What the user says in a turn: what he types, and behind it what is heard, with how he says it.

    :param text: as typed.
    :param words: as heard, the stream of the question [1, ..., T].
    :param manner: the stream of how it is said.
    """

    text: str = ""
    words: TokenSequence | None = None
    manner: TokenSequence | None = None

    def __add__(self, later: "Request") -> "Request":
        """Both as one turn."""
        heard = [x for x in (self.words, later.words) if x is not None]
        words = heard[0] if len(heard) == 1 else None
        if len(heard) == 2:
            axis = 2 if heard[0].discrete else 1
            values = torch.cat([x.row(0).values for x in heard], dim=axis)
            words = TokenSequence(values, torch.tensor([values.shape[axis]]))
        manner = self.manner if later.manner is None else later.manner
        return Request(" ".join(x for x in (self.text, later.text) if x), words, manner)


@dataclass
class Turn:
    """A turn of the user, and the ids of the reply without its end."""

    request: Request
    reply: list[int] = field(default_factory=list)


class Memory:
    """The state of a language model over a conversation, which has room for ``context`` steps from the beginning.

    A later turn costs no more than the first, and to go back, or to forget the last turns, costs nothing where the
    state is one of keys and values. Before it is full, the oldest turns are forgotten.

    :param text: the tokenizer of the text that stands around the turns, and of what is typed.
    :param system: the instructions.
    :param context: steps (tokens) that are kept in mind.
    :param room: of these, what is kept free for a reply.
    :raises ConfigError: the instructions leave no room.
    """

    def __init__(self, lm: SpeechLM, talk: Talk, text: Text, *, system: str, context: int, room: int) -> None:
        self.lm, self.talk, self.context, self.room = lm, talk, context, room
        self.template = Template.of(text.tokenizer, text.config.name)
        self._text = text
        self.turns: list[Turn] = []
        self._marks: list[int] = []
        """Steps before each turn."""
        self.unseen: list[int] | None = None
        """Ids of the last reply that the language model has not read; None where it waits for the user."""
        self.state: State | None = None
        self.used = self._start = 0
        """Steps of the state, and of the instructions."""
        self.instruct(system)

    def instruct(self, system: str) -> None:
        """Give other instructions, and have the same turns in mind.

        :raises ConfigError: they leave no room; it is as it was then.
        """
        most, turns = self.left(system), self.turns
        self.system, self.most = system, most
        self._forget()
        self._read(self._recent(turns, self.room))

    def left(self, system: str) -> int:
        """Steps that instructions leave for what the user says in a turn.

        :raises ConfigError: none.
        """
        start = len(self.ids(self.template.before(system))) + 1
        around = self.template.again + self.template.reply
        most = self.context - self.room - start - len(self.ids(around)) - 1
        if most < 1:
            raise ConfigError(f"The instructions take {start} of {self.context} tokens. Shorten them or raise it.")
        return most

    def known(self, request: Request) -> Streams:
        """What the user says, and the template behind it."""
        talk, specs = self.talk, self.lm.specs
        manner = {}
        if talk.manner is not None:
            manner[talk.manner] = nothing(specs[talk.manner]) if request.manner is None else request.manner
        most = self.most - _steps(manner)
        words = nothing(specs[talk.question]) if request.words is None else request.words
        if words.num_tokens > most:
            # Of a monologue, the end: it is what was said last.
            words = words.cut(words.num_tokens - most)
        # Names of special tokens in what is typed are letters like any other.
        typed = self._text.encode(request.text).values[0, 0]
        typed = typed[max(len(typed) - (most - words.num_tokens), 0) :]
        after = self.ids(self.template.reply)
        return {talk.before: tokens_of(typed), talk.question: words, **manner, talk.after: tokens_of(after)}

    def ask(self, request: Request) -> tuple[Turn, Streams]:
        """Begin a turn: what the language model is to go on from in the state."""
        self.close()
        known = self.known(request)
        self.make_room(_steps(known))
        turn = Turn(request)
        self.turns.append(turn)
        self._marks.append(self.used)
        self.used += _steps(known)
        return turn, known

    def answered(self, *, ended: bool) -> None:
        """The last turn has its reply, of which the state has seen all but the last step that was made."""
        reply = self.turns[-1].reply
        self.unseen = [] if ended else reply[-1:]
        self.used += len(reply) - len(self.unseen)

    def close(self) -> None:
        """Read the end of the last reply, and the template up to the next turn of the user, if that was not done."""
        if self.unseen is None:
            return
        ids = torch.cat([torch.tensor(self.unseen, dtype=torch.long), self.ids(self.template.again)])
        absorb(self.lm, {self.talk.before: tokens_of(ids)}, self.state)
        self.used += len(ids)
        self.unseen = None

    def make_room(self, steps: int) -> None:
        """Forget the oldest turns, where there would be too much to keep in mind."""
        if self.used <= self.context - self.room - steps or not self.turns:
            return
        turns = self.turns
        self._forget()
        self._read(self._recent(turns, self.room + steps))

    def recall(self, turns: Sequence[Turn]) -> None:
        """Have these turns in mind and no others; those that it has in mind already are not read again."""
        # What was forgotten for want of room stays so.
        first = next((i for i, t in enumerate(turns) if self.turns and t.request is self.turns[0].request), 0)
        turns, same = turns[first:], 0
        for old, new in zip(self.turns, turns, strict=False):
            if old.request is not new.request or old.reply != new.reply:
                break
            same += 1
        if same == len(self.turns):
            self.close()
        elif isinstance(self.state, KVState) and self.state.window is None:
            taken, self.used = int(self.state.position[0]), self._marks[same]
            self.state.rewind(taken - self.used)
            self.turns, self._marks, self.unseen = self.turns[:same], self._marks[:same], None
        else:
            self._forget()
            same = 0
        rest = turns[same:]
        if rest and self.used + self._sum(rest) > self.context - self.room:
            self._forget()
            rest = self._recent(turns, self.room)
        self._read(rest)

    # -- the state -----------------------------------------------------------------------------

    def ids(self, text: str) -> Tensor:
        """The ids of a text with the names of special tokens in it."""
        return self._text.encode(text, special=True).values[0, 0]

    def begin(self) -> tuple[State, int]:
        """The state after the instructions, where the user is to speak, and its steps."""
        text = self._text.encode(self.template.before(self.system), special=True)
        text = self.lm.without_start(text)
        return absorb(self.lm, {self.talk.before: text}, capacity=self.context), text.num_tokens + 1

    def _forget(self) -> None:
        """Be as before the first turn."""
        self.turns, self._marks, self.unseen = [], [], None
        # The old state first, so that there are never two.
        self.state = None
        self.state, self.used = self.begin()
        self._start = self.used

    def _recent(self, turns: Sequence[Turn], free: int) -> Sequence[Turn]:
        """The last of these turns: all, where they fit; else down to half, so that it does not happen at every turn.

        The last is kept, if it can be.

        :param free: steps that are kept free.
        """
        room = self.context - free
        if self._start + self._sum(turns) <= room:
            return turns
        kept, needed = 0, self._start
        for turn in reversed(turns):
            needed += self._sum([turn])
            if needed > (room // 2 if kept else room):
                break
            kept += 1
        return turns[len(turns) - kept :]

    def _sum(self, turns: Sequence[Turn]) -> int:
        """Steps of turns."""
        again = len(self.ids(self.template.again))
        return sum(_steps(self.known(t.request)) + len(t.reply) + again for t in turns)

    def _read(self, turns: Sequence[Turn]) -> None:
        """Have turns in mind, behind those that are there."""
        for turn in turns:
            self._marks.append(self.used)
            known = self.known(turn.request)
            known[self.talk.reply] = tokens_of(torch.tensor(turn.reply, dtype=torch.long))
            absorb(self.lm, known, self.state)
            self.used += _steps(known)
            self.turns.append(turn)
            self.unseen = []
            self.close()


def tokens_of(ids: Tensor) -> TokenSequence:
    """The stream of one row of ids [S]."""
    return TokenSequence(ids[None, None], torch.tensor([len(ids)]))


def _steps(known: Streams) -> int:
    return sum(int(t.lengths[0]) for t in known.values())
