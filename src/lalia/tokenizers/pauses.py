"""Cutting long sounds where nobody speaks."""

import torch
from torch import Tensor

__all__ = ["cut_at_pauses"]

_PAUSE = 3200
"""Samples over which a pause is looked for: 0.2 s at 16 kHz."""

_STEP = 160

_LATE = 0.3
"""The part at the end of a window in which it is cut."""


def cut_at_pauses(samples: Tensor, longest: int) -> list[Tensor]:
    """Samples [N] in pieces of at most ``longest``, each cut off at the quietest place near the end of those.

    The first pieces do not depend on what comes behind ``longest``, so that a stream is cut as a whole recording is.
    """
    pieces = []
    while len(samples) > longest:
        stop = _quietest(samples[:longest])
        pieces.append(samples[:stop])
        samples = samples[stop:]
    return [*pieces, samples] if len(samples) else pieces


def _quietest(window: Tensor) -> int:
    """The middle of the quietest stretch in the late part of a window."""
    first = round((1 - _LATE) * len(window))
    late = window[first:]
    width = min(_PAUSE, max(len(late) // 2, 1))
    power = torch.cat([late.new_zeros(1, dtype=torch.double), late.double().square().cumsum(0)])
    sums = (power[width:] - power[:-width])[::_STEP]
    return first + int(sums.argmin()) * _STEP + width // 2
