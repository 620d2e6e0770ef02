"""Dynamic time warping of very many short pairs at once.

Along an anti-diagonal of the table of a pair no cell needs another, and no pair needs another: so one NumPy operation
does a diagonal of thousands of pairs. A cell is one number that holds the cost of a path, a multiple of 1, and in its
fraction how many steps the path has. The least of three such numbers is the path of least cost, and of several of
least cost the shortest.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["STEP", "STEPS", "Blocks", "warped"]

STEPS = 4096
"""A path has fewer."""

STEP = 1 / STEPS
"""What a step adds to the cost of a cell."""

_PAIRS = 1024
"""At once: what they need fits into the cache of a core."""


@dataclass(frozen=True)
class Blocks:
    """Pairs of sequences, and where the costs of their frames stand. All [P].

    The cost of frame i of the one and j of the other, a whole number to which ``STEP`` is added, is in
    ``costs[start + i * row + j * column]``.

    :param rows: frames of the one.
    :param columns: of the other.
    """

    start: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def warped(costs: np.ndarray, pairs: Blocks) -> np.ndarray:
    """The mean cost of a step on the path of least cost from the first frames to the last, [P] in float64.

    A step goes on by a frame in one sequence or in both. Of paths of the same least cost the shortest counts, so that
    the distance is symmetric; public implementations take the one that they meet first when they trace it back, which
    depends on the order of the two (on units, 1 in 2000 pairs differs).

    :param costs: flat, in a precision in which sums over a path are exact: below 2^41 in float64, below 2^12 in
        float32.
    """
    # The shorter sequence is down: the distance is symmetric, and fewer shapes are padded less.
    turned = pairs.rows > pairs.columns
    down, across = np.where(turned, pairs.column, pairs.row), np.where(turned, pairs.row, pairs.column)
    n, m = np.minimum(pairs.rows, pairs.columns), np.maximum(pairs.rows, pairs.columns)
    # Every second row of shapes backwards, so that neighbours are alike.
    width = int(m.max()) + 1
    shape = n // 2 * width + np.where(n // 2 % 2, width - 1 - m, m)
    # Small numbers are sorted by their digits.
    order = np.argsort(shape.astype(np.uint16) if shape.max() < 1 << 16 else shape, kind="stable")
    result = np.empty(len(n))
    for first in range(0, len(order), _PAIRS):
        chosen = order[first : first + _PAIRS]
        # Those that end together stand together.
        chosen = chosen[np.argsort(n[chosen] + m[chosen], kind="stable")]
        ends = _ends(costs, pairs.start[chosen], down[chosen], across[chosen], n[chosen], m[chosen])
        whole = np.floor(ends)
        result[chosen] = whole / ((ends - whole) * STEPS)
    return result


def _ends(
    costs: np.ndarray, start: np.ndarray, down: np.ndarray, across: np.ndarray, n: np.ndarray, m: np.ndarray
) -> np.ndarray:
    """The last cell of each table [P]; padding lies behind it, where no path comes from."""
    height, width, pairs = int(n.max()), int(m.max()), len(n)
    heads = start + np.arange(height)[:, None] * down
    # Padding may point anywhere.
    table = np.take(costs, heads[:, None] + np.arange(width)[:, None] * across, mode="clip")
    by_row, by_column, by_pair = table.strides
    # Row i + 1 of a diagonal is row i of the table; row 0 is outside of it.
    older, old, new = (np.full((height + 1, pairs), np.inf, costs.dtype) for _ in range(3))
    older[0] = 0.0
    found = np.empty(pairs, np.float64)
    lasts = np.searchsorted(n + m - 2, np.arange(height + width))
    for k in range(height + width - 1):
        low, high = max(0, k - width + 1), min(height, k + 1)
        # Cells (i, k - i) of the table.
        diagonal = np.ndarray(
            (high - low, pairs),
            costs.dtype,
            table,
            offset=low * by_row + (k - low) * by_column,
            strides=(by_row - by_column, by_pair),
        )
        cells = new[low + 1 : high + 1]
        np.minimum(old[low + 1 : high + 1], old[low:high], out=cells)
        np.minimum(cells, older[low:high], out=cells)
        np.add(cells, diagonal, out=cells)
        if (first := lasts[k]) < (last := lasts[k + 1]):
            found[first:last] = new[n[first:last], np.arange(first, last)]
        older[0] = np.inf
        older, old, new = old, new, older
    return found
