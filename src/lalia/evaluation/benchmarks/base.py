"""What a benchmark is, what it asks of a model, and what it finds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from lalia.audio import Audio
from lalia.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = [
    "PARTS",
    "Benchmark",
    "Conversation",
    "Figure",
    "Found",
    "Hears",
    "Part",
    "Reply",
    "Speaks",
    "Talks",
    "Unit",
    "is_at_work",
    "parts_asked",
]

Unit = Literal[
    "share",
    "ms",
    "ms/s",
    "MB",
    "MB/turn",
    "ms/turn",
    "MOS",
    "ratio",
    "bit",
    "bit/s",
    "perplexity",
    "log Hz",
    "frames",
    "r",
]
"""``r``: a correlation; ``log Hz``: a difference of natural logarithms of F0."""

Part = Literal["tokenizer", "lm", "vocoder"]
"""Of a model."""

PARTS: tuple[Part, ...] = get_args(Part)


class Reply(Protocol):
    """An answer: its text, its sound, and ``timings`` in ms from the end of the question on."""

    @property
    def text(self) -> str: ...
    @property
    def audio(self) -> Audio | None: ...
    @property
    def timings(self) -> Mapping[str, float]: ...


class Conversation(Protocol):
    """Turns of which each is answered with those before in mind."""

    def listen(self, piece: Audio, /) -> str:
        """The next piece of what is said, at 16 kHz, before ``turn`` answers all of it."""
        ...

    def turn(self, said: Any = None, /, *, typed: bool = False) -> Iterator[Any]:
        """Events: first one with the ``text`` that was heard, at the end one with the ``reply``."""
        ...

    def answer(self, said: Any, /, *, typed: bool = False) -> Reply: ...


class Talks(Protocol):
    """A model that answers what is said or typed."""

    def dialogue(self, **settings: Any) -> Conversation: ...


class Speaks(Protocol):
    """A model that reads text out."""

    def say(self, text: str, /) -> Audio: ...


class Hears(Protocol):
    """A model that writes down what is said."""

    def transcribe(self, audio: Audio, /) -> str: ...


@dataclass(frozen=True)
class Figure:
    """One number.

    :param key: its name within the benchmark.
    :param about: what it is, in words.
    """

    key: str
    about: str
    unit: Unit
    estimate: Estimate


@dataclass(frozen=True)
class Found:
    """What a benchmark found.

    :param figures: most important first.
    :param items: one for each thing that was tried.
    :param settings: what moves the figures and is this benchmark's own.
    :param notes: lines for people: what the reference is, what is missing.
    :param details: what else was found, for the record alone.
    :param counts: how many items were asked, answered and failed, where that is known (see `Kept.counts`).
    """

    figures: Sequence[Figure]
    items: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] | None = None


class Benchmark(Protocol):
    """A question that is put to a model.

    One whose answers do not hang on all of the model says in ``parts`` on which: models that have those alike answer
    alike, and one of them need be asked. One that measures time or memory of a model that works says so
    (``at_work = True``): nothing of it is kept, and nothing can be scored without the model.
    """

    name: str
    about: str

    def check(self, model: Any) -> None:
        """Find out, by a small try, whether the model can do what is asked.

        :raises LaliaError: it cannot; the message says why.
        """
        ...

    def run(self, bench: "Bench") -> Found: ...


def parts_asked(benchmark: Benchmark) -> tuple[Part, ...]:
    """On which parts of a model the answers to a benchmark hang; all where it does not say."""
    parts: tuple[Part, ...] = getattr(benchmark, "parts", PARTS)
    return parts


def is_at_work(benchmark: Benchmark) -> bool:
    """Whether a benchmark measures the model while that works."""
    return bool(getattr(benchmark, "at_work", False))
