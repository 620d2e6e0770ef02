"""Public suites of spoken questions: the model is asked item by item, and its written replies are scored."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation import suites
from lalia.evaluation.benchmarks.as_found import as_found
from lalia.evaluation.benchmarks.base import Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.downstream.choices import LETTERS
from lalia.evaluation.judging import Judge
from lalia.evaluation.results import file_identity
from lalia.evaluation.scored import Scored
from lalia.evaluation.suites.sd_eval import SDEvalSet
from lalia.evaluation.suites.voicebench import Subset
from lalia.files import sha256

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["SUITES", "Suite"]

_RATE, _BETWEEN = 16_000, 1.0
"""Hz, and seconds of silence between recordings that are heard in one turn."""

_Score = Callable[[Sequence[suites.Item], Mapping[str, str | None], Judge | None], Scored]


@dataclass(frozen=True)
class _Kind:
    """A suite, or a part of one.

    :param read: its file, with a folder for the recordings that a Parquet file holds.
    :param spoken: the question is in the sound; else it is in words beside it.
    :param named: choices that are not in the question stand below it, with letters; else the question is all.
    """

    about: str
    read: Callable[[Path, Path | None], list[suites.Item]]
    score: _Score
    spoken: bool = False
    named: bool = True


class Suite(InSteps):
    """A public suite in its published files, which `bench.path` names.

    Recordings of one item are heard in one turn, a second of silence apart. What is written beside them (instruction,
    question, choices) is the instruction of that conversation; a question without sound is typed. Replies are greedy
    and in words.
    """

    one_by_one = True

    def __init__(self, name: str, kind: _Kind) -> None:
        self.name, self.about, self._kind = name, kind.about, kind

    def __reduce__(self) -> tuple[Any, ...]:
        """By name, in which another process finds it: how it reads and scores is no part of what is asked there."""
        return _suite, (self.name,)

    def check(self, model: Any) -> None:
        model.dialogue(speak=False).answer(questions(1)[0].load())

    def _items(self, bench: "Bench") -> list[suites.Item]:
        if bench.path is None:
            raise DataError(f"No file of {self.name} was named. Name the one that it publishes with --data.")
        sounds = bench.path.parent / f"{bench.path.stem}-sounds" if bench.path.suffix == ".parquet" else None
        found = self._kind.read(bench.path, sounds)
        if not found:
            raise DataError(f"{bench.path} has no items. Name the file that the suite publishes.")
        return found[: bench.limit]

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        return {"max_tokens": bench.max_tokens, "temperature": 0.0, "seed": bench.seed}

    def items(self, bench: "Bench") -> list[Item]:
        found = []
        for item in self._items(bench):
            words = _words(item) if self._kind.named else item.text.strip()
            asks = {"words": "" if self._kind.spoken and item.audio else words, **self.settings(bench)}
            same = Item.of(item.id, asks, {str(i): file_identity(p) for i, p in enumerate(item.audio)})
            found.append(replace(same, asks={**asks, "sounds": [str(p) for p in item.audio]}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            x = item.asks
            talking = {k: x[k] for k in ("max_tokens", "temperature", "seed")}
            if x["sounds"]:
                said = _joined([Audio.load(p, mono=True, sample_rate=_RATE) for p in x["sounds"]])
                instructions = {"system": x["words"]} if x["words"] else {}
                reply = model.dialogue(speak=False, **instructions, **talking).answer(said)
            else:
                reply = model.dialogue(speak=False, **talking).answer(x["words"], typed=True)
            answers.append({"text": reply.text})
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        items = self._items(bench)
        replies = {i.id: kept.answers[i.id]["text"] if i.id in kept.answers else None for i in items}
        scored = self._kind.score(items, replies, bench.marker)
        file = sha256(bench.path) if bench.path else None
        return as_found(scored, replies, settings={**self.settings(bench), "file": file})


def _suite(name: str) -> Suite:
    return SUITES[name]


def _words(item: suites.Item) -> str:
    """What is asked in words, with its choices where they are not all in it; letters are those of their places."""
    known = [c for c in item.choices if c]
    if all(re.search(rf"(?<!\w){re.escape(c)}(?!\w)", item.text) for c in known):
        return item.text.strip()
    return "\n".join([item.text, *(f"{letter}. {c}" for letter, c in zip(LETTERS, known, strict=False))]).strip()


def _joined(recordings: Sequence[Audio]) -> Audio:
    silence = torch.zeros(1, 1, round(_BETWEEN * _RATE))
    pieces = [x for audio in recordings for x in (audio.samples, silence)][:-1]
    return Audio(torch.cat(pieces, dim=-1), _RATE)


def _judged(name: str, score: Callable[..., Scored]) -> _Score:
    def scored(items: Sequence[suites.Item], replies: Mapping[str, str | None], judge: Judge | None) -> Scored:
        if judge is None:
            raise ConfigError(f"{name} is marked by a judge. Name its address with --judge, and the model there.")
        return score(items, replies, judge)

    return scored


def _unjudged(score: Callable[..., Scored]) -> _Score:
    return lambda items, replies, _: score(items, replies)


def _voicebench(subset: Subset) -> _Kind:
    return _Kind(
        f"VoiceBench, {subset}",
        lambda path, sounds: suites.read_voicebench(path, sounds=sounds),
        lambda items, replies, judge: suites.score_voicebench(subset, items, replies, judge=judge),
        spoken=True,
    )


def _sd_eval(subset: SDEvalSet) -> _Kind:
    name = f"sd-eval-{subset}"
    return _Kind(
        f"SD-Eval, {subset}",
        lambda path, _: suites.read_sd_eval(path),
        _judged(name, partial(suites.score_sd_eval, subset)),
        spoken=True,
    )


SUITES: Mapping[str, Suite] = {
    name: Suite(name, kind)
    for name, kind in {
        **{f"voicebench-{s}": _voicebench(s) for s in get_args(Subset)},
        **{f"sd-eval-{s}": _sd_eval(s) for s in get_args(SDEvalSet)},
        "mmau": _Kind("MMAU", lambda path, _: suites.read_mmau(path), _unjudged(suites.score_mmau)),
        "air-bench-foundation": _Kind(
            "AIR-Bench, foundation", lambda path, _: suites.read_air_bench(path), _unjudged(suites.score_air_foundation)
        ),
        "air-bench-chat": _Kind(
            "AIR-Bench, chat",
            lambda path, _: suites.read_air_bench(path),
            _judged("air-bench-chat", suites.score_air_chat),
        ),
        "dynamic-superb": _Kind(
            "an instance of Dynamic-SUPERB",
            lambda path, sounds: suites.read_dynamic_superb(path, sounds=sounds),
            _unjudged(suites.score_dynamic_superb),
            named=False,
        ),
    }.items()
}
"""By name; those that ask otherwise are ``VoxEval`` and ``Superb``."""
