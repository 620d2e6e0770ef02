"""Who hears what, and in which order: balanced over listeners, random to each, and the same whenever it is asked."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lalia.errors import ConfigError
from lalia.evaluation.listening_test.material import Kind, Material, scale

__all__ = ["CHECKS", "FEWEST", "Role", "Screen", "cells", "plan"]

Role = Literal["rating", "instruction", "repeat", "anchor"]

CHECKS: tuple[Role, ...] = ("instruction", "repeat", "anchor")
"""Screens that tell whether somebody listens: one on which he is told what to choose, one of before again, and one
of before made much worse."""

FEWEST = 6
"""Ratings of a listener from which on there are checks among them."""


@dataclass(frozen=True)
class Screen:
    """What a listener is shown at once.

    :param system: whose recording is rated; of a pair the one that is heard second.
    :param other: of a pair, the one that is heard first; empty where there is no pair.
    :param expected: on an instruction, what to choose; on an anchor of a pair, 1 where the first is made worse and
        -1 where the second is; else None.
    """

    role: Role
    item: str
    system: str
    other: str = ""
    expected: int | None = None


def cells(material: Material, kind: Kind, seed: int) -> list[tuple[str, tuple[str, str]]]:
    """Every item under every condition, item after item, so that a Latin square comes of equal runs of it.

    In round r item i is under condition ``(i + r) mod C``: any run of not more than there are items has none twice,
    and conditions as equally as can be within a round.
    """
    items = [i.name for i in material.items]
    random.Random(f"items {seed}").shuffle(items)
    conditions = material.conditions(kind)
    count = len(conditions)
    return [(item, conditions[(i + r) % count]) for r in range(count) for i, item in enumerate(items)]


def plan(material: Material, kind: Kind, *, slot: int, seed: int, ratings: int | None = None) -> tuple[Screen, ...]:
    """The screens of a listener.

    Listener after listener takes the next run of `cells`, round and round: whenever, no cell was given out more than
    once more than another.

    :param slot: the number of the listener, from 0.
    :param seed: of the test.
    :param ratings: how many of them, without the checks; each item once when not given.
    :raises ConfigError: more ratings than there are cells, or none.
    """
    everything = cells(material, kind, seed)
    wanted = len(material.items) if ratings is None else ratings
    if not 1 <= wanted <= len(everything):
        raise ConfigError(
            f"A listener is to give {wanted} ratings, of {len(everything)} that there are. "
            f"Choose from 1 to {len(everything)}."
        )
    rng = random.Random(f"listener {seed} {slot}")
    mine = [everything[(slot * wanted + k) % len(everything)] for k in range(wanted)]
    rng.shuffle(mine)
    screens = [_rating(item, condition, rng) for item, condition in mine]
    if wanted < FEWEST:
        return tuple(screens)
    # A check comes behind the rating that it repeats, or it would change that rating.
    half = wanted // 2
    for role, of in zip(CHECKS, rng.sample(screens[:half], len(CHECKS)), strict=True):
        screens.insert(rng.randint(half + 1, len(screens)), _check(role, of, kind, rng))
    return tuple(screens)


def _rating(item: str, condition: Sequence[str], rng: random.Random) -> Screen:
    system, other = condition
    if other and rng.random() < 0.5:
        system, other = other, system
    return Screen("rating", item, system, other)


def _check(role: Role, of: Screen, kind: Kind, rng: random.Random) -> Screen:
    match role:
        case "instruction":
            return Screen(role, of.item, of.system, of.other, rng.choice(scale(kind)))
        case "anchor" if kind == "cmos":
            return Screen(role, of.item, of.system, of.system, rng.choice((-1, 1)))
        case "repeat" if kind == "cmos":
            # The other way round, which tells too who always takes one side.
            return Screen(role, of.item, of.other, of.system)
        case _:
            return Screen(role, of.item, of.system)
