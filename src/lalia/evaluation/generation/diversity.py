"""How much generated texts repeat themselves and one another: self-BLEU, auto-BLEU and VERT. Lower is more diverse.

Two measures go by the name auto-BLEU, and their numbers have nothing to do with one another:

- `auto_bleu` of GSLM (Lakhotia et al., arXiv:2102.01192; fairseq ``gslm/metrics/asr_metrics/self_auto_bleu.py``): the
  geometric mean over n = 1, 2 of the share of n-grams that stand once more in the same text, overlapping places not
  counted.
- `repeated_ngrams` of slamkit (``calc_auto_bleu``): the share of bigrams alone that stand once more, overlapping
  places counted.

Self-BLEU, and VERT with it, rises with the number of texts, and auto-BLEU with their length: compare as many texts,
cut to one length (GSLM: 1,000, each cut to that of the true one).

That VERT is the geometric mean of self-BLEU and auto-BLEU is how surveys state it. The code of GSLM computes the parts
only, and tGSLM (arXiv:2310.05224) writes "average".
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from lalia.errors import ConfigError
from lalia.evaluation.results import tool
from lalia.evaluation.statistics import bootstrap, mean
from lalia.evaluation.text import Basic, Normalizer

__all__ = ["auto_bleu", "evaluate_diversity", "mean_of", "repeated_ngrams", "self_bleu", "vert"]

Words = Sequence[Hashable]


def self_bleu(texts: Sequence[Words], order: int = 2) -> list[float]:
    """BLEU of each text against all the others, without brevity penalty (GSLM; Zhu et al., arXiv:1802.01886).

    The geometric mean over n = 1..``order`` of the precision of n-grams, each counted at most as often as in the text
    among the others that has it most often. 0 where an order has no match, or there is no other text.

    :param texts: the words of each.
    :raises ConfigError: the order is below 1.
    """
    _check(order)
    scores = np.ones(len(texts))
    for n in range(1, order + 1):
        counts = [Counter(_ngrams(words, n)) for words in texts]
        # The most that others have of an n-gram is the most of all, or the second most for the text that has the most.
        best: dict[Words, tuple[int, int, int]] = defaultdict(lambda: (0, -1, 0))
        for i, counted in enumerate(counts):
            for gram, count in counted.items():
                first, owner, second = best[gram]
                best[gram] = (count, i, first) if count > first else (first, owner, max(second, count))
        for i, counted in enumerate(counts):
            matched = 0
            for gram, count in counted.items():
                first, owner, second = best[gram]
                matched += min(count, second if owner == i else first)
            scores[i] *= (matched / max(counted.total(), 1)) ** (1 / order)
    return scores.tolist()


def auto_bleu(words: Words, order: int = 2) -> float:
    """The auto-BLEU of GSLM: the geometric mean over n = 1..``order`` of the share of n-grams that recur.

    An n-gram recurs if it stands a second time in the text, at a place that does not overlap with it. 0 for a text
    that is too short to have one.

    :raises ConfigError: the order is below 1.
    """
    _check(order)
    score = 1.0
    for n in range(1, order + 1):
        grams = _ngrams(words, n)
        if not grams:
            return 0.0
        last = {gram: p for p, gram in enumerate(grams)}
        first = {gram: p for p, gram in reversed(list(enumerate(grams)))}
        recurring = sum(first[gram] <= p - n or last[gram] >= p + n for p, gram in enumerate(grams))
        score *= (recurring / len(grams)) ** (1 / order)
    return score


def repeated_ngrams(words: Words, n: int = 2) -> float:
    """The auto-BLEU of slamkit: the share of n-grams of one order that stand in the text more than once.

    0 for a text that is too short to have one.

    :raises ConfigError: the order is below 1.
    """
    _check(n)
    grams = _ngrams(words, n)
    counts = Counter(grams)
    return sum(counts[gram] > 1 for gram in grams) / len(grams) if grams else 0.0


def vert(self_bleus: np.ndarray, auto_bleus: np.ndarray) -> np.ndarray:
    """The square root of the mean self-BLEU times the mean auto-BLEU, over the last axis; NaN is left out."""
    return np.asarray(np.sqrt(mean_of(self_bleus) * mean_of(auto_bleus)))


def mean_of(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; NaN where there is nothing."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=-1) / (~np.isnan(values)).sum(axis=-1))


def evaluate_diversity(
    texts: Mapping[str, str],
    *,
    normalizer: Normalizer | None = None,
    tokenize: Callable[[str], Sequence[str]] = str.split,
    seed: int = 0,
) -> dict[str, Any]:
    """Self-BLEU2, auto-BLEU2, VERT and the share of repeated bigrams of texts by id, such as transcripts of speech.

    A text without words has failed and is left out, and counted as such: GSLM gives it 0, the score of perfect
    diversity. Intervals are bootstrapped over texts, with the others, to which self-BLEU compares them, as they are.

    :param normalizer: what makes words equal. `Basic` when not given. GSLM has what a recogniser writes without
        punctuation.
    :param tokenize: a normalised text to words. slamkit takes NLTK's ``NLTKWordTokenizer().tokenize`` of the text as
        it is: its numbers compare with those of the same tokenizer and a normaliser that changes nothing.
    :param seed: of the bootstrap.
    :returns: ``asked``, ``answered``, ``failed``; ``summary``: estimates, the most diverse near 0; ``items``;
        ``failures``.
    """
    normalizer = normalizer or Basic()
    words = {key: tuple(tokenize(normalizer(texts[key]))) for key in sorted(texts)}
    spoken = {key: said for key, said in words.items() if said}
    others = self_bleu(list(spoken.values()))
    items: list[dict[str, Any]] = [
        {
            "id": key,
            "words": len(said),
            "self_bleu2": a,
            "auto_bleu2": auto_bleu(said),
            "repeated": repeated_ngrams(said),
        }
        for (key, said), a in zip(spoken.items(), others, strict=True)
    ]
    columns = {name: [item[name] for item in items] for name in ("self_bleu2", "auto_bleu2", "repeated")}
    return {
        "asked": len(texts),
        "answered": len(items),
        "failed": len(texts) - len(items),
        "settings": {"normalizer": tool(normalizer)},
        "summary": {
            "vert": bootstrap(vert, columns["self_bleu2"], columns["auto_bleu2"], seed=seed).to_dict(),
            **{name: mean(values, seed=seed).to_dict() for name, values in columns.items()},
        },
        "items": items,
        "failures": [{"id": key, "reason": "It has no words."} for key, said in words.items() if not said],
    }


def _check(order: int) -> None:
    if order < 1:
        raise ConfigError(f"N-grams of order {order} were asked for. Ask for 1 or more.")


def _ngrams(words: Words, n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(words[p : p + n]) for p in range(len(words) - n + 1)]
