"""Which items the ABX task compares: the cells of a task, and the few items that stand for many."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from lalia.evaluation.representation.items import Item

__all__ = ["Cells", "Group", "cells_of"]

Group = tuple[tuple[str, str], str, str]
"""Context (the neighbours), speaker and phone that items have in common."""

_T = TypeVar("_T")

_ANY = ("", "")
"""The context of all items when neighbours do not matter."""


@dataclass(frozen=True)
class Cells:
    """The comparisons of a task. In a cell every x is compared with every a, of its phone, and every b, of another.

    :param chosen: indices of the items that take part, group by group.
    :param groups: what the items of each group have in common [G].
    :param bounds: first of ``chosen`` of each group, and at the end their number [G + 1].
    :param a: group of each cell [C]; ``b`` and ``x`` likewise. Within a speaker x is a.
    """

    chosen: np.ndarray
    groups: Sequence[Group]
    bounds: np.ndarray
    a: np.ndarray
    b: np.ndarray
    x: np.ndarray


def cells_of(
    items: Sequence[Item],
    *,
    speaker: Literal["within", "across"],
    context: Literal["within", "any"],
    max_size_group: int | None,
    max_x_across: int | None,
    seed: int,
) -> Cells:
    """Every cell that there is, in an order that is that of names, whatever that of the items is.

    What is drawn for a group depends on the seed and the names of the group alone.
    """
    members: dict[Group, list[int]] = defaultdict(list)
    for i in sorted(range(len(items)), key=items.__getitem__):
        item = items[i]
        where = (item.previous, item.following) if context == "within" else _ANY
        members[where, item.speaker, item.phone].append(i)
    groups = sorted(members)
    for group in groups:
        members[group] = _draw(members[group], max_size_group, seed, "items", group)
    number = {group: n for n, group in enumerate(groups)}
    phones: dict[tuple[tuple[str, str], str], list[str]] = defaultdict(list)
    speakers: dict[tuple[tuple[str, str], str], list[str]] = defaultdict(list)
    for where, who, phone in groups:
        phones[where, who].append(phone)
        speakers[where, phone].append(who)

    def found() -> Iterator[tuple[int, int, int]]:
        for group in groups:
            where, who, phone = group
            a = number[group]
            others = [number[where, who, p] for p in phones[where, who] if p != phone]
            if not others:
                continue
            if speaker == "within":
                xs = [a] if len(members[group]) > 1 else []
            else:
                heard = [s for s in speakers[where, phone] if s != who]
                xs = [number[where, s, phone] for s in _draw(heard, max_x_across, seed, "speakers", group)]
            for x in xs:
                for b in others:
                    yield a, b, x

    table = np.array(list(found()), np.int64).reshape(-1, 3)
    # Groups that nothing is compared with need no frames.
    used, table = np.unique(table, return_inverse=True)
    kept = [groups[n] for n in used]
    a, b, x = table.reshape(-1, 3).T
    return Cells(
        np.array([i for group in kept for i in members[group]], np.int64),
        kept,
        np.concatenate(([0], np.cumsum([len(members[group]) for group in kept], dtype=np.int64))),
        a,
        b,
        x,
    )


def _draw(pool: list[_T], most: int | None, seed: int, what: str, group: Group) -> list[_T]:
    if most is None or len(pool) <= most:
        return pool
    (before, after), who, phone = group
    # A text as seed is hashed in the same way everywhere.
    kept = random.Random("\t".join((str(seed), what, before, after, who, phone))).sample(range(len(pool)), most)
    return [pool[i] for i in sorted(kept)]
