"""Whether a spoken question is answered as if it were typed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lalia.errors import DataError
from lalia.evaluation.benchmarks.base import Figure, Found, Unit
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import Question, questions
from lalia.evaluation.benchmarks.kept import Answer, Kept
from lalia.evaluation.benchmarks.steps import TwoSteps
from lalia.evaluation.statistics import mean, share
from lalia.evaluation.text import word_edits

__all__ = ["Answers", "overlap", "same_content"]

SAME = 0.5
"""The F1 of content words from which on two replies say the same."""

_EMPTY = frozenset(
    """
    a about all also am an and any are as at be been but by can could did do does for from had has have he her him his
    how i if in into is it its may me might more most my of on or our she should so some such than that the their them
    then there these they this those to too up us very was we were what when where which who will with would you your
    sure well
    """.split()  # noqa: SIM905  a line a word would be seventy lines
)
"""Words that say little of what a reply is about."""


def overlap(first: str, second: str) -> float:
    """F1 of the content words of two normalised texts, each as often as it occurs; of all words where one has none."""
    a, b = (Counter(text.split()) for text in (first, second))
    content_a, content_b = (Counter({w: n for w, n in bag.items() if w not in _EMPTY}) for bag in (a, b))
    if content_a and content_b:
        a, b = content_a, content_b
    if not a or not b:
        return float(a == b)
    return 2 * (a & b).total() / (a.total() + b.total())


def same_content(first: str, second: str, key: tuple[str, ...] = ()) -> bool:
    """Whether two normalised replies to one question say the same.

    Where the question has a key answer and either reply has it, both must: "the capital is Paris" and "the capital is
    Lyon" share half of their words. A yes is not a no. Otherwise the F1 of their content words is at least 0.5.

    :param key: words any of which a right answer has.
    """
    right = [bool(set(key) & set(text.split())) for text in (first, second)]
    if any(right):
        return all(right)
    opposite = {text.split(maxsplit=1)[0] for text in (first, second) if text} == {"yes", "no"}
    return not opposite and overlap(first, second) >= SAME


class Answers(TwoSteps):
    """The reply to a spoken question against that to the same question typed, both greedy.

    It is the reply of the model itself that is the reference: right and wrong answers count alike. Content is compared
    by ``same_content`` after Whisper's normalisation. With a peer, whose reference is its own reply too, the difference
    is taken question by question. Where either reply is missing, nothing is the same, so that failing never pays.
    """

    name = "answers"
    about = "spoken questions, answered as if typed"

    def check(self, model: Any) -> None:
        model.dialogue(speak=False)

    def settings(self, bench: Bench) -> Mapping[str, Any]:
        return bench.talking

    def answers(self, bench: Bench) -> Kept:
        spoken = bench.exchanges
        own = _both(bench, spoken.own)
        if bench.against is None or spoken.peer is None:
            return own
        return replace(own, peer=_both(bench.against, spoken.peer))

    def score(self, bench: Bench, kept: Kept) -> Found:
        if not kept.answers:
            raise DataError(f"No question was answered: {next(iter(kept.failed.values()))}")
        items = []
        for i, question in enumerate(asked := questions(bench.limit)):
            items.append(
                {
                    "id": question.id,
                    "speaker": question.utterance.speaker,
                    "question": question.text,
                    **_compared(bench, kept, question),
                }
            )
            if kept.peer is not None:
                items[-1]["peer"] = _compared(bench, kept.peer, question)
            bench.progress("comparing", i + 1, len(asked))
        found = _figures(bench, items, "", "")
        if kept.peer is not None:
            peers = [x["peer"] for x in items]
            found += _figures(bench, peers, "peer_", f"{bench.peer_name}: ")
            for key, (about, unit) in _FIGURES.items():
                added = mean([a[key] - b[key] for a, b in zip(items, peers, strict=True)], seed=bench.seed)
                found.append(Figure(f"{key}_added", f"{about}: more than {bench.peer_name}", unit, added))
        return Found(found, items, {"same_from": SAME, **self.settings(bench), "peer": bench.peer_name})


def _both(bench: Bench, spoken: Kept) -> Kept:
    """What was heard of each question, the reply to it, and that to the question typed."""
    texts = {q.id: q.text for q in questions(bench.limit)}
    typed = bench.typed(texts.values())
    found: dict[str, Answer] = {
        key: {"heard": a["heard"], "reply": a["reply"], "typed": typed.answers[texts[key]]["reply"]}
        for key, a in spoken.answers.items()
        if texts[key] in typed.answers
    }
    failed = {key: spoken.failed.get(key) or typed.failed[text] for key, text in texts.items() if key not in found}
    return Kept(None, spoken.header, found, failed)


_FIGURES: Mapping[str, tuple[str, Unit]] = {
    "same_content": ("the same content", "share"),
    "same_words": ("word for word the same", "share"),
    "overlap": ("F1 of content words", "ratio"),
    "heard_right": ("heard without an error", "share"),
}


def _figures(bench: Bench, items: Sequence[Mapping[str, Any]], prefix: str, label: str) -> list[Figure]:
    found = []
    for key, (about, unit) in _FIGURES.items():
        values = [x[key] for x in items]
        estimate = share(values) if unit == "share" else mean(values, seed=bench.seed)
        found.append(Figure(prefix + key, label + about, unit, estimate))
    return found


def _compared(bench: Bench, kept: Kept, question: Question) -> dict[str, Any]:
    if question.id not in kept.answers:
        nothing = {"heard": "", "typed_reply": "", "spoken_reply": "", "overlap": 0.0}
        return {**nothing, **dict.fromkeys(("same_content", "same_words", "heard_right"), False)}
    answer, normalize = kept.answers[question.id], bench.normalizer
    a, b = normalize(answer["reply"]), normalize(answer["typed"])
    return {
        "heard": answer["heard"],
        "typed_reply": answer["typed"],
        "spoken_reply": answer["reply"],
        "overlap": overlap(a, b),
        "same_content": same_content(a, b, question.key),
        "same_words": a == b,
        "heard_right": word_edits(normalize(question.text), normalize(answer["heard"])).errors == 0,
    }
