"""What a scorer finds: figures with intervals, what was asked and answered, and every item."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from lalia.errors import DataError
from lalia.evaluation.statistics import Estimate

__all__ = ["Counts", "Scored", "by_id"]

R = TypeVar("R")
P = TypeVar("P")


@dataclass(frozen=True)
class Counts:
    """Where the items went; nothing leaves a denominator unseen.

    :param asked: all of them: ``answered + unparsable + failed``.
    :param answered: with an answer that could be scored, right or wrong.
    :param unparsable: with a reply in which no answer could be found.
    :param failed: without a reply, or with one that a judge or a measure gave no score.
    """

    asked: int
    answered: int
    unparsable: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        assert self.asked == self.answered + self.unparsable + self.failed, "every item is counted once"


@dataclass(frozen=True)
class Scored:
    """What came of a task.

    :param figures: by name, the most important first.
    :param items: one for each that was asked, by id.
    :param settings: what moves the figures: normaliser, tokenizer, judge, thresholds.
    :param notes: lines for people: what differs from the published protocol.
    """

    figures: Mapping[str, Estimate]
    counts: Counts
    items: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def value(self) -> float:
        """The first figure."""
        return next(iter(self.figures.values())).value

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "figures": {name: estimate.to_dict() for name, estimate in self.figures.items()},
            "counts": asdict(self.counts),
            "settings": dict(self.settings),
            "notes": list(self.notes),
            "items": [dict(item) for item in self.items],
        }


def by_id(references: Mapping[str, R], predictions: Mapping[str, P | None]) -> list[tuple[str, R, P | None]]:
    """References with their predictions, in order of id; None where there is none.

    :raises DataError: there are no references, or a prediction is for something else.
    """
    if not references:
        raise DataError("There are no references. Give at least one.")
    if strangers := sorted(set(predictions) - set(references), key=str):
        raise DataError(
            f"There is a prediction for {strangers[0]!r} (and {len(strangers) - 1} more), which has no reference. "
            "Give predictions for the ids of the references."
        )
    return [(key, references[key], predictions.get(key)) for key in sorted(references)]
