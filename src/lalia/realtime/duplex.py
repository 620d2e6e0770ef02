"""Full duplex: a model that hears and speaks at the same time, a frame of sound in and a frame of sound out.

There is no clock and no thread: time is the sound that came in. Several sessions share the steps of one language model,
which reads its weights once for all of them; what each gets is what it gets alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, LayoutError
from lalia.lm import ContinuousBatch, Prompt, Running, Sampler, SpeechLM
from lalia.realtime.events import Caption, DuplexEvent, Sound, Written
from lalia.realtime.intake import Intake
from lalia.realtime.session import Session
from lalia.streaming import State
from lalia.streams import Streams, StreamSpec, TokenSequence
from lalia.tokenizers import SpeechTokenizer
from lalia.vocoders import Vocoder

__all__ = ["Duplex", "DuplexSession", "Ear", "Pen", "StreamingTokenizer"]


class StreamingTokenizer(SpeechTokenizer, Protocol):
    """A speech tokenizer that hears a sound as it comes."""

    def init_state(self, batch_size: int) -> State: ...


class _Writer(Protocol):
    def push(self, ids: list[int], *, final: bool = False) -> str: ...


@dataclass(frozen=True)
class Ear:
    """What makes a stream of the user's sound.

    :param take: what is taken of its tokens, such as ``Stream.take``; all of them when not given.
    """

    tokenizer: StreamingTokenizer
    take: Callable[[TokenSequence], TokenSequence] | None = None


@dataclass(frozen=True)
class Pen:
    """What makes text of a stream.

    :param open: begins a text.
    :param silent: ids that say nothing, such as those of a frame in which there is no word.
    :param user: whether it is the user's words.
    """

    open: Callable[[], _Writer]
    silent: frozenset[int] = frozenset()
    user: bool = False


class Duplex:
    """A model that hears and speaks at once, and the sessions that share it.

    :param lm: one that reads what the user says and predicts what the model says, step by step.
    :param ears: for each stream that is heard, what makes it.
    :param pens: for each stream that is text, what makes that of it.
    :param vocoder: what speaks; none for a model that only writes.
    :param spoken: for each stream that the vocoder reads, the stream of the language model.
    :param speaker: a voice of the vocoder.
    :param context: steps of the language model that are kept in mind; the fewer of its own window and of what it is
        meant for when not given. The memory of a session does not grow beyond them.
    :raises ConfigError: a stream is neither heard nor predicted, is heard and does not keep time, or a head would have
        to know what is heard at the very step that it predicts.
    """

    def __init__(
        self,
        lm: SpeechLM,
        ears: Mapping[str, Ear],
        *,
        pens: Mapping[str, Pen] | None = None,
        vocoder: Vocoder | None = None,
        spoken: Mapping[str, str] | None = None,
        speaker: int | None = None,
        context: int | None = None,
    ) -> None:
        self.lm, self.ears, self.pens = lm, dict(ears), dict(pens or {})
        self.vocoder, self.spoken, self.speaker = vocoder, dict(spoken or {}), speaker
        self._check(lm.specs)
        meant = getattr(lm.backbone, "context", None) or getattr(lm.backbone.config, "context", None)
        if context is not None and context < 2:
            raise ConfigError(f"A session keeps {context} steps in mind. Give at least 2.")
        self.context: int = context or meant or _CONTEXT
        self.batch = ContinuousBatch(lm)
        self.sessions: list[DuplexSession] = []

    def _check(self, specs: Mapping[str, StreamSpec]) -> None:
        for name in self.ears:
            if name not in specs:
                raise ConfigError(
                    f"Stream {name!r} is heard, but the layout has {', '.join(specs)}. Name one of these."
                )
            if not specs[name].clocked:
                raise ConfigError(
                    f"Stream {name!r} is heard, but keeps no time. Hear one with a frame for each moment."
                )
        for name in specs:
            if name not in self.ears and name not in self.lm.heads:
                raise ConfigError(f"Stream {name!r} is neither heard nor predicted. Give it an ear or a head.")
        for name, config in self.lm.config.heads.items():
            if name not in self.ears and (needed := [n for n in config.needs if n in self.ears]):
                raise ConfigError(
                    f"The head of {name!r} needs {needed[0]!r} of the same step, which is heard only later. Choose "
                    "another head."
                )

    def read(self, known: Streams) -> Prompt:
        """A beginning for sessions, such as a voice to speak with: streams of one row, the user's among them.

        It is read once, whatever the number of sessions that begin with it.

        :raises LayoutError: a stream is not of its spec, or not all are equally long.
        """
        lengths = {name: int(tokens.lengths[0]) for name, tokens in known.items()}
        if set(lengths) != set(self.lm.specs) or len(set(lengths.values())) > 1:
            raise LayoutError(
                f"A prompt has {lengths or 'nothing'}. Give all of {', '.join(self.lm.specs)}, equally long."
            )
        return self.batch.read(known, awaited=tuple(self.ears), context=self.context)

    def open(
        self, *, sampler: Sampler | None = None, seed: int = 0, prompt: Prompt | Streams | None = None
    ) -> "DuplexSession":
        """A new session beside the others.

        :param sampler: the model's own when not given.
        :param prompt: what was said before, by both; see ``read``.
        """
        if prompt is not None and not isinstance(prompt, Prompt):
            prompt = self.read(prompt)
        row = self.batch.join(
            {} if prompt is None else prompt,
            sampler=sampler,
            seed=seed,
            awaited=tuple(self.ears),
            context=self.context,
        )
        session = DuplexSession(self, row)
        if prompt is not None and self.vocoder is not None:
            # It goes on in the same voice, without a click.
            session._speak({n: t for n, t in prompt.known.items() if n in self.spoken.values()})
        self.sessions.append(session)
        return session

    def step(self, session: "DuplexSession") -> None:
        """Have a session that has heard enough take a step, and all others that have."""
        self.batch.step_with(session.row, [other.row for other in self.sessions if other.row.ready])


_CONTEXT = 3000
"""Steps that are kept where a model does not say for how many it is meant."""


@dataclass(eq=False)
class DuplexSession(Session):
    """One conversation with a model that hears and speaks at once.

    What comes out of the first frame that goes in is what the model says while it hears the second.

    :param row: its place in the batch; its state is a value.
    """

    duplex: Duplex
    row: Running
    time: float = 0.0
    """Seconds of sound that came in."""
    _intake: dict[str, Intake] = field(init=False)
    _hearing: dict[str, State] = field(init=False)
    _writers: dict[str, _Writer] = field(init=False)
    _speaking: State | None = field(init=False)
    _ahead: dict[str, list[TokenSequence]] = field(init=False)
    """Frames of streams that are spoken together with others, whose frames are not there yet."""

    def __post_init__(self) -> None:
        ears, vocoder = self.duplex.ears, self.duplex.vocoder
        self._intake = {name: Intake(ear.tokenizer.sample_rate) for name, ear in ears.items()}
        self._hearing = {name: ear.tokenizer.init_state(1) for name, ear in ears.items()}
        self._writers = {name: pen.open() for name, pen in self.duplex.pens.items()}
        self._speaking = None if vocoder is None else vocoder.init_state(1)
        self._ahead = {name: [] for name in self.duplex.spoken.values()}

    def close(self) -> None:
        """Leave the batch."""
        if self in self.duplex.sessions:
            self.duplex.sessions.remove(self)
            self.duplex.batch.leave(self.row)

    def push(self, piece: Audio) -> Iterator[DuplexEvent]:
        """Hear the next piece of the user's sound, and say what comes of it; go through all of it before the next.

        Other sessions that have heard something and not been asked since take their steps with it.

        :param piece: [1, C, N] of any length and rate, the same rate each time; channels are averaged.
        :raises AudioError: it has another rate than those before, or samples that are no finite numbers.
        :raises ConfigError: the session is closed.
        """
        self.feed(piece)
        yield from self.take()

    def feed(self, piece: Audio) -> None:
        """Hear the next piece of the user's sound, without a step: what comes of it is for ``take``.

        Who has several sessions feeds all of them before he takes from any, so that they share every step.
        """
        if self not in self.duplex.sessions:
            raise ConfigError("The session is closed. Open another.")
        # Sound that is refused is heard by none of the ears.
        heard = {name: intake.push(piece) for name, intake in self._intake.items()}
        self.time += piece.seconds
        for name, ear in self.duplex.ears.items():
            with torch.inference_mode():
                tokens = ear.tokenizer.encode(heard[name], self._hearing[name])
            if ear.take is not None:
                tokens = ear.take(tokens)
            if tokens.num_tokens:
                self.row.hear(**{name: tokens})

    def take(self) -> Iterator[DuplexEvent]:
        """What comes of all that was heard."""
        while True:
            while (new := self.row.take()) is not None:
                yield from self._say(new)
            if not self.row.ready:
                return
            self.duplex.step(self)

    def _say(self, new: Streams) -> Iterator[DuplexEvent]:
        """The events of frames that are whole."""
        for name, pen in self.duplex.pens.items():
            if name not in new:
                continue
            ids = [i for i in new[name].values[0, 0].tolist() if i not in pen.silent]
            piece = self._writers[name].push(ids) if ids else ""
            if piece:
                yield Caption(piece) if pen.user else Written(piece)
        sound = self._speak({n: t for n, t in new.items() if n in self._ahead})
        if sound is not None:
            yield Sound(sound)

    def _speak(self, new: Streams) -> Audio | None:
        """The sound [1, C, N] that is certain by now, where there is some."""
        vocoder, spoken = self.duplex.vocoder, self.duplex.spoken
        if vocoder is None or not new:
            return None
        for name, tokens in new.items():
            self._ahead[name] += [tokens.cut(t, t + 1) for t in range(int(tokens.lengths[0]))]
        count = min(len(frames) for frames in self._ahead.values())
        if not count:
            return None
        whole: Streams = {}
        for name, frames in self._ahead.items():
            values = torch.cat([x.values for x in frames[:count]], dim=2 if frames[0].discrete else 1)
            whole[name] = TokenSequence(values, torch.tensor([count]))
            del frames[:count]
        device = next(vocoder.parameters(), torch.zeros(0)).device
        with torch.inference_mode():
            made = vocoder.decode(
                {read: whole[name].to(device) for read, name in spoken.items()},
                self._speaking,
                speaker=self.duplex.speaker,
            )
        return Audio(made.samples.float().cpu(), made.sample_rate) if made.samples.shape[-1] else None
