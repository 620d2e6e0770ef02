"""How well the language model of speech foresees recordings."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lalia.errors import DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.pair_scores import likelihood
from lalia.evaluation.results import data_identity
from lalia.evaluation.statistics import bootstrap_ratio

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Likelihood"]


class Likelihood(InSteps):
    """Bits that the language model needs for a second of speech, and for a token: log p in base 2, over all recordings.

    Of models over the same tokens, the one that needs fewer bits foresees speech better, and this tells them apart on
    far less speech than pairs do. Over other tokens the figures say nothing: a tokenizer that hears less has less to
    be foreseen.
    """

    name = "likelihood"
    about = "how well speech is foreseen"
    parts = ("tokenizer", "lm")

    def check(self, model: Any) -> None:
        likelihood(model, [questions(1)[0].load()])

    def items(self, bench: "Bench") -> list[Item]:
        return [Item.hearing(u.id, u) for u in bench.recordings]

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        heard = [i.heard() for i in items]
        scored = likelihood(model, heard)
        return [
            {"log_prob": round(s.sum, 4), "tokens": s.tokens, "seconds": a.seconds}
            for s, a in zip(scored, heard, strict=True)
        ]

    def score(self, bench: "Bench", kept: Kept) -> Found:
        recordings = bench.recordings
        items: list[Mapping[str, Any]] = [{"id": key, **answer} for key, answer in sorted(kept.answers.items())]
        if not items:
            raise DataError(f"No recording was scored: {next(iter(kept.failed.values()), 'there is none')}")
        bits = [-i["log_prob"] / math.log(2) for i in items]
        of_speech, of_tokens = (
            bootstrap_ratio(bits, [float(i[over]) for i in items], seed=bench.seed) for over in ("seconds", "tokens")
        )
        figures = [
            Figure("bits_per_second", "bits for a second of speech", "bit/s", of_speech),
            Figure("bits_per_token", "bits for a token", "bit", of_tokens),
        ]
        return Found(
            figures,
            items,
            {"data": {"identity": data_identity(recordings), "recordings": len(recordings)}},
            ["comparable among models over the same tokens alone"],
        )
