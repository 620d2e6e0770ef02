"""What a model is compared with on pairs: chance, a text model that reads what is said, and one that reads what a
recogniser heard.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks.base import Figure
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import collect
from lalia.evaluation.benchmarks.told import Told
from lalia.evaluation.pair_scores import Member, judge_pairs
from lalia.evaluation.pairs import Pair
from lalia.evaluation.results import Named, tool
from lalia.evaluation.statistics import Estimate
from lalia.files import sha256

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench
    from lalia.evaluation.text_lm import TextLM

__all__ = ["baselines", "chance"]

_HALF = 1.959963984540054 * 0.5
_SHOWN = ("sum", "mean")


def chance(n: int) -> Estimate:
    """Where a model that guesses ends up, 95 times of 100, with so many pairs."""
    half = _HALF / math.sqrt(n) if n else math.nan
    return Estimate(0.5 if n else math.nan, 0.5 - half, 0.5 + half, n)


def baselines(bench: "Bench", pairs: Sequence[Pair], place: Path | None) -> tuple[list[Figure], list[str]]:
    """Figures, and what there is to say of them.

    A pair that several voices read is looked at once: to the text model it is the same, and the recogniser hears the
    first voice.

    :param place: the folder in which what they answer is kept, for whatever model is measured next.
    """
    ordered = sorted(pairs, key=lambda p: p.key)
    first = list({(p.task, p.kind, p.subtype, p.id): p for p in reversed(ordered)}.values())[::-1]
    tasks = list(dict.fromkeys(p.task for p in first))
    figures = [
        Figure(f"{t}.chance", f"{_label(t, tasks)}chance", "share", chance(sum(p.task == t for p in first)))
        for t in tasks
    ]
    notes: list[str] = []
    try:
        lm = bench.text_lm
    except LaliaError as error:
        return figures, [f"nothing reads the texts: {error}"]
    written = [p for p in first if p.positive_text is not None and p.negative_text is not None]
    if written:
        figures += _figures(_read(bench, lm, written, place), tasks, "text_lm", f"{lm.name} reads the text", bench.seed)
    if len(written) < len(first):
        notes.append(f"{len(first) - len(written)} pairs have no text for {lm.name} to read")
    try:
        figures += _figures(
            _heard(bench, lm, first, place),
            tasks,
            "cascade",
            f"{lm.name} reads what {bench.hearing.name} hears",
            bench.seed,
        )
    except LaliaError as error:
        notes.append(f"no cascade: {error}")
    return figures, notes


_Members = Mapping[Pair, tuple[Member | None, Member | None]]


def _label(task: str, tasks: Sequence[str]) -> str:
    return f"{task}: " if len(tasks) > 1 else ""


def _figures(members: _Members, tasks: Sequence[str], key: str, about: str, seed: int) -> list[Figure]:
    judged = judge_pairs(
        list(members), {p.key: m for p, m in members.items()}, {p.key: "It has no score." for p in members}, seed=seed
    )["tasks"]
    words = {"sum": "log p", "mean": "per token"}
    return [
        Figure(
            f"{t}.{key}_{name}",
            f"{_label(t, tasks)}{about}, {words[name]}",
            "share",
            Estimate(**judged[t][name]["accuracy"]),
        )
        for t in tasks
        if t in judged
        for name in _SHOWN
    ]


def _read(bench: "Bench", lm: "TextLM", pairs: Sequence[Pair], place: Path | None) -> _Members:
    """Members by what is written of them."""
    texts = {
        side: [(p.prompt_text or "", _after(p.prompt_text, getattr(p, f"{side}_text"))) for p in pairs]
        for side in ("positive", "negative")
    }
    # Pair by pair: what is behind one prompt is cheap together.
    told = _log_probs(bench, lm, [t for both in zip(*texts.values(), strict=True) for t in both], place)
    return {
        p: (_member(told.get(texts["positive"][i])), _member(told.get(texts["negative"][i])))
        for i, p in enumerate(pairs)
    }


def _heard(bench: "Bench", lm: "TextLM", pairs: Sequence[Pair], place: Path | None) -> _Members:
    """Members by what a recogniser hears of them."""
    files = list(dict.fromkeys(path for p in pairs for path in (p.positive, p.negative)))
    # By what is in them: parts of a set have files of one name.
    sounds = {path: sha256(path)[:32] for path in files if path.is_file()}
    items = {sound: Item(sound, {"path": str(path)}, sound) for path, sound in sounds.items()}
    kept = Kept(_place(place, "heard", bench.hearing), {"recognizer": tool(bench.hearing)})
    collect(_hear, list(items.values()), kept, bench.instead(bench.hearing))
    words = {path: kept.answers[sound]["text"] for path, sound in sounds.items() if sound in kept.answers}
    told = _log_probs(bench, lm, [("", text) for text in words.values()], place)

    def member(path: Path) -> Member | None:
        return _member(told.get(("", words[path]))) if path in words else None

    return {p: (member(p.positive), member(p.negative)) for p in pairs}


def _place(place: Path | None, verb: str, part: Named) -> Path | None:
    """A file for each version: another one answers anew, and has no need of what the last one said."""
    version = hashlib.sha256(part.version.encode()).hexdigest()[:12]
    return None if place is None else place / f"{verb}-by-{part.name}-{version}.jsonl"


def _hear(recognizer: Any, items: Sequence[Item]) -> Sequence[Answer]:
    return [{"text": text} for text in recognizer([Audio.load(i.asks["path"]) for i in items])]


def _log_probs(
    bench: "Bench", lm: "TextLM", texts: Sequence[tuple[str, str]], place: Path | None
) -> dict[tuple[str, str], Told]:
    """The likelihood of each text behind its prompt."""
    items = {
        text: Item.of(f"{text[0]}|{text[1]}", {"prompt": text[0], "text": text[1]}) for text in dict.fromkeys(texts)
    }
    kept = Kept(_place(place, "read", lm), {"lm": tool(lm)})
    collect(_score, list(items.values()), kept, bench.instead(lm))
    found = ((text, kept.answers.get(item.id)) for text, item in items.items())
    return {text: Told(a["log_probs"], [0.0] * len(a["log_probs"]), 0.0) for text, a in found if a is not None}


def _score(lm: "TextLM", items: Sequence[Item]) -> Sequence[Answer]:
    scored = lm.log_probs([i.asks["text"] for i in items], [i.asks["prompt"] for i in items])
    return [{"log_probs": [round(float(p), 5) for p in row]} for row in scored]


def _after(prompt: str | None, text: str) -> str:
    return f" {text}" if prompt else text


def _member(told: Told | None) -> Member | None:
    # What was heard as nothing at all is the least likely of all texts.
    return None if told is None else Member(told if told.tokens else Told([-1e4], [0.0], 0.0))
