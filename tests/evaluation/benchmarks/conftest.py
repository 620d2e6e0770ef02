"""A model that is a table: it knows the bundled recordings, and does what it is told to do wrong."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.benchmarks import Bench, recordings
from lalia.evaluation.benchmarks.tone import deliveries
from lalia.evaluation.dnsmos import Quality
from lalia.evaluation.memory import fingerprint

UNCLEAR = "Pardon?"


@dataclass
class Reply:
    text: str
    audio: Audio | None
    timings: dict[str, float]


def sound_of(text: str) -> Audio:
    """A sound that only this text has: 0.1 s a word, of 16 bits, so that a file of it is the same."""
    generator = torch.Generator().manual_seed(sum(map(ord, text)) + len(text))
    samples = 0.1 * torch.randn(1600 * max(len(text.split()), 1), generator=generator)
    return Audio((32768 * samples).round().int() / 32768, 16_000)


@cache
def bundled() -> dict[str, str]:
    """What is said in all that is bundled."""
    known = {fingerprint(u.load()): str(u.text) for u in recordings("")}
    for number in (1, 2, 3):
        spoken = dict(deliveries(number))
        text = known[fingerprint(spoken["neutral"])]
        known |= {fingerprint(sound): text for sound in spoken.values()}
    return known


@dataclass
class Fake:
    """Hears by recognising files; answers by saying how it was asked; speaks in noise.

    :param heard: what is heard wrong, by what was said.
    :param answer: the reply, by what was heard and the sound (None where it was typed).
    :param ms: to the first sound, by turn.
    """

    heard: dict[str, str] = field(default_factory=dict)
    answer: Callable[[str, Audio | None], str] = lambda text, _: f"You asked {text}"
    ms: Callable[[int], float] = lambda _: 100.0
    log: list[str] = field(default_factory=list)
    label: str = "fake"
    recipe: Any = field(default_factory=lambda: SimpleNamespace(name="fake", talk=SimpleNamespace(unclear=UNCLEAR)))
    known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.known:
            self.known |= bundled()

    def dialogue(self, *, speak: bool = True, **settings: Any) -> "Talk":
        return Talk(self, speak)

    def transcribe(self, audio: Audio) -> str:
        said = self.known[fingerprint(audio)]
        return self.heard.get(said, said)

    def session(self, **settings: Any) -> "Silent":
        return Silent()

    def say(self, text: str) -> Audio:
        if "joke" in text:
            raise ConfigError("It does not say that. Ask another.")
        return sound_of(text)


class Silent:
    """A session in which nothing is ever said."""

    def push(self, piece: Audio) -> Sequence[Any]:
        return ()


@dataclass
class Talk:
    model: Fake
    speak: bool
    turns: int = 0
    pieces: list[Audio] = field(default_factory=list)

    def listen(self, piece: Audio) -> str:
        self.pieces.append(piece)
        return ""

    def turn(self, said: Any = None, *, typed: bool = False) -> Iterator[Any]:
        if said is None:
            said = Audio(torch.cat([p.samples for p in self.pieces], dim=-1), self.pieces[0].sample_rate)
        self.model.log.append(f"{self.model.label} {'typed' if typed else 'spoken'}")
        text = said if typed else self.model.transcribe(said)
        self.turns += 1
        if not typed:
            yield SimpleNamespace(text=text)
        reply = self.model.answer(text, None if typed else said)
        ms = self.model.ms(self.turns)
        timings = {"encode_ms": ms / 4, "first_token_ms": ms / 2, "first_audio_ms": ms, "total_ms": 2 * ms}
        yield SimpleNamespace(reply=Reply(reply, sound_of(reply) if self.speak else None, timings))

    def answer(self, said: Any, *, typed: bool = False) -> Reply:
        *_, last = self.turn(said, typed=typed)
        reply: Reply = last.reply
        return reply


class Judge:
    """Hears what ``sound_of`` made, and the bundled recordings; ``wrong`` replaces words."""

    name, version = "judge", "1"

    def __init__(self, texts: Sequence[str], known: dict[str, str], wrong: dict[str, str] | None = None) -> None:
        self.known = known | {fingerprint(sound_of(text)): text for text in texts}
        self.wrong = wrong or {}

    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        texts = [self.known.get(fingerprint(audio), "") for audio in recordings]
        return [" ".join(self.wrong.get(word, word) for word in text.split()) for text in texts]


class Plain:
    name, version = "plain", "1"

    def __call__(self, text: str) -> str:
        return " ".join(word.strip(".,;!?").lower() for word in text.split())


@pytest.fixture
def fake() -> type[Fake]:
    return Fake


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """``make_bench(model, wrong={}, **fields)``: the bench with tools that need no weights."""

    def make(model: Fake, *, wrong: dict[str, str] | None = None, **options: Any) -> Bench:
        from lalia.evaluation.benchmarks import questions, sentences

        bench = Bench(model, options.pop("name", "fake"), "fake", **options)
        texts = [*sentences(), *(model.answer(model.heard.get(q.text, q.text), q.load()) for q in questions())]
        bench.judge = Judge(texts, model.known, wrong)  # type: ignore[misc]
        bench.recognizer = Judge([], model.known, {"the": "a"})  # type: ignore[misc]
        bench.normalizer = Plain()  # type: ignore[misc]

        def rate(audio: Audio) -> Quality:
            return Quality(3.0 + audio.seconds / 10, 3.5, 4.0, 3.2)

        rate.name, rate.version = "rater", "1"  # type: ignore[attr-defined]
        bench.rater = rate  # type: ignore[misc]
        return bench

    return make
