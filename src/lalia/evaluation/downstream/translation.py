"""BLEU of text by sacreBLEU, and of speech through a recogniser."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lalia.audio import Audio
from lalia.errors import DataError, MissingDependency
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.results import tool
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import bootstrap_counts
from lalia.evaluation.text import Normalizer

__all__ = ["asr_bleu", "bleu"]

_RESAMPLES = 1000


def bleu(
    references: Mapping[str, str | Sequence[str]],
    predictions: Mapping[str, str | None],
    *,
    tokenize: str | None = None,
    lowercase: bool = False,
    seed: int = 0,
) -> Scored:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002; Post 2018), case-sensitive and detokenized unless asked otherwise.

    The interval is a bootstrap over segments (Koehn 2004) of the corpus score, not of scores of segments. A missing
    prediction is an empty one. ``settings`` has sacreBLEU's signature, without which the figure means little.

    :param references: one for each segment, or several, as many for every segment.
    :param tokenize: a tokenizer of sacreBLEU: ``13a``, its default, ``zh``, ``char``, ...
    :raises DataError: there are no references, or not as many for each segment.
    :raises MissingDependency: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise MissingDependency("sacrebleu", "eval") from None
    rows = by_id(references, predictions)
    sides = [[r] if isinstance(r, str) else list(r) for _, r, _ in rows]
    if len({len(side) for side in sides}) != 1 or not sides[0]:
        raise DataError("Segments differ in how many references they have. Give each the same number, at least one.")
    said = [p or "" for _, _, p in rows]
    metric = BLEU(tokenize=tokenize, lowercase=lowercase)
    whole = metric.corpus_score(said, [list(column) for column in zip(*sides, strict=True)])
    # Of these only the counts are used, on which the effective order has no influence; it spares a warning.
    single = BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=True)
    segments = [single.sentence_score(p, side) for p, side in zip(said, sides, strict=True)]
    sums = np.array([[*x.counts, *x.totals, x.sys_len, x.ref_len] for x in segments], np.float64)
    estimate = bootstrap_counts(lambda drawn: _bleu(drawn @ sums), len(rows), seed=seed, resamples=_RESAMPLES)
    missing = sum(p is None for _, _, p in rows)
    return Scored(
        figures={"bleu": replace(estimate, value=whole.score)},
        counts=Counts(len(rows), len(rows) - missing, failed=missing),
        items=[
            {"id": key, "answered": p is not None, "matches": list(x.counts), "ngrams": list(x.totals)}
            for (key, _, p), x in zip(rows, segments, strict=True)
        ],
        settings={"signature": str(metric.get_signature()), "resamples": _RESAMPLES},
    )


def _bleu(sums: np.ndarray) -> np.ndarray:
    """Scores [R] of sums [R, 10]: matches and totals of 1- to 4-grams, lengths of system and reference.

    With the exponential smoothing of mteval-v13a and sacreBLEU: the k-th order without a match counts as 1 / 2^k.
    """
    matches, totals, system, reference = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
    empty = matches == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(empty, 0.5 ** np.cumsum(empty, 1), matches) / totals
        brevity = np.where(system < reference, np.exp(1 - reference / system), 1.0)
        scores = 100 * brevity * np.exp(np.log(precisions).mean(1))
    # No 4-gram at all, or no word that matches: zero.
    return np.where((totals > 0).all(1) & (matches[:, 0] > 0), scores, 0.0)


def asr_bleu(
    references: Mapping[str, str | Audio],
    speech: Mapping[str, Audio | None],
    *,
    recognizer: Recognizer,
    normalizer: Normalizer,
    tokenize: str | None = None,
    seed: int = 0,
) -> Scored:
    """BLEU of what a recogniser hears in translated speech (Lee et al., arXiv:2107.05604).

    The recogniser's own errors are in it: figures by different recognisers or normalisers are not to be compared. The
    normaliser goes over both sides; references that are speech are heard by the same recogniser.

    :raises DataError: there are no references, or a recording has no reference.
    :raises MissingDependency: sacrebleu is not installed.
    """
    rows = by_id(references, speech)
    written = {key: r for key, r, _ in rows if isinstance(r, str)}
    spoken = {key: r for key, r, _ in rows if not isinstance(r, str)}
    said = {key: p for key, _, p in rows if p is not None}
    written |= dict(zip(spoken, recognizer(list(spoken.values())) if spoken else [], strict=True))
    heard = dict(zip(said, recognizer(list(said.values())) if said else [], strict=True))
    result = bleu(
        {key: normalizer(text) for key, text in written.items()},
        {key: normalizer(text) for key, text in heard.items()},
        tokenize=tokenize,
        seed=seed,
    )
    tools: dict[str, Any] = {"recognizer": tool(recognizer), "normalizer": tool(normalizer)}
    return Scored(
        figures={"asr_bleu": result.figures["bleu"]},
        counts=result.counts,
        items=[{**item, "heard": heard.get(item["id"]), "reference": written[item["id"]]} for item in result.items],
        settings={**result.settings, **tools},
    )
