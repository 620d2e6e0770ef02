"""Minimal pairs: does a model find the better of two recordings more likely?

On disk the pairs of a benchmark are JSON Lines, one pair per line, never a naming scheme::

    {"task": "reversed", "id": "103-1240-0000", "positive": "103-1240-0000.flac",
     "negative": "103-1240-0000.reversed.flac"}

What is known of a pair beyond that stands in the same object, under the names of the fields of `Pair`.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.errors import DataError, LaliaError
from lalia.evaluation.protocols import HasLikelihood, Likelihood
from lalia.evaluation.statistics import bootstrap_ratio, wilson
from lalia.files import atomic_write, sha256

__all__ = ["REDUCTIONS", "Pair", "load_pairs", "pairs_identity", "save_pairs", "score_pairs"]

REDUCTIONS: Mapping[str, Callable[[Likelihood], float]] = {
    "sum": lambda s: s.sum,
    "mean": lambda s: s.sum / s.tokens if s.tokens else math.nan,
}
"""How the log-probabilities of a recording become one score. A sum favours the recording with fewer tokens, a
mean the one whose tokens are easy; where members differ in tokens the two can disagree, so both are reported."""


_TEXTS = ("voice", "kind", "subtype", "prompt_text", "positive_text", "negative_text")


@dataclass(frozen=True)
class Pair:
    """Two recordings of which the ``positive`` is to be found more likely.

    :param task: what the pair asks for; accuracies are per task.
    :param id: unique within its task and voice.
    :param voice: who speaks, where several voices read the same pair; its accuracy is the mean over them.
    :param kind: what the accuracy is given for besides the whole task (a syntactic phenomenon, a band of frequency).
    :param subtype: a part of the kind.
    :param split: seconds up to which the two are one prompt; what follows is the continuation.
    :param prompt_text: what is said up to there.
    :param positive_text: what is said in the positive, behind the prompt where there is one.
    :param negative_text: the same of the negative.
    """

    task: str
    id: str
    positive: Path
    negative: Path
    voice: str | None = None
    kind: str | None = None
    subtype: str | None = None
    split: float | None = None
    prompt_text: str | None = None
    positive_text: str | None = None
    negative_text: str | None = None

    def __post_init__(self) -> None:
        for name in ("task", "id"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise DataError(f"A pair has the {name} {value!r}. Give a text that is not empty.")
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise DataError(f"A pair has the {name} {value!r}. Give a text, or leave it out.")
        number = isinstance(self.split, int | float) and not isinstance(self.split, bool)
        if self.split is not None and not (number and 0 <= self.split < math.inf):
            raise DataError(f"A pair has the split {self.split!r}. Give seconds, at least 0, or leave it out.")
        for name in ("positive", "negative"):
            object.__setattr__(self, name, Path(getattr(self, name)))

    @property
    def key(self) -> tuple[str, str, str]:
        """What is its own: task, id and voice."""
        return self.task, self.id, self.voice or ""


_FIELDS = tuple(f.name for f in fields(Pair))


def load_pairs(path: str | Path) -> list[Pair]:
    """Read a manifest of pairs; sound files are named relative to it.

    :raises DataError: names the file and the line.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read ({error}). Name a manifest of pairs.") from None
    pairs: dict[tuple[str, str, str], Pair] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            pair = _pair(json.loads(line), source.parent)
        except ValueError:
            raise DataError(f"{source}, line {number} is not JSON. Correct or remove it.") from None
        except DataError as error:
            raise DataError(f"{source}, line {number}: {error}") from None
        if pair.key in pairs:
            raise DataError(f"{source}, line {number}: {pair.task!r} has {pair.id!r} twice. Give each its own id.")
        pairs[pair.key] = pair
    if not pairs:
        raise DataError(f"{source} names no pairs. Write one JSON object per line.")
    return list(pairs.values())


def _pair(data: Any, folder: Path) -> Pair:
    needed = ("task", "id", "positive", "negative")
    if not isinstance(data, Mapping) or not all(isinstance(data.get(name), str) for name in needed):
        raise DataError(f"It is not an object with the texts {', '.join(needed)}. Write one.")
    if unknown := sorted(set(data) - set(_FIELDS)):
        raise DataError(f"It has the unknown {', '.join(unknown)}. A pair has {', '.join(_FIELDS)}.")
    return Pair(**{**data, "positive": folder / data["positive"], "negative": folder / data["negative"]})


