"""What is not asked must not answer: how long and how loud positives and negatives are."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lalia.audio import Audio
from lalia.evaluation.energy import mean_power, speech_span

__all__ = ["balance", "choose", "contrast", "level"]

_ROUNDS = 20


def level(audio: Audio) -> float:
    """Mean power of the speech, in dB relative to full scale."""
    power = mean_power(audio)
    first, last = speech_span(power)
    return 10 * math.log10(power[first:last].mean()) if last > first else -math.inf


def contrast(positive: Audio, negative: Audio) -> list[float]:
    """By how much the positive is more: which is longer (1, 0 or -1) and by how many s, which louder and by what dB."""
    longer = positive.seconds - negative.seconds
    louder = level(positive) - level(negative)
    return [float(np.sign(longer)), longer, float(np.sign(louder)), louder]


def choose(options: Sequence[np.ndarray]) -> list[int]:
    """One option of each item, so that over all of them every contrast is as near to nothing as it gets.

    Item by item, again and again, that option is taken which makes the sum of squares of the (standardised) sums
    least. The same options give the same choice.

    :param options: for each item [O, F] contrasts, of which 0 is none.
    :returns: an index for each item.
    """
    if not options:
        return []
    scale = np.sqrt(np.mean(np.square(np.concatenate(options)), axis=0))
    parts = [o / np.where(scale > 0, scale, 1.0) for o in options]
    chosen = [int(np.square(p).sum(axis=1).argmin()) for p in parts]
    total = np.sum([p[c] for p, c in zip(parts, chosen, strict=True)], axis=0)
    for _ in range(_ROUNDS):
        before = list(chosen)
        for i, p in enumerate(parts):
            rest = total - p[chosen[i]]
            # What is better by a rounding error is not better.
            costs = np.round(np.square(rest + p).sum(axis=1), 9)
            if costs.min() < costs[chosen[i]]:
                chosen[i] = int(costs.argmin())
            total = rest + p[chosen[i]]
        if chosen == before:
            break
    return chosen


def balance(pairs: Sequence[tuple[Audio, Audio]]) -> Mapping[str, Any]:
    """Figures of (positive, negative) recordings, for the record. Ties are half."""
    values = np.array([contrast(p, n) for p, n in pairs])
    return {
        "pairs": len(pairs),
        "positive_seconds": float(np.mean([p.seconds for p, _ in pairs])),
        "negative_seconds": float(np.mean([n.seconds for _, n in pairs])),
        "positive_longer": float((values[:, 0].mean() + 1) / 2),
        "positive_louder": float((values[:, 2].mean() + 1) / 2),
        "louder_by_db": float(values[:, 3].mean()),
    }
