"""ABX: does a representation keep phones apart?

Of two recordings A and X of one phone and one B of another, X should be nearer to A than to B (Schatz et al.,
Interspeech 2013). The task, its averages and its constants are those of the ZeroSpeech challenge 2021
(arXiv:2011.11588), as the code of Libri-light and of fastabx (arXiv:2505.02692) has them. Unlike Libri-light, and like
fastabx, an item has its last frame.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from lalia.errors import ConfigError, DataError
from lalia.evaluation.representation.cells import Cells, cells_of
from lalia.evaluation.representation.distances import Distance, Frames, GroupDistances, group_distances
from lalia.evaluation.representation.items import Item
from lalia.evaluation.representation.represent import Representation
from lalia.evaluation.statistics import Estimate, bootstrap_ratio

__all__ = ["Abx", "Cell", "abx", "frames_of_item"]

_TRIPLETS = 1 << 22
"""Comparisons at once."""


class Cell(NamedTuple):
    """How often x was nearer to b, of the phone ``other``, than to a, of its own: ``error``, in [0, 1].

    ``context`` is None where neighbours do not matter; ``speaker`` is that of a and b, ``heard`` that of x.
    """

    phone: str
    other: str
    context: tuple[str, str] | None
    speaker: str
    heard: str
    error: float
    triplets: int


@dataclass(frozen=True, eq=False)
class Abx:
    """What came out of a task.

    :param task: of whom the three are, and whether their neighbours are the same.
    :param errors: of each cell [C].
    :param triplets: that each compared [C].
    """

    task: tuple[Literal["within", "across"], Literal["within", "any"]]
    cells: Cells
    errors: np.ndarray
    triplets: np.ndarray

    def __len__(self) -> int:
        return len(self.errors)

    def __iter__(self) -> Iterator[Cell]:
        groups = self.cells.groups
        for a, b, x, error, n in zip(self.cells.a, self.cells.b, self.cells.x, self.errors, self.triplets, strict=True):
            context, speaker, phone = groups[a]
            where = context if self.task[1] == "within" else None
            yield Cell(phone, groups[b][2], where, speaker, groups[x][1], float(error), int(n))

    @cached_property
    def pairs(self) -> dict[tuple[str, str], float]:
        """The error of each pair of phones, that of x first: the mean over contexts, then over speakers.

        Where neighbours do not matter it is the mean over all cells, as in fastabx.
        """
        by_speaker: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for cell in self:
            speaker = cell.speaker if self.task[1] == "within" else ""
            by_speaker[cell.phone, cell.other][speaker].append(cell.error)
        return {
            pair: float(np.mean([np.mean(errors) for errors in speakers.values()]))
            for pair, speakers in sorted(by_speaker.items())
        }

    def error(self, *, seed: int = 0) -> Estimate:
        """The mean over pairs of phones, in [0, 1]; chance is 0.5.

        The interval is over pairs of phones, both orders of two phones being drawn together: how much hangs on which
        phones there are, not on which speakers.
        """
        sums: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for pair, error in self.pairs.items():
            sums[tuple(sorted(pair))].append(error)
        return bootstrap_ratio([sum(v) for v in sums.values()], [len(v) for v in sums.values()], seed=seed)


def abx(
    items: Sequence[Item],
    representation: Representation,
    *,
    speaker: Literal["within", "across"] = "within",
    context: Literal["within", "any"] = "within",
    distance: Distance | None = None,
    pool: bool = False,
    max_size_group: int | None = 10,
    max_x_across: int | None = 5,
    seed: int = 3459,
) -> Abx:
    """Compare items of a phone with those of the same and of another phone.

    Features are compared in their own precision, at least in float32. The order of the items does not matter.

    :param speaker: whether a, b and x are one speaker's, or x is another's.
    :param context: whether the three have the same neighbours, or any. Items of triphones need the same.
    :param distance: of two frames; the angle by pi when not given, and for units whether they are other ones.
    :param pool: compare the means of an item's frames, without warping.
    :param max_size_group: items of a phone, context and speaker at most; the rest is left out by chance.
    :param max_x_across: other speakers that a speaker is compared with, likewise.
    :param seed: of this chance.
    :raises DataError: an item has no frames, or nothing can be compared.
    :raises ConfigError: there is no such task, or the distance is not for such frames.
    """
    if speaker not in {"within", "across"} or context not in {"within", "any"}:
        raise ConfigError(
            f"There is no ABX {speaker} speakers with the context {context!r}. "
            "Take within or across speakers, and within or any context."
        )
    for name, most, least in (("max_size_group", max_size_group, 2), ("max_x_across", max_x_across, 1)):
        if most is not None and most < least:
            raise ConfigError(f"{name} is {most}. Give at least {least}, or None for all.")
    cells = cells_of(
        items,
        speaker=speaker,
        context=context,
        max_size_group=max_size_group,
        max_x_across=max_x_across,
        seed=seed,
    )
    if not len(cells.a):
        raise DataError(
            f"Of {len(items)} items none can be compared {speaker} speakers with the context {context!r}. "
            "Give more of them, or take any context."
        )
    pieces = [frames_of_item(items[i], representation) for i in cells.chosen]
    frames = Frames.of(pieces, distance or ("identical" if representation.discrete else "angular"), pool=pool)
    distances = group_distances(
        frames, cells.bounds, np.concatenate((cells.x, cells.x)), np.concatenate((cells.a, cells.b))
    )
    errors, triplets = _compare(cells, distances)
    return Abx((speaker, context), cells, errors, triplets)


def frames_of_item(item: Item, representation: Representation) -> Tensor:
    """The frames whose centres (i + 1/2) / frame_rate lie from onset to offset, both included.

    :raises DataError: there are none, or the recording has no such frames.
    """
    frames = representation.recordings.get(item.file)
    if frames is None:
        raise DataError(f"There is no recording {item.file!r}, which an item names. Add it.")
    # In decimals: 0.07 s by 50 Hz is 3.5 frames, and not a trifle more.
    first, last = (round(t * representation.frame_rate - 0.5, 6) for t in (item.onset, item.offset))
    start, stop = math.ceil(first), math.floor(last) + 1
    if not 0 <= start < stop <= len(frames):
        raise DataError(
            f"{item.file!r} has {len(frames)} frames, but its item from {item.onset} to {item.offset} s would be "
            f"frames {start} to {stop - 1} of {representation.frame_rate:g} a second. Check the rate, or leave it out."
        )
    return frames[start:stop]


def _compare(cells: Cells, distances: GroupDistances) -> tuple[np.ndarray, np.ndarray]:
    """The error of every cell, and its comparisons. A tie is half an error; an item is not compared with itself."""
    sizes = distances.sizes
    na, nb, nx = sizes[cells.a], sizes[cells.b], sizes[cells.x]
    same = cells.a == cells.x
    triplets = (na - same) * nb * nx
    to_a, to_b = distances.places(cells.x, cells.a), distances.places(cells.x, cells.b)
    errors = np.empty(len(cells.a))
    # Cells of one shape are compared together.
    shapes, which = np.unique(np.stack((na, nb, nx)), axis=1, return_inverse=True)
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(shapes.shape[1] + 1))
    for (a, b, x), first, last in zip(shapes.T, bounds, bounds[1:], strict=False):
        some = max(_TRIPLETS // int(a * b * x), 1)
        for begin in range(first, last, some):
            chosen = order[begin : min(begin + some, last)]
            dxa = _table(distances.values, to_a, chosen, x, a)[..., None]
            dxb = _table(distances.values, to_b, chosen, x, b)[..., None, :]
            wrong = np.count_nonzero(dxa > dxb, axis=(1, 2, 3)) + 0.5 * np.count_nonzero(dxa == dxb, axis=(1, 2, 3))
            # What is itself is infinitely far, so it was counted as wrong.
            errors[chosen] = (wrong - same[chosen] * x * b) / triplets[chosen]
    return errors, triplets


def _table(
    values: np.ndarray, places: tuple[np.ndarray, np.ndarray, np.ndarray], chosen: np.ndarray, rows: int, columns: int
) -> np.ndarray:
    """Distances of some cells [C, rows, columns]."""
    start, row, column = (p[chosen, None, None] for p in places)
    return values[start + row * np.arange(rows)[:, None] + column * np.arange(columns)]
