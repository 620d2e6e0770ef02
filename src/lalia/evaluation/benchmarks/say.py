"""Whether what is read out can be understood, and how it sounds."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import questions, sentences
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.results import tool
from lalia.evaluation.statistics import bootstrap_ratio, mean
from lalia.evaluation.text import word_edits

__all__ = ["Say"]

_RATINGS = {"ovrl": "OVRL", "sig": "SIG", "bak": "BAK", "p808": "P.808"}


class Say(InSteps):
    """WER of the judge on the sound against the text, and DNSMOS, over sentences and over replies.

    Where there is no sound, all words are lost, so that failing never pays; it is not rated.
    """

    name = "say"
    about = "speech that is understood, and how it sounds"
    one_by_one = True

    def check(self, model: Any) -> None:
        model.say("Yes.")

    def items(self, bench: Bench) -> list[Item]:
        place, found = bench.sounds(self.name), []
        for i, text in enumerate(sentences(bench.limit)):
            item = Item.of(f"sentence-{i + 1:02d}", {"text": text})
            found.append(replace(item, asks={"text": text, "to": str(place / f"{item.id}.flac")}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for x in (i.asks for i in items):
            made: Audio = model.say(x["text"])
            made.check("the sound")
            Path(x["to"]).parent.mkdir(parents=True, exist_ok=True)
            made.save(x["to"])
            answers.append({"text": x["text"], "audio": x["to"], "seconds": made.seconds})
        return answers

    def answers(self, bench: Bench) -> Kept:
        """Sentences, and the replies of a model that gives any."""
        read, talked = super().answers(bench), bench.exchanges.own
        if not talked.answers:
            return read
        replies = {_reply(key): {**a, "text": a["reply"]} for key, a in talked.answers.items()}
        unanswered = {_reply(key): reason for key, reason in talked.failed.items()}
        return replace(read, answers=read.answers | replies, failed=read.failed | unanswered)

    def score(self, bench: Bench, kept: Kept) -> Found:
        items = []
        for i, text in enumerate(texts := sentences(bench.limit)):
            name = f"sentence-{i + 1:02d}"
            items.append(_item(bench, name, text, kept.answers.get(name), kept.failed.get(name)))
            bench.progress("judging", i + 1, len(texts))
        found = _figures(bench, items, "", "")
        notes = []
        replies = [
            _item(bench, key, answer["text"], answer)
            for key, answer in ((key, kept.answers.get(key)) for key in (_reply(q.id) for q in questions(bench.limit)))
            if answer is not None
        ]
        if replies:
            items += replies
            found += _figures(bench, replies, "replies_", "replies: ")
        else:
            notes.append("the model holds no conversation, so there are no replies to judge")
        rater: Any = bench.rater
        notes += [note for note in bench.notes if note not in notes]
        return Found(found, items, {"judge": tool(bench.judge), "rater": None if rater is None else tool(rater)}, notes)


def _reply(question: str) -> str:
    return f"reply to {question}"


def _item(bench: Bench, name: str, text: str, answer: Answer | None, failure: str | None = None) -> dict[str, Any]:
    file = None if answer is None else answer["audio"]
    sound = None if file is None else Audio.load(file, check=False)
    heard = "" if sound is None else bench.judge([sound])[0]
    rated = None if sound is None or bench.rater is None else asdict(bench.rater(sound))
    return {
        "id": name,
        "text": text,
        "heard": heard,
        "seconds": 0.0 if answer is None else answer["seconds"],
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
