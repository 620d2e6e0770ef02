"""Whether the better of two recordings is found more likely: by the model, by a text model, by a cascade."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.baselines import baselines
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.benchmarks.told import Told
from lalia.evaluation.pair_scores import REDUCTIONS, Member, judge_pairs, likelihood
from lalia.evaluation.pairs import Pair, contents, pairs_identity
from lalia.evaluation.public_pairs import read_pairs
from lalia.evaluation.sets import MINI_SETS, cached_set, set_place
from lalia.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["MinimalPairs", "OfItsOwn"]

_WORDS = {
    "sum": "log p",
    "mean": "log p per token",
    "continuation": "log p behind the prompt",
    "continuation_mean": "the same per token",
    "pmi": "log p behind the prompt, less without it",
}


class MinimalPairs(InSteps):
    """Accuracy over the pairs of a manifest or of a public set (see `read_pairs`), in every way in which token
    log-probabilities become a score.

    Each recording is scored once, and what follows a prompt once more by itself; all else is arithmetic on that.

    :param name: of the benchmark.
    :param about: what is asked, in words.
    """

    parts = ("tokenizer", "lm")

    def __init__(self, name: str = "pairs", about: str = "the better recording of two is found more likely") -> None:
        self.name, self.about = name, about

    def check(self, model: Any) -> None:
        model.score(questions(1)[0].load())

    def manifest(self, bench: "Bench") -> Path:
        """The file of the pairs, or the folder of a public set."""
        if bench.path is None:
            raise DataError("No pairs were named. Name their manifest (JSON Lines) or a public set with --data.")
        own = bench.path / "pairs.jsonl"
        return own if own.is_file() else bench.path

    def shared(self, bench: "Bench") -> Path | None:
        """The folder in which the answers of what every model is compared with are kept."""
        return None if bench.folder is None else bench.folder / self.name

    def pairs(self, bench: "Bench") -> tuple[list[Pair], Path]:
        """Those that are asked, in an order of their own, and the folder that they are in."""
        source = self.manifest(bench)
        pairs = sorted(read_pairs(source), key=lambda p: p.key)
        root = source if source.is_dir() else source.parent
        if bench.limit is None:
            return pairs, root
        first: dict[str, dict[str, None]] = {}
        for p in pairs:
            first.setdefault(p.task, {}).setdefault(p.id)
        kept = {(task, name) for task, names in first.items() for name in list(names)[: bench.limit]}
        return [p for p in pairs if (p.task, p.id) in kept], root

    def items(self, bench: "Bench") -> list[Item]:
        found: dict[str, Item] = {}
        pairs, root = self.pairs(bench)
        sound = contents(pairs)
        for pair in pairs:
            for path in (pair.positive, pair.negative):
                for start in (0.0,) if pair.split is None else (0.0, pair.split):
                    name = _name(path, root, start)
                    found[name] = Item(name, {"path": str(path), "from": start}, sound[path][:32])
        return list(found.values())

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        recordings = [Audio.load(i.asks["path"]) for i in items]
        cut = [a.cut(i.asks["from"]) if i.asks["from"] else a for a, i in zip(recordings, items, strict=True)]
        return [Told.of(one).to_dict() for one in likelihood(model, cut)]

    def score(self, bench: "Bench", kept: Kept) -> Found:
        pairs, root = self.pairs(bench)
        members, reasons = {}, {}
        for pair in pairs:
            both = [_member(path, root, pair.split, kept.answers) for path in (pair.positive, pair.negative)]
            members[pair.key] = (both[0], both[1])
            names = [_name(path, root, s) for path in (pair.positive, pair.negative) for s in {0.0, pair.split or 0.0}]
            reasons[pair.key] = " ".join(dict.fromkeys(kept.failed[n] for n in names if n in kept.failed))
        judged = judge_pairs(pairs, members, reasons, seed=bench.seed)
        figures = [f for task, found in judged["tasks"].items() for f in _figures(task, found, len(judged["tasks"]))]
        counts = {
            task: {k: found[k] for k in ("asked", "answered", "failed")} for task, found in judged["tasks"].items()
        }
        failed = sum(c["failed"] for c in counts.values())
        others, notes = baselines(bench, pairs, self.shared(bench))
        if failed:
            notes.append(f"{failed} of {len(pairs)} pairs have no score: {judged['failures'][0]['reason']}")
        return Found(
            [*figures, *others],
            judged["items"],
            {
                "data": {"identity": pairs_identity(pairs), "pairs": len(pairs)},
                "reductions": dict(_WORDS),
                "counts": counts,
            },
            notes,
            {"kinds": judged["kinds"], "failures": judged["failures"]},
        )


class OfItsOwn(MinimalPairs):
    """A set that lalia makes, where it is asked for first: see ``lalia.evaluation.sets``.

    It lies in the cache, and so does what others answer to it; ``bench.path`` names another set of its kind.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, MINI_SETS[name].asks)

    def manifest(self, bench: "Bench") -> Path:
        if bench.path is not None:
            return super().manifest(bench)
        return cached_set(self.name, lambda done, total: bench.progress("making", done, total)) / "pairs.jsonl"

    def shared(self, bench: "Bench") -> Path | None:
        return super().shared(bench) if bench.path is not None else set_place(f"answers-to-{self.name}")


def _name(path: Path, root: Path, start: float) -> str:
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return name if not start else f"{name}@{start:.3f}"


def _member(path: Path, root: Path, split: float | None, answers: Mapping[str, Answer]) -> Member | None:
    names = [_name(path, root, 0.0), *([] if split is None else [_name(path, root, split)])]
    if any(name not in answers for name in names):
        return None
    whole, *alone = (Told(**answers[name]) for name in names)
    return Member(whole, split, alone[0] if alone else None)


def _figures(task: str, found: Mapping[str, Any], tasks: int) -> list[Figure]:
    label = f"{task}: " if tasks > 1 else ""
    figures = [
        Figure(f"{task}.{name}", f"{label}{words}", "share", Estimate(**found[name]["accuracy"]))
        for name, words in _WORDS.items()
        if name in REDUCTIONS and name in found
    ]
    return figures + [
        Figure(f"{task}.in_vocab_{name}", f"{label}{_WORDS[name]}, in vocabulary", "share", Estimate(**value))
        for name, value in found.get("in_vocab", {}).items()
    ]
