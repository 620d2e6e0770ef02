"""Does a model find the better of two recordings more likely? Accuracies out of token log-probabilities."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.errors import DataError, LaliaError
from lalia.evaluation.pairs import Pair
from lalia.evaluation.protocols import HasLikelihood, Likelihood
from lalia.evaluation.statistics import bootstrap_ratio, wilson

__all__ = ["OOV", "REDUCTIONS", "TIE", "Member", "judge_pairs", "judge_scores", "likelihood", "score_pairs"]

OOV = "oov"
"""The kind of words that the training data does not have (sWUGGY): an accuracy without them is given too."""

TIE = 1e-5
"""Nats per token by which two scores differ at most that are one: what stands in a batch beside a recording, and how
many processes there are, changes the last digits."""


@dataclass(frozen=True)
class Member:
    """One recording of a pair, as a model finds it.

    :param split: seconds up to which it is the prompt, where it has one.
    :param alone: of what follows the prompt, by itself.
    """

    whole: Likelihood
    split: float | None = None
    alone: Likelihood | None = None

    @property
    def continuation(self) -> list[float]:
        """Log-probabilities of the tokens that begin behind the prompt; of all where there is none."""
        split = self.split or 0.0
        starts = self.whole.starts
        return [p for p, t in zip(self.whole.log_probs, starts, strict=True) if t >= split - 1e-6]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


REDUCTIONS: Mapping[str, Callable[[Member], float | None]] = {
    "sum": lambda m: m.whole.sum,
    "mean": lambda m: m.whole.sum / m.whole.tokens if m.whole.tokens else math.nan,
    "continuation": lambda m: None if m.split is None else math.fsum(m.continuation),
    "continuation_mean": lambda m: None if m.split is None else _mean(m.continuation),
    "pmi": lambda m: None if m.alone is None else math.fsum(m.continuation) - m.alone.sum,
}
"""How the log-probabilities of a recording become one score; None where they cannot.

A sum favours the recording with fewer tokens, a mean the one whose tokens are easy; where members differ in tokens the
two can disagree, so both are reported. Over the whole, a change at the end weighs little (arXiv:2601.06329): the
window behind the prompt, and what the prompt adds to it, log p(continuation | prompt) - log p(continuation), weigh it
alone."""


def likelihood(model: HasLikelihood, recordings: Sequence[Audio]) -> list[Likelihood]:
    """Of several recordings, at once where the model can.

    :raises DataError: what it gives is no number.
    """
    together = getattr(model, "score_all", None)
    found = [model.score(a) for a in recordings] if together is None else list(together(recordings))
    for one in found:
        if not all(map(math.isfinite, (one.sum, one.end))):
            raise DataError(f"The model scores {one.tokens} tokens with {one.sum}. Check its weights.")
    return found


def score_pairs(
    model: HasLikelihood,
    pairs: Sequence[Pair],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every recording once, whole, and count how often the positive wins; see `judge_pairs`.

    :param progress: called with how many recordings are scored, and how many there are.
    """
    ordered = sorted(pairs, key=lambda p: p.key)
    files = list(dict.fromkeys(path for p in ordered for path in (p.positive, p.negative)))
    scores: dict[Any, Member] = {}
    errors: dict[Any, str] = {}
    for n, path in enumerate(files):
        try:
            scores[path] = Member(likelihood(model, [Audio.load(path)])[0])
        except LaliaError as error:
            errors[path] = str(error)
        if progress is not None:
            progress(n + 1, len(files))
    members = {p.key: (scores.get(p.positive), scores.get(p.negative)) for p in ordered}
    reasons = {p.key: " ".join(errors[path] for path in (p.positive, p.negative) if path in errors) for p in ordered}
    return judge_pairs(ordered, members, reasons, seed=seed)


