"""Whether what is read out can be understood, and how it sounds."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lalia.audio import Audio
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import sentences
from lalia.evaluation.results import tool
from lalia.evaluation.statistics import bootstrap_ratio, mean
from lalia.evaluation.text import word_edits

__all__ = ["Say"]

_RATINGS = {"ovrl": "OVRL", "sig": "SIG", "bak": "BAK", "p808": "P.808"}


class Say:
    """WER of the judge on the sound against the text, and DNSMOS, over sentences and over replies.

    Where there is no sound, all words are lost, so that failing never pays; it is not rated.
    """

    name = "say"
    about = "speech that is understood, and how it sounds"

    def check(self, model: Any) -> None:
        model.say("Yes.")

    def run(self, bench: Bench) -> Found:
        texts = sentences(bench.limit)
        items = []
        for i, text in enumerate(texts):
            items.append(_item(bench, f"sentence-{i + 1:02d}", text, *_said(bench.model, text)))
            bench.progress("saying", i + 1, len(texts))
        found = _figures(bench, items, "", "")
        notes = []
        if _talks(bench.model):
            replies = [_item(bench, f"reply to {x.question.id}", x.reply.text, x.reply.audio) for x in bench.exchanges]
            items += replies
            found += _figures(bench, replies, "replies_", "replies: ")
        else:
            notes.append("the model holds no conversation, so there are no replies to judge")
        rater: Any = bench.rater
        notes += [note for note in bench.notes if note not in notes]
        return Found(found, items, {"judge": tool(bench.judge), "rater": None if rater is None else tool(rater)}, notes)


def _talks(model: Any) -> bool:
    try:
        model.dialogue(speak=False)
    except (LaliaError, AttributeError):
        return False
    return True


def _said(model: Any, text: str) -> tuple[Audio | None, str | None]:
    try:
        made: Audio = model.say(text)
        made.check("the sound")
    except LaliaError as error:
        return None, str(error)
    return made, None


def _item(bench: Bench, name: str, text: str, sound: Audio | None, failure: str | None = None) -> dict[str, Any]:
    heard = "" if sound is None else bench.judge([sound])[0]
    rated = None if sound is None or bench.rater is None else asdict(bench.rater(sound))
    return {
        "id": name,
        "text": text,
        "heard": heard,
        "seconds": 0.0 if sound is None else sound.seconds,
        "edits": asdict(edits := word_edits(bench.normalizer(text), bench.normalizer(heard))),
        "errors": edits.errors,
        "words": edits.length,
        "ratings": rated,
        "failure": failure,
    }


def _figures(bench: Bench, items: Sequence[dict[str, Any]], prefix: str, label: str) -> list[Figure]:
    rate = bootstrap_ratio([x["errors"] for x in items], [x["words"] for x in items], seed=bench.seed)
    found = [Figure(f"{prefix}wer", f"{label}WER of {bench.judge.name}", "share", rate)]
    rated = [x["ratings"] for x in items if x["ratings"] is not None]
    for key, about in _RATINGS.items() if rated else ():
        rating = mean([x[key] for x in rated], seed=bench.seed)
        found.append(Figure(f"{prefix}{key}", f"{label}DNSMOS {about}", "MOS", rating))
    return found
