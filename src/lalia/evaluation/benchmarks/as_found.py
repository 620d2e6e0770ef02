"""What a scorer found, as what a benchmark found."""

from collections.abc import Mapping
from typing import Any

from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.scored import Scored

__all__ = ["as_found"]


def as_found(
    scored: Scored,
    replies: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
) -> Found:
    """Its figures, with how many items were asked, answered, unparsable and failed.

    :param replies: what stands beside each item, by id.
    :param settings: beside those of the scorer.
    """
    counts = scored.counts
    told = (
        f"{counts.asked} asked, {counts.answered} answered, {counts.unparsable} without an answer to be found, "
        f"{counts.failed} failed"
    )
    return Found(
        [
            Figure(name, name.replace("_", " "), "share" if 0 <= e.value <= 1 and "score" not in name else "ratio", e)
            for name, e in scored.figures.items()
        ],
        [{**dict(x), "reply": replies.get(str(x.get("id")))} for x in scored.items],
        {**dict(scored.settings), **settings},
        [*scored.notes, told],
    )
