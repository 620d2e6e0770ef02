"""Suites of questions with choices: a reply that does not say which is wrong, and the share of these is told."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lalia.errors import DataError
from lalia.evaluation.downstream.accuracy import accuracy
from lalia.evaluation.downstream.choices import read_choice
from lalia.evaluation.scored import Scored
from lalia.evaluation.statistics import Estimate, share
from lalia.evaluation.suites.items import Item, unique

__all__ = ["Grouping", "score_choices"]

Grouping = Callable[[Item], Iterable[str]]
"""The groups that an item belongs to, for figures beside the whole."""


def score_choices(
    items: Sequence[Item],
    replies: Mapping[str, str | None],
    *,
    read: Callable[[Item, str], int | None] = lambda item, reply: read_choice(reply, item.choices),
    groups: Grouping = lambda item: (item.group,) if item.group else (),
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Scored:
    """Accuracy over all items, over each group, and over those that were answered.

    ``accuracy`` counts what is missing or cannot be read as wrong. ``expected_by_chance`` is what it would gain, on
    average, if these were drawn at random among their choices, as some suites do; it is no part of it.

    :param read: finds the place of the choice in a reply.
    :raises DataError: there are no items, a right answer is none of the choices or is hidden, a reply is for no item.
    """
    by = unique(items)
    right = {key: _right(item) for key, item in by.items()}
    found = accuracy(right, replies, read=lambda key, reply: read(by[key], reply))
    flags = {x["id"]: x["right"] for x in found.items}
    members: dict[str, list[bool]] = {}
    for item in items:
        for group in groups(item):
            members.setdefault(group, []).append(flags[item.id])
    lost = [1 / len(by[x["id"]].choices) for x in found.items if x["answer"] is None]
    answered = [x["right"] for x in found.items if x["answer"] is not None]
    gain = sum(lost) / len(items)
    return Scored(
        figures={
            **found.figures,
            **{f"accuracy/{group}": share(members[group]) for group in sorted(members)},
            "accuracy_of_answered": share(answered),
            "expected_by_chance": Estimate(gain, gain, gain, len(lost)),
        },
        counts=found.counts,
        items=[{**x, "group": by[x["id"]].group} for x in found.items],
        settings=dict(settings or {}),
        notes=notes,
    )


def _right(item: Item) -> int:
    if not item.choices:
        raise DataError(f"The item {item.id!r} has no choices. Name the file that the suite publishes.")
    if not item.references:
        raise DataError(f"The answer to {item.id!r} is hidden. Score a split with answers, or hand in your replies.")
    answer = item.references[0]
    if answer in item.choices:
        return item.choices.index(answer)
    if len(answer) == 1 and 0 <= ord(answer.upper()) - ord("A") < len(item.choices):
        place = ord(answer.upper()) - ord("A")
        return item.choices.index(item.choices[place]) if item.choices[place] else place
    raise DataError(f"The answer to {item.id!r} is {answer!r}, none of its choices. Fetch the file again.")