def save_pairs(pairs: Iterable[Pair], path: str | Path) -> Path:
    """Write a manifest of pairs. Sound files in its folder get relative names.

    :raises OutputError: the folder does not exist or cannot be written.
    """
    target = Path(path)

    def name(file: Path) -> str:
        folder, whole = target.parent.resolve(), file.resolve()
        return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)

    rows = ({**_known(p), "positive": name(p.positive), "negative": name(p.negative)} for p in pairs)
    with atomic_write(target) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return target


def _known(pair: Pair) -> dict[str, Any]:
    return {name: value for name, value in asdict(pair).items() if value is not None}


def pairs_identity(pairs: Iterable[Pair]) -> str:
    """SHA-256 of the pairs and their sound, whatever their order, shortened to 128 bits.

    :raises DataError: a sound file is not there.
    """
    seen: dict[Path, str] = {}

    def content(file: Path) -> str:
        if file not in seen:
            try:
                seen[file] = sha256(file)
            except OSError as error:
                raise DataError(f"{file} cannot be read ({error.strerror}). Make the pairs again.") from None
        return seen[file]

    def line(p: Pair) -> str:
        return json.dumps(
            {**_known(p), "positive": content(p.positive), "negative": content(p.negative)}, sort_keys=True
        )

    return hashlib.sha256("\n".join(sorted(map(line, pairs))).encode()).hexdigest()[:32]


def score_pairs(
    model: HasLikelihood,
    pairs: Sequence[Pair],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every recording once and count how often the positive wins; a tie is half a win.

    :param seed: of the bootstrap over pairs.
    :param progress: called with how many recordings are scored, and how many there are.
    :returns: ``tasks``: per task what was asked, answered and failed, and per reduction the accuracy (with a
        bootstrap and a Wilson interval) and ties; ``items``: per pair, the scores and who won; ``failures``.
    """
    ordered = sorted(pairs, key=lambda p: p.key)
    files = list(dict.fromkeys(path for p in ordered for path in (p.positive, p.negative)))
    scores: dict[Path, Mapping[str, float]] = {}
    errors: dict[Path, str] = {}
    for n, path in enumerate(files):
        try:
            scores[path] = _scores(model.score(Audio.load(path)))
        except LaliaError as error:
            errors[path] = str(error)
        if progress is not None:
            progress(n + 1, len(files))
    items: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for p in ordered:
        if reasons := [errors[path] for path in (p.positive, p.negative) if path in errors]:
            failures.append({"task": p.task, "id": p.id, "reason": " ".join(reasons)})
            continue
        positive, negative = scores[p.positive], scores[p.negative]
        wins = {name: _win(positive[name], negative[name]) for name in REDUCTIONS}
        items.append({"task": p.task, "id": p.id, "positive": positive, "negative": negative, "wins": wins})
    asked: dict[str, int] = defaultdict(int)
    for p in ordered:
        asked[p.task] += 1
    tasks = {task: _summary([i for i in items if i["task"] == task], n, seed) for task, n in asked.items()}
    return {"tasks": tasks, "items": items, "failures": failures}


def _scores(likelihood: Likelihood) -> dict[str, float]:
    found = {name: float(reduce(likelihood)) for name, reduce in REDUCTIONS.items()}
    if not all(math.isfinite(value) for value in found.values()):
        raise DataError(f"The model scores {likelihood.tokens} tokens with {likelihood.sum}. Check its weights.")
    return {"tokens": likelihood.tokens, "end": float(likelihood.end), **found}


def _win(positive: float, negative: float) -> float:
    return 0.5 if positive == negative else float(positive > negative)


def _summary(items: Sequence[Mapping[str, Any]], asked: int, seed: int) -> dict[str, Any]:
    n = len(items)
    result: dict[str, Any] = {"asked": asked, "answered": n, "failed": asked - n}
    for side in ("positive", "negative"):
        result[f"{side}_tokens"] = sum(i[side]["tokens"] for i in items) / n if n else math.nan
    for name in REDUCTIONS:
        wins = [i["wins"][name] for i in items]
        low, high = wilson(sum(wins), n)
        result[name] = {
            "accuracy": bootstrap_ratio(wins, [1.0] * n, seed=seed).to_dict(),
            "wilson": {"low": low, "high": high},
            "ties": sum(w == 0.5 for w in wins),
        }
    return result
