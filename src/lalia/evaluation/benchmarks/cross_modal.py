"""Stories whose beginning is heard or read, and so each ending: all four ways, as far as a model can be asked."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lalia.errors import DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.benchmarks.told import Told
from lalia.evaluation.pair_scores import Member, judge_pairs
from lalia.evaluation.public_pairs import Modality, find_stories, read_cross_modal, read_part
from lalia.evaluation.public_pairs.cross_modal import Crossed
from lalia.evaluation.statistics import Estimate
from lalia.files import sha256

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["CrossModal"]

_WAYS: tuple[tuple[Modality, Modality], ...] = tuple(product(get_args(Modality), repeat=2))
_SHOWN = {"mean": "log p per token", "sum": "log p"}
"""slamkit compares means over all tokens, beginning and all."""


class CrossModal(InSteps):
    """StoryCloze in the folders of slamkit, with texts beside the recordings (see `read_cross_modal`).

    A model is asked for the likelihood of a beginning with an ending behind it (``score_parts``). One that reads no
    text is asked about speech behind speech alone: why not about the rest is told.
    """

    name = "cross-modal"
    about = "the right ending of a story is found more likely, heard or read"
    one_by_one = True

    def check(self, model: Any) -> None:
        model.score_parts([questions(1)[0].load()])

    def _stories(self, bench: "Bench") -> Mapping[tuple[Modality, Modality], list[Crossed]]:
        if bench.path is None or not bench.path.is_dir():
            raise DataError(
                "No folder of stories was named. Name one with <id>_{correct,incorrect,mutual}.{wav,txt} with --data."
            )
        folders = find_stories(bench.path)
        if not folders:
            raise DataError(f"{bench.path} has no stories. Each is <id>_{{correct,incorrect,mutual}}.{{wav,txt}}.")
        return {way: [s for f in folders for s in read_cross_modal(f, *way)[: bench.limit]] for way in _WAYS}

    def items(self, bench: "Bench") -> list[Item]:
        found: list[Item] = []
        seen: dict[Path, str] = {}
        for story in (s for stories in self._stories(bench).values() for s in stories):
            for ending in (story.pair.positive, story.pair.negative):
                files = {"prompt": story.prompt, "ending": ending}
                for path in files.values():
                    seen.setdefault(path, sha256(path))
                asks = {name: str(path) for name, path in files.items()}
                found.append(Item.of(_name(story, ending), asks, {name: seen[p] for name, p in files.items()}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        parts = [[read_part(Path(i.asks[name])) for name in ("prompt", "ending")] for i in items]
        return [Told.of(model.score_parts(both)).to_dict() for both in parts]

    def score(self, bench: "Bench", kept: Kept) -> Found:
        figures: list[Figure] = []
        notes: list[str] = []
        details: dict[str, Any] = {"counts": {}, "failures": []}
        items: list[Mapping[str, Any]] = []
        asked = self._stories(bench)
        for (prompt, ending), stories in asked.items():
            members, reasons = {}, {}
            for s in stories:
                names = [_name(s, path) for path in (s.pair.positive, s.pair.negative)]
                right, wrong = (Member(Told(**kept.answers[n])) if n in kept.answers else None for n in names)
                members[s.pair.key] = right, wrong
                reasons[s.pair.key] = " ".join(dict.fromkeys(kept.failed[n] for n in names if n in kept.failed))
            judged = judge_pairs([s.pair for s in stories], members, reasons, seed=bench.seed)
            for task, found in judged["tasks"].items():
                counts = {k: found[k] for k in ("asked", "answered", "failed")}
                details["counts"][task] = counts
                words = task.removesuffix(f"-{prompt}-{ending}").removeprefix("StoryCloze-")
                label = f"{words}, {ending} behind {prompt}"
                if found["answered"]:
                    figures += [
                        Figure(f"{task}.{key}", f"{label}: {about}", "share", Estimate(**found[key]["accuracy"]))
                        for key, about in _SHOWN.items()
                    ]
                if found["failed"]:
                    reason = next(x["reason"] for x in judged["failures"] if x["task"] == task)
                    notes.append(f"{label}: {found['failed']} of {found['asked']} have no score: {reason}")
            items += judged["items"]
            details["failures"] += judged["failures"]
        return Found(figures, items, {"reductions": dict(_SHOWN)}, notes, details)


def _name(story: Crossed, ending: Path) -> str:
    side = "correct" if ending == story.pair.positive else "incorrect"
    return f"{story.pair.task}/{story.pair.id}/{side}"
