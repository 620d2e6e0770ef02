"""Whether a spoken question is answered as if it were typed."""

from collections import Counter
from typing import Any

from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.statistics import mean, share
from lalia.evaluation.text import Normalizer, word_edits

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


class Answers:
    """The reply to a spoken question against that to the same question typed, both greedy.

    It is the reply of the model itself that is the reference: right and wrong answers count alike. Content is compared
    by ``same_content`` after Whisper's normalisation.
    """

    name = "answers"
    about = "spoken questions, answered as if typed"

    def check(self, model: Any) -> None:
        model.dialogue(speak=False)

    def run(self, bench: Bench) -> Found:
        items = []
        for i, exchange in enumerate(bench.exchanges):
            question = exchange.question
            typed = bench.typed(bench.model, question.text)
            items.append(_item(bench.normalizer, exchange.heard, exchange.reply.text, typed, question))
            bench.progress("typing", i + 1, len(bench.exchanges))
        return Found(
            [
                Figure("same_content", "the same content", "share", share([x["same_content"] for x in items])),
                Figure("same_words", "word for word the same", "share", share([x["same_words"] for x in items])),
                Figure("overlap", "F1 of content words", "ratio", mean([x["overlap"] for x in items], seed=bench.seed)),
                Figure("heard_right", "heard without an error", "share", share([x["heard_right"] for x in items])),
            ],
            items,
            {"same_from": SAME, **bench.talking},
        )


def _item(normalize: Normalizer, heard: str, spoken: str, typed: str, question: Any) -> dict[str, Any]:
    a, b = normalize(spoken), normalize(typed)
    return {
        "id": question.id,
        "speaker": question.utterance.speaker,
        "question": question.text,
        "heard": heard,
        "typed_reply": typed,
        "spoken_reply": spoken,
        "overlap": overlap(a, b),
        "same_content": same_content(a, b, question.key),
        "same_words": a == b,
        "heard_right": word_edits(normalize(question.text), normalize(heard)).errors == 0,
    }
