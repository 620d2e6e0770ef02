"""How many words are written down wrong."""

from dataclasses import asdict
from typing import Any

from lalia.data import Utterance
from lalia.errors import DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.results import data_identity, tool
from lalia.evaluation.statistics import bootstrap_ratio
from lalia.evaluation.text import word_edits

__all__ = ["Transcribe"]

LONGEST = 10.0
"""Seconds; what is longer is left out."""


class Transcribe:
    """WER of what the model writes down, beside that of a recogniser alone.

    The reference is the text of the manifest. Where no utterance has one, it is what the judge hears, whose own errors
    are then in both rates.
    """

    name = "transcribe"
    about = "words written down wrong"

    def check(self, model: Any) -> None:
        model.transcribe(questions(1)[0].load())

    def run(self, bench: Bench) -> Found:
        utterances, given = _utterances(bench)
        texts = [u.text is not None for u in utterances]
        items = []
        for i, u in enumerate(utterances):
            sound = u.load()
            reference = u.text if all(texts) else bench.judge([sound])[0]
            heard = {"model": bench.model.transcribe(sound), "recognizer": bench.recognizer([sound])[0]}
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
            bench.progress("transcribing", i + 1, len(utterances))
        return _found(bench, utterances, given, items, of_judge=not all(texts))


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
