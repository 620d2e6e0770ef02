"""The learning rate over a run, as a pure function of the step: nothing to save, nothing to restore."""

import math
from typing import Literal

__all__ = ["Schedule", "learning_rate_scale"]

Schedule = Literal["cosine", "linear", "inverse_sqrt", "constant"]


def learning_rate_scale(
    step: int, *, schedule: Schedule, warmup_steps: int = 0, max_steps: int, min_ratio: float = 0.0
) -> float:
    """What the peak learning rate is multiplied by.

    The rate climbs linearly over ``warmup_steps`` updates, the last of which has the full rate, and then
    falls: along half a cosine or a line to ``min_ratio`` at ``max_steps``, or as the inverse square root of
    the step (Vaswani et al. 2017, arXiv:1706.03762, section 5.3) but never under ``min_ratio``.

    :param step: updates already made; 0 for the first.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    match schedule:
        case "cosine":
            return min_ratio + (1 - min_ratio) * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return min_ratio + (1 - min_ratio) * (1 - progress)
        case "inverse_sqrt":
            return max(min_ratio, math.sqrt(max(1, warmup_steps) / (step + 1)))
        case "constant":
            return 1.0