def judge_pairs(
    pairs: Sequence[Pair],
    members: Mapping[tuple[str, str, str], tuple[Member | None, Member | None]],
    reasons: Mapping[tuple[str, str, str], str],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Count how often the positive wins; a tie is half a win.

    The accuracy of a task is the mean over its pairs, each of which is the mean over the voices that read it (sWUGGY
    and sBLIMP of ZeroSpeech 2021); so are the resamples drawn.

    :param members: positive and negative by the key of the pair; None where one has no score.
    :param reasons: why not.
    :param seed: of the bootstrap over pairs, or over groups of them.
    :returns: ``tasks``: per task what was asked, answered and failed, and per reduction the accuracy (with a
        bootstrap and a Wilson interval) and ties, and, where it has words of the kind ``oov``, ``in_vocab``: the
        accuracies over the kinds but that, weighted by their pairs; ``kinds``: the accuracies of each kind; ``items``:
        per pair and voice, the scores and who won; ``failures``.
    """
    items: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    asked: dict[str, int] = defaultdict(int)
    for p in sorted(pairs, key=lambda p: p.key):
        asked[p.task] += 1
        known = {"voice": p.voice, "group": p.group}
        named = {"task": p.task, "id": p.id, **{k: v for k, v in known.items() if v is not None}}
        positive, negative = members[p.key]
        if positive is None or negative is None:
            failures.append({**named, "reason": reasons[p.key]})
            continue
        told = [_scores(m) for m in (positive, negative)]
        wins = {
            name: _win(told[0][name], told[1][name], 1 if name.endswith("mean") else max(m["tokens"] for m in told))
            for name in REDUCTIONS
            if name in told[0] and name in told[1]
        }
        kind = {} if p.kind is None else {"kind": p.kind, "subtype": p.subtype}
        items.append({**named, **kind, "positive": told[0], "negative": told[1], "wins": wins})
    tasks = {task: _summary([i for i in items if i["task"] == task], n, seed) for task, n in asked.items()}
    for task, found in tasks.items():
        for side in ("positive", "negative"):
            tokens = [i[side]["tokens"] for i in items if i["task"] == task]
            found[f"{side}_tokens"] = sum(tokens) / len(tokens) if tokens else math.nan
    return {"tasks": tasks, "kinds": _kinds(items, seed), "items": items, "failures": failures}


def judge_scores(pairs: Sequence[Pair], scores: Mapping[Path, float], *, seed: int = 0) -> dict[str, Any]:
    """The same of recordings that have one score each, wherever it is from; only equal scores are a tie.

    :param scores: by recording; higher is better.
    :returns: as `judge_pairs`, with ``score`` for a reduction.
    """
    items: list[dict[str, Any]] = []
    asked: dict[str, int] = defaultdict(int)
    for p in sorted(pairs, key=lambda p: p.key):
        asked[p.task] += 1
        a, b = scores[p.positive], scores[p.negative]
        known = {"voice": p.voice, "kind": p.kind, "subtype": p.subtype, "group": p.group}
        named = {"task": p.task, "id": p.id, **{k: v for k, v in known.items() if v is not None}}
        items.append({**named, "positive": a, "negative": b, "wins": {"score": (a > b) + 0.5 * (a == b)}})
    of_task = {task: [i for i in items if i["task"] == task] for task in asked}
    tasks = {task: _summary(of_task[task], n, seed, ("score",)) for task, n in asked.items()}
    return {"tasks": tasks, "kinds": _kinds(items, seed, ("score",)), "items": items, "failures": []}


def _scores(member: Member) -> dict[str, float]:
    found = {name: value for name, reduce in REDUCTIONS.items() if (value := reduce(member)) is not None}
    return {"tokens": member.whole.tokens, "end": float(member.whole.end), **found}


def _win(positive: float, negative: float, tokens: float) -> float:
    return 0.5 if abs(positive - negative) <= TIE * tokens else float(positive > negative)


def _by_pair(items: Sequence[Mapping[str, Any]], reduction: str) -> dict[Any, float]:
    """The wins of each pair, the mean over its voices; a pair's name begins with its group."""
    wins: dict[Any, list[float]] = defaultdict(list)
    for i in items:
        if reduction in i["wins"]:
            name = (i.get("kind"), i.get("subtype"), i["id"])
            wins[i.get("group") or name, name].append(i["wins"][reduction])
    return {name: sum(w) / len(w) for name, w in wins.items()}


def _accuracy(wins: Mapping[Any, float], seed: int) -> dict[str, Any]:
    """The mean over pairs; what is drawn anew are groups of them."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for (group, _), win in wins.items():
        groups[group].append(win)
    return bootstrap_ratio(
        [sum(w) for w in groups.values()], [float(len(w)) for w in groups.values()], seed=seed
    ).to_dict()


def _summary(
    items: Sequence[Mapping[str, Any]], asked: int, seed: int, names: Iterable[str] = tuple(REDUCTIONS)
) -> dict[str, Any]:
    n = len(items)
    result: dict[str, Any] = {"asked": asked, "answered": n, "failed": asked - n}
    for name in names:
        wins = _by_pair(items, name)
        if not wins and name in ("continuation", "continuation_mean", "pmi"):
            continue
        low, high = wilson(sum(wins.values()), len(wins))
        result[name] = {
            "accuracy": _accuracy(wins, seed),
            "wilson": {"low": low, "high": high},
            "ties": sum(i["wins"].get(name) == 0.5 for i in items),
        }
    if any(i.get("kind") == OOV for i in items):
        known = [i for i in items if i.get("kind") not in (None, OOV)]
        # The mean over bands of words, each weighted by its pairs, is the mean over their pairs.
        result["in_vocab"] = {name: _accuracy(wins, seed) for name in names if (wins := _by_pair(known, name))}
    return result


def _kinds(
    items: Sequence[Mapping[str, Any]], seed: int, names: Iterable[str] = tuple(REDUCTIONS)
) -> dict[str, dict[str, dict[str, Any]]]:
    """Accuracies by task and kind: task -> kind -> reduction -> estimate."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for i in items:
        if i.get("kind") is not None:
            groups[i["task"], i["kind"]].append(i)
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for (task, kind), group in sorted(groups.items()):
        found[task][kind] = {n: _accuracy(wins, seed) for n in names if (wins := _by_pair(group, n))}
    return dict(found)
