"""How often a judge would have done what a system did."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lalia.evaluation.statistics import Estimate, bootstrap_many, bootstrap_ratio
from lalia.evaluation.talking_turns.turns import LABELS, Decisions, Likelihoods, together

__all__ = ["Agreement", "Thresholds", "agreement", "hard_label", "macro_f1"]


@dataclass(frozen=True)
class Thresholds:
    """From where on the judge would do it; above, not at.

    :param turn_change: of the likelihood of a change of turns less that of continuation.
    :param backchannel: of the likelihood of a backchannel.
    :param interruption: of the likelihood of an interruption less that of continuation.
    :param success: of that of a change less that of continuation, where somebody was interrupted.
    :param hard: of each label in its turn, where the judge is to say one; the likeliest where none reaches its own.
    """

    turn_change: float = 0.0
    backchannel: float = 0.1
    interruption: float = -0.45
    success: float = -0.1
    hard: tuple[float, float, float, float, float] = (0.2, 0.45, 0.4, 0.4, 0.4)


def hard_label(likelihoods: np.ndarray, thresholds: Thresholds = Thresholds()) -> str:
    """The one label of a judge: the first that is above its threshold, in the order of `LABELS`."""
    above = [label for label, p, least in zip(LABELS, likelihoods, thresholds.hard, strict=True) if p > least]
    return above[0] if above else LABELS[int(np.argmax(likelihoods))]


def macro_f1(
    decisions: Decisions, likelihoods: Likelihoods, *, thresholds: Thresholds = Thresholds(), seed: int = 0
) -> dict[str, Estimate]:
    """F1 of each label, the mean of that of the label and that of its absence, and ``overall``, their mean.

    What neither happens nor is said has no F1 and no part in the mean, as scikit-learn has it (``average="macro"``).

    :returns: with their bootstrap intervals over dialogues.
    :raises DataError: no 40 ms are judged.
    """
    columns: list[list[float]] = [[] for _ in range(3 * len(LABELS))]
    for rows in together(decisions, likelihoods).values():
        said, did = [hard_label(p, thresholds) for _, p in rows], [row.label for row, _ in rows]
        for n, label in enumerate(LABELS):
            pairs = [(a == label, b == label) for a, b in zip(said, did, strict=True)]
            columns[3 * n].append(sum(a and b for a, b in pairs))
            columns[3 * n + 1].append(sum(not a and not b for a, b in pairs))
            columns[3 * n + 2].append(sum(a != b for a, b in pairs))

    def means(*drawn: np.ndarray) -> np.ndarray:
        sums = [x.sum(1) for x in drawn]
        found = []
        for n in range(len(LABELS)):
            hits, wrong = np.stack(sums[3 * n : 3 * n + 2]), sums[3 * n + 2]
            # Something or its absence always is, so that one of the two is a number.
            found.append(np.nanmean(2 * hits / (2 * hits + wrong), 0))
        return np.stack([np.mean(found, 0), *found], 1)

    names = ("overall", *LABELS)
    return dict(zip(names, bootstrap_many(means, *columns, figures=len(names), seed=seed), strict=True))


@dataclass(frozen=True)
class Agreement:
    """How often the judge would have done what was done: where it was done, and where it was left.

    :param done: the share of the times it was.
    :param left: the share of the times it could have been, and was not.
    """

    done: Estimate
    left: Estimate


def agreement(
    decisions: Decisions, likelihoods: Likelihoods, *, thresholds: Thresholds = Thresholds(), seed: int = 0
) -> dict[str, Agreement]:
    """Five abilities of a system (turn ``A``), by how often the judge agrees with what was decided.

    - ``speak_up``: behind 0.12 s of silence in the user's turn, the system takes the turn (T) or lets him go on (C);
    - ``backchannel``: in the user's turn, where it was not in one already;
    - ``interrupt``: while the user speaks, the system cuts in (I) or not (C);
    - ``yield``: behind 0.12 s of silence in the system's own turn, the user takes it (T) or the system goes on (C);
    - ``handle_interruption``: behind 0.12 s of being interrupted, the user gets the turn (T) or not (C).

    ``interrupt`` and ``backchannel`` look one step back, the others three, in the same dialogue; the original looks
    from the beginning of one dialogue into the end of the one before.

    :param seed: of the bootstrap over dialogues.
    :returns: shares with their bootstrap intervals, for the decisions of a dialogue hang together; ``n`` is of
        decisions. Of what never was decided, and for the interval of what one dialogue alone decides, NaN.
    :raises DataError: no 40 ms are judged.
    """
    t = thresholds
    votes: dict[str, tuple[list[list[bool]], list[list[bool]]]] = {name: ([], []) for name in _ABILITIES}
    for both in together(decisions, likelihoods).values():
        for done, left in votes.values():
            done.append([])
            left.append([])
        labels = [row.label for row, _ in both]
        for k, (row, said) in enumerate(both):
            p = dict(zip(LABELS, said.tolist(), strict=True))
            gain = {"T": p["T"] - p["C"], "I": p["I"] - p["C"]}
            three = labels[k - 3 : k] if k >= 3 else []
            for name, asked, did, would in (
                ("speak_up", row.turn == "B" and three == ["NA"] * 3, "T", gain["T"] > t.turn_change),
                ("backchannel", row.turn == "B" and k > 0 and labels[k - 1] != "BC", "BC", p["BC"] > t.backchannel),
                ("interrupt", row.turn == "B" and k > 0 and labels[k - 1] == "C", "I", gain["I"] > t.interruption),
                ("yield", row.turn == "A" and three == ["NA"] * 3, "T", gain["T"] > t.turn_change),
                ("handle_interruption", row.turn == "AB" and three == ["I"] * 3, "T", gain["T"] > t.success),
            ):
                if not asked or (name != "backchannel" and row.label not in ("C", did)):
                    continue
                was = row.label == did
                votes[name][not was][-1].append(would == was)
    return {name: Agreement(*(_share(v, seed) for v in both_ways)) for name, both_ways in votes.items()}


def _share(votes: Sequence[Sequence[bool]], seed: int) -> Estimate:
    """Of the votes of all dialogues, which are drawn whole."""
    cast = [v for v in votes if v]
    found = bootstrap_ratio([float(sum(v)) for v in cast], [float(len(v)) for v in cast], seed=seed)
    low, high = (found.low, found.high) if len(cast) > 1 else (math.nan, math.nan)
    return Estimate(found.value, low, high, sum(map(len, cast)))


_ABILITIES = ("speak_up", "backchannel", "interrupt", "yield", "handle_interruption")
