"""STSP: whether the sentiment of a prompt is kept in what follows, heard or read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.folders import file_name
from lalia.evaluation.prosody import STSPItem, read_stsp, score_stsp, sentiment_classifier
from lalia.evaluation.prosody.sentiment import MAX_TOKENS, SAMPLING
from lalia.evaluation.results import file_identity, tool
from lalia.evaluation.statistics import mean
from lalia.lm import Sampling

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["STSP"]

_SECONDS = 12.0
"""Of speech behind speech: its 300 units at 25 Hz."""

_SHORTEST = 0.1
"""Seconds of sound that a classifier hears something in."""


class STSP(InSteps):
    """Prompts that are gone on with in each direction whose continuations a classifier knows (`bench.judge_paths`).

    Speech behind speech is asked for in seconds (``continue_``), which any model that goes on with speech can be asked,
    at the temperature of the protocol; the rest of its sampling is then the recipe's. Where there is text, what is
    asked is ``continue_parts``, in tokens, with top-p as well. Where the paper averages two sets, each is a run of its
    own.

    :param runs: continuations of each prompt, of different seeds.
    """

    name = "stsp"
    about = "the sentiment of a prompt is kept in what follows"
    one_by_one = True

    def __init__(self, runs: int = 3) -> None:
        self.runs = runs

    def check(self, model: Any) -> None:
        model.continue_(questions(1)[0].load(), prompt_seconds=None, seconds=0.5)

    def _prompts(self, bench: "Bench") -> list[STSPItem]:
        if bench.path is None:
            raise DataError("No prompts of stsp were named. Name the JSON Lines of a set with --data.")
        return sorted(read_stsp(bench.path), key=lambda p: p.id)[: bench.limit]

    def _classifiers(self, bench: "Bench") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for weights in bench.judge_paths:
            classifier = sentiment_classifier(weights)
            found[classifier.modality] = classifier
        if not found:
            raise ConfigError("A classifier tells what sentiment comes. Name the path of one with --judge.")
        return found

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        return {**asdict(SAMPLING), "tokens": dict(MAX_TOKENS), "seconds": _SECONDS, "seed": bench.seed}

    def items(self, bench: "Bench") -> list[Item]:
        into = self._classifiers(bench)
        place = bench.sounds(self.name)
        found = []
        for prompt in self._prompts(bench):
            content = file_identity(prompt.path)
            for direction in (d for d in MAX_TOKENS if d.partition("-")[2] in into):
                for run in range(self.runs):
                    name = _name(direction, prompt, run)
                    asks = {"direction": direction, "text": prompt.text, **self.settings(bench)}
                    asks["seed"] = bench.seed_of(name)
                    same = Item.of(name, asks, {"path": content})
                    files = {"path": str(prompt.path), "to": str(place / f"{file_name(name)}.flac")}
                    found.append(replace(same, asks={**asks, **files}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        return [_answer(model, i.asks) for i in items]

    def score(self, bench: "Bench", kept: Kept) -> Found:
        prompts, classifiers = self._prompts(bench), self._classifiers(bench)
        figures: list[Figure] = []
        notes: list[str] = []
        items: list[Mapping[str, Any]] = []
        details: dict[str, Any] = {"counts": {}}
        for direction in (d for d in MAX_TOKENS if d.partition("-")[2] in classifiers):
            into = direction.partition("-")[2]
            label = f"{into} behind {direction.partition('-')[0]}"
            runs = [
                {
                    p.id: classifiers[into]([_said(kept.answers[name])])[0]
                    for p in prompts
                    if (name := _name(direction, p, run)) in kept.answers
                }
                for run in range(self.runs)
            ]
            asked, answered = len(prompts) * self.runs, sum(map(len, runs))
            details["counts"][direction] = {"asked": asked, "answered": answered, "failed": asked - answered}
            if answered < asked:
                reason = next((r for n, r in kept.failed.items() if n.startswith(f"{direction}/")), "")
                notes.append(f"{label}: {asked - answered} of {asked} have no continuation: {reason}")
            if not answered:
                continue
            scored = [score_stsp(prompts, labels) for labels in runs]
            notes += [n for n in scored[0].notes if n not in notes]
            right = {p.id: [bool(x["right"]) for s in scored for x in s.items if x["id"] == p.id] for p in prompts}
            for kind in (None, *dict.fromkeys(sorted(p.sentiment for p in prompts))):
                shares = [sum(right[p.id]) / self.runs for p in prompts if kind in (None, p.sentiment)]
                key, words = ("accuracy", label) if kind is None else (f"accuracy_{kind}", f"{label}, {kind}")
                figures.append(Figure(f"{direction}.{key}", words, "share", mean(shares, seed=bench.seed)))
            items += [
                {"id": p.id, "direction": direction, "sentiment": p.sentiment, "told": [r.get(p.id) for r in runs]}
                for p in prompts
            ]
        settings = {**self.settings(bench), "runs": self.runs, "judges": [tool(c) for c in classifiers.values()]}
        return Found(figures, items, settings, notes, details)


def _name(direction: str, prompt: STSPItem, run: int) -> str:
    return f"{direction}/{prompt.id}/{run + 1}"


def _said(answer: Answer) -> Audio | str:
    return answer["text"] if "text" in answer else Audio.load(answer["audio"], check=False)


def _answer(model: Any, x: Mapping[str, Any]) -> Answer:
    given, _, into = x["direction"].partition("-")
    if given == "text" and not x["text"]:
        raise DataError("The prompt has no text. Give what is said as asr.")
    if (given, into) == ("speech", "speech"):
        prompt = Audio.load(x["path"])
        made = model.continue_(
            prompt, prompt_seconds=None, seconds=x["seconds"], temperature=x["temperature"], seed=x["seed"]
        )
        said = made.audio.cut(made.prompt_seconds)
    else:
        sampling = Sampling(temperature=x["temperature"], top_p=x["top_p"])
        part = x["text"] if given == "text" else Audio.load(x["path"], mono=True)
        tokens = x["tokens"][x["direction"]]
        said = model.continue_parts([part], into, tokens=tokens, sampling=sampling, seed=x["seed"])
    if isinstance(said, str):
        return {"text": said}
    if said.seconds < _SHORTEST:
        raise DataError("It says nothing. Ask at another temperature.")
    Path(x["to"]).parent.mkdir(parents=True, exist_ok=True)
    said.save(x["to"])
    return {"audio": x["to"]}
