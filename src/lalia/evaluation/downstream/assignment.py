"""The best one-to-one assignment, for speakers and sources whose order means nothing."""

import numpy as np

from lalia.errors import MissingDependency

__all__ = ["assign"]


def assign(gain: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of row and column with the largest total gain (Kuhn 1955), each used once.

    :param gain: [R, C]; the longer side keeps some without a partner.
    :raises MissingDependency: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise MissingDependency("scipy", "eval") from None
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
