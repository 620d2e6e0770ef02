"""The benchmarks by name, and what some models are to reach in them."""

import difflib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from lalia.errors import ConfigError
from lalia.evaluation.benchmarks.answers import Answers
from lalia.evaluation.benchmarks.base import Benchmark
from lalia.evaluation.benchmarks.bit_rate import BitRate
from lalia.evaluation.benchmarks.continuations import Continuations
from lalia.evaluation.benchmarks.cross_modal import CrossModal
from lalia.evaluation.benchmarks.latency import Latency
from lalia.evaluation.benchmarks.likelihood import Likelihood
from lalia.evaluation.benchmarks.memory import Memory
from lalia.evaluation.benchmarks.minimal_pairs import MinimalPairs, OfItsOwn
from lalia.evaluation.benchmarks.phones import Phones
from lalia.evaluation.benchmarks.prosody import Prosodies
from lalia.evaluation.benchmarks.resynthesis import Resynthesis
from lalia.evaluation.benchmarks.robustness import Robustness
from lalia.evaluation.benchmarks.say import Say
from lalia.evaluation.benchmarks.scenes import Scenes
from lalia.evaluation.benchmarks.speech_pairs import SpeechPairs
from lalia.evaluation.benchmarks.speed import Speed
from lalia.evaluation.benchmarks.stsp import STSP
from lalia.evaluation.benchmarks.suites import SUITES
from lalia.evaluation.benchmarks.superb import SUPERB
from lalia.evaluation.benchmarks.talking_turns import TalkingTurns
from lalia.evaluation.benchmarks.tone import Tone
from lalia.evaluation.benchmarks.transcribe import Transcribe
from lalia.evaluation.benchmarks.turns import Turns
from lalia.evaluation.benchmarks.voxeval import VoxEval
from lalia.evaluation.sets import MINI_SETS

__all__ = ["BENCHMARKS", "OF_FILES", "Goal", "find", "goals"]

_ALL: tuple[Benchmark, ...] = (
    Answers(),
    Transcribe(),
    Say(),
    Latency(),
    Memory(),
    Tone(),
    Turns(),
    Robustness(),
    *(OfItsOwn(name) for name, made in MINI_SETS.items() if made.chance is not None),
    Phones(),
    BitRate(),
)
"""Those that are meant where none is named."""
_OF_FILES: tuple[Benchmark, ...] = (
    MinimalPairs(),
    CrossModal(),
    STSP(),
    TalkingTurns(),
    *SUITES.values(),
    VoxEval(),
    VoxEval(thought=True),
    *SUPERB,
)
BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *_ALL,
        Scenes(),
        SpeechPairs(),
        Resynthesis(),
        Continuations(),
        Likelihood(),
        Prosodies(),
        Speed(),
        *_OF_FILES,
    )
}
OF_FILES = frozenset(benchmark.name for benchmark in _OF_FILES)
"""Those that read files of a published form (``Bench.path``), and no manifest of recordings (``Bench.data``)."""

Goal = Mapping[str, float | str]
"""``floor``, the least that will do, and ``aim``: numbers, or words where there is no number."""


def find(names: Sequence[str | Benchmark]) -> list[Benchmark]:
    """The benchmarks of these names, each once; where there is none, all but those that take as long again.

    :param names: a benchmark is itself.

    :raises ConfigError: one is unknown; the nearest is named.
    """
    for name in names:
        if isinstance(name, str) and name not in BENCHMARKS:
            close = difflib.get_close_matches(name, BENCHMARKS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(BENCHMARKS)}."
            raise ConfigError(f"There is no benchmark {name!r}. {hint}")
    found = (BENCHMARKS[name] if isinstance(name, str) else name for name in names)
    return list({benchmark.name: benchmark for benchmark in found}.values()) or list(_ALL)


@cache
def _goals() -> Mapping[str, Mapping[str, Goal]]:
    loaded: Mapping[str, Mapping[str, Goal]] = json.loads(Path(__file__).with_name("goals.json").read_text("utf-8"))
    return loaded


def goals(model: str) -> Mapping[str, Goal]:
    """What a model is to reach, by ``benchmark.figure``; nothing where its card names nothing."""
    return _goals().get(model, {})
