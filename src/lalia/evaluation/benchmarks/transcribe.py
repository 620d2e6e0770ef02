"""How many words are written down wrong."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from lalia.data import Utterance
from lalia.errors import AudioError, DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps, collect
from lalia.evaluation.folders import file_name
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.results import data_identity, tool
from lalia.evaluation.statistics import bootstrap_ratio
from lalia.evaluation.text import word_edits

__all__ = ["Transcribe"]

LONGEST = 10.0
"""Seconds; what is longer is left out."""


class Transcribe(InSteps):
    """WER of what the model writes down, beside that of a recogniser alone.

    The reference is the text of the manifest. Where no utterance has one, it is what the judge hears, whose own errors
    are then in both rates. Where nothing is written down, all words are lost, so that failing never pays.
    """

    name = "transcribe"
    about = "words written down wrong"
    one_by_one = True

    def check(self, model: Any) -> None:
        model.transcribe(questions(1)[0].load())

    def items(self, bench: Bench) -> list[Item]:
        return [Item.hearing(u.id, u) for u in _utterances(bench)[0]]

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        return [{"text": model.transcribe(i.heard())} for i in items]

    def answers(self, bench: Bench) -> Kept:
        own, alone = super().answers(bench), bench.recognizer
        kept = Kept(bench.place(self.name, f"heard-by-{file_name(alone.name)}"), {"recognizer": tool(alone)})
        return replace(own, peer=collect(_hear, self.items(bench), kept, bench.instead(alone), size=1))

    def score(self, bench: Bench, kept: Kept) -> Found:
        assert kept.peer is not None
        utterances, given = _utterances(bench)
        if not kept.answers:
            raise DataError(f"Nothing was written down: {next(iter(kept.failed.values()))}")
        texts = [u.text is not None for u in utterances]
        items = []
        for i, u in enumerate(utterances):
            reference = u.text if all(texts) else _judged(bench, u)
            sides = {"model": kept, "recognizer": kept.peer}
            heard = {side: of.answers[u.id]["text"] if u.id in of.answers else "" for side, of in sides.items()}
            normal = bench.normalizer(reference or "")
            edits = {side: word_edits(normal, bench.normalizer(text)) for side, text in heard.items()}
            items.append(
                {
                    "id": u.id,
                    "speaker": u.speaker,
                    "seconds": u.duration,
                    "reference": reference,
                    "heard": heard,
                    "edits": {side: asdict(e) for side, e in edits.items()},
                    "errors": {side: e.errors for side, e in edits.items()},
                    "words": len(normal.split()),
                }
            )
            bench.progress("judging", i + 1, len(utterances))
        return _found(bench, utterances, given, items, of_judge=not all(texts))


def _hear(recognizer: Recognizer, items: Sequence[Item]) -> Sequence[Answer]:
    return [{"text": text} for text in recognizer([i.heard() for i in items])]


def _judged(bench: Bench, u: Utterance) -> str:
    """What the judge hears; nothing where nobody could hear anything."""
    try:
        return bench.judge([u.load()])[0]
    except AudioError:
        return ""


def _utterances(bench: Bench) -> tuple[list[Utterance], int]:
    """Those that are short enough, ordered by id, and how many there are in all."""
    if bench.data is None:
        kept = [question.utterance for question in questions(bench.limit)]
        return kept, len(kept)
    short = sorted((u for u in bench.data if u.duration <= LONGEST), key=lambda u: u.id)
    if not short:
        raise DataError(f"None of {len(bench.data)} utterances lasts at most {LONGEST:g} s. Give shorter ones.")
    return short[: bench.limit], len(bench.data)


def _found(bench: Bench, utterances: list[Utterance], given: int, items: list[Any], *, of_judge: bool) -> Found:
    words = [x["words"] for x in items]
    errors = {side: [x["errors"][side] for x in items] for side in ("model", "recognizer")}
    added = [a - b for a, b in zip(errors["model"], errors["recognizer"], strict=True)]
    alone = bench.recognizer.name
    notes = [f"{len(items)} of {given} utterances, those of at most {LONGEST:g} s"]
    if bench.data is None:
        notes = ["the bundled questions, which are synthetic speech; --data DIR measures real one"]
    if of_judge:
        notes.append(f"the reference is what {bench.judge.name} hears, for not every utterance has a text")
    settings = {
        "longest": LONGEST,
        "data": {"identity": data_identity(utterances), "utterances": len(items), "given": given},
        "reference": bench.judge.name if of_judge else "text",
        "recognizer": tool(bench.recognizer),
    }
    return Found(
        [
            Figure("wer", "WER", "share", bootstrap_ratio(errors["model"], words, seed=bench.seed)),
            Figure(
                "wer_alone", f"WER of {alone}", "share", bootstrap_ratio(errors["recognizer"], words, seed=bench.seed)
            ),
            Figure("wer_added", "the difference", "share", bootstrap_ratio(added, words, seed=bench.seed)),
        ],
        items,
        settings,
        notes,
    )
