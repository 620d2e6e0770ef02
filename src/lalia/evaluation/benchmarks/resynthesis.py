"""What of the words survives the way to tokens and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.data import Utterance
from lalia.errors import DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.folders import file_name
from lalia.evaluation.results import data_identity, tool
from lalia.evaluation.resynthesis import AGREEMENT, evaluate_resynthesis
from lalia.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Resynthesis"]

_SIDES = {"resynthesis": "", "original": "_original", "added": "_added"}
_WORDS = {"resynthesis": "{} of the resynthesis", "original": "{} of the original", "added": "the {} that is added"}


class Resynthesis(InSteps):
    """Error rates of the judge on recordings and on their resyntheses, see `evaluation.resynthesis`.

    Figures are against the texts where all recordings have one, else against what the second recogniser hears in the
    originals; the other references are in ``details``.
    """

    name = "resynthesis"
    about = "words lost on the way to tokens and back"
    parts = ("tokenizer", "vocoder")

    def check(self, model: Any) -> None:
        model.resynthesize(questions(1)[0].load())

    def items(self, bench: "Bench") -> list[Item]:
        place = bench.sounds(self.name)
        return [Item.hearing(u.id, u, to=str(place / f"{file_name(u.id)}.flac")) for u in bench.recordings]

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            made = model.resynthesize(item.heard())
            made.check(f"the resynthesis of {item.id}")
            to = Path(item.asks["to"])
            to.parent.mkdir(parents=True, exist_ok=True)
            made.save(to)
            answers.append({"audio": str(to)})
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        recordings = bench.recordings

        def made(u: Utterance, _: Audio) -> Audio:
            if u.id not in kept.answers:
                raise DataError(kept.failed.get(u.id, "There is no answer."))
            return Audio.load(kept.answers[u.id]["audio"])

        found = evaluate_resynthesis(
            made,
            recordings,
            judge=bench.judge,
            second=bench.recognizer,
            normalizer=bench.normalizer,
            seed=bench.seed,
            progress=lambda done, total: bench.progress("judging", done, total),
        )
        if not found["items"]:
            raise DataError(f"No recording could be read: {found['failures'][0]['reason']}")
        reference = "text" if all(u.text is not None for u in recordings) else "second"
        notes = [] if reference == "text" else [f"the reference is what {bench.recognizer.name} hears in the originals"]
        settings = {
            "data": {"identity": data_identity(recordings), "recordings": len(recordings)},
            "reference": reference,
            "agreement": AGREEMENT,
            "judge": tool(bench.judge),
            "second": tool(bench.recognizer),
            "normalizer": tool(bench.normalizer),
        }
        figures = [
            Figure(f"{kind}{suffix}", _WORDS[side].format(kind.upper()), "share", Estimate.from_dict(rates[side]))
            for kind, rates in found["summary"]["all"][reference].items()
            for side, suffix in _SIDES.items()
        ]
        return Found(figures, found["items"], settings, notes, {k: found[k] for k in ("summary", "failures")})
