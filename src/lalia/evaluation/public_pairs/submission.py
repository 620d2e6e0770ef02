"""Scores of recordings in the form of ZeroSpeech 2021: lines of ``<stem> <score>`` (``lexical/dev.txt``, ...)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lalia.errors import DataError
from lalia.evaluation.folders import make_folder
from lalia.evaluation.pair_scores import judge_scores
from lalia.evaluation.pairs import Pair
from lalia.evaluation.public_pairs.zerospeech import SPLITS, find_golds, read_gold
from lalia.files import atomic_write

__all__ = ["hand_in", "read_submission", "score_submission", "submission_scores", "write_submission"]


def submission_scores(
    pairs: Iterable[Pair], items: Sequence[Mapping[str, Any]], reduction: str = "sum"
) -> dict[str, float]:
    """The score of each recording by its stem, from the items of a result.

    :param items: of ``judge_pairs``, or of a result of ``lalia eval MODEL pairs``.
    :param reduction: of ``REDUCTIONS``. The LSTM baseline of the challenge hands in sums.
    :raises DataError: a pair has no item, for every recording needs its score, or an item not that reduction.
    """
    found = {(i["task"], i["id"], i.get("voice") or ""): i for i in items}
    scores: dict[str, float] = {}
    for pair in pairs:
        item = found.get(pair.key)
        if item is None or reduction not in item["positive"]:
            what = "no score" if item is None else f"no {reduction!r}"
            raise DataError(f"{' '.join(pair.key)} has {what}. Score every recording before they are handed in.")
        scores[pair.positive.stem] = item["positive"][reduction]
        scores[pair.negative.stem] = item["negative"][reduction]
    return scores


def hand_in(
    data: str | Path, items: Sequence[Mapping[str, Any]], folder: str | Path, reduction: str = "sum"
) -> list[Path]:
    """Write the scores of a download as the challenge takes them: ``lexical/dev.txt``, ``syntactic/test.txt``, ...

    What else it wants (``meta.yaml``: who hands in, and what was trained on) only who hands in knows.

    :param data: a ``gold.csv``, or what `find_golds` finds some in; one that lies in no ``dev`` or ``test`` is of
        ``dev``.
    :param items: as for `submission_scores`.
    :raises DataError: there is no table, or a recording has no score.
    :raises OutputError: it cannot be written.
    """
    source = Path(data)
    written = []
    for gold in [source] if source.is_file() else find_golds(source):
        pairs = read_gold(gold)
        part = "lexical" if pairs[0].task.startswith("sWUGGY") else "syntactic"
        split = gold.parent.name if gold.parent.name in SPLITS else SPLITS[0]
        scores = submission_scores(pairs, items, reduction)
        written.append(write_submission(scores, make_folder(Path(folder) / part) / f"{split}.txt"))
    if not written:
        raise DataError(f"{source} has no gold.csv. Name the folder of sWUGGY or sBLIMP.")
    return written


def write_submission(scores: Mapping[str, float], path: str | Path) -> Path:
    """Write ``<stem> <score>``, in the order of the stems.

    :raises DataError: there is no score, one is not finite, or a stem has white space.
    :raises OutputError: it cannot be written.
    """
    if not scores:
        raise DataError("There are no scores. Score the recordings first.")
    for stem, score in scores.items():
        if not math.isfinite(score) or len(stem.split()) != 1:
            raise DataError(f"The recording {stem!r} has the score {score}. Give a finite one, and a stem of one word.")
    target = Path(path)
    with atomic_write(target) as temporary:
        temporary.write_text("".join(f"{stem} {scores[stem]!r}\n" for stem in sorted(scores)), encoding="utf-8")
    return target


def read_submission(path: str | Path) -> dict[str, float]:
    """Scores by stem.

    :raises DataError: it cannot be read, or a line is something else; names the line.
    """
    source = Path(path)
    try:
        lines = source.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read ({error}). Name a file of lines: STEM SCORE.") from None
    scores: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        stem, _, text = line.partition(" ")
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not stem or not math.isfinite(score):
            raise DataError(f"{source}, line {number} is {line[:60]!r}. Write a stem, a space and a finite score.")
        if stem in scores:
            raise DataError(f"{source}, line {number} has {stem!r} a second time. Keep one.")
        scores[stem] = score
    if not scores:
        raise DataError(f"{source} has no scores. Write lines of a stem, a space and a score.")
    return scores


def score_submission(gold: str | Path, submission: str | Path, *, seed: int = 0) -> dict[str, Any]:
    """The accuracies of a submission, as `judge_scores` gives them: equal scores alone are ties.

    The scorer of the challenge leaves recordings without a score out; here all must have one.

    :param gold: the ``gold.csv`` of sWUGGY or sBLIMP.
    :raises DataError: a file cannot be read, or they name different recordings.
    """
    pairs, scores = read_gold(gold), read_submission(submission)
    files = {path.stem: path for pair in pairs for path in (pair.positive, pair.negative)}
    for has, lacks, name in ((files, scores, submission), (scores, files, gold)):
        if missing := sorted(set(has) - set(lacks)):
            raise DataError(f"{name} lacks {missing[0]!r} and {len(missing) - 1} more. Score every recording of gold.")
    return judge_scores(pairs, {files[stem]: score for stem, score in scores.items()}, seed=seed)
