"""Where nobody speaks: cuts of long sounds, and the silence behind them."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["cut_at_pauses", "end_of_sound"]

_PAUSE = 3200
"""Samples over which a pause is looked for: 0.2 s at 16 kHz."""

_STEP = 160

_LATE = 0.3
"""The part at the end of a window in which it is cut."""

_FRAME = 320
"""Samples of a frame whose power is looked at: 20 ms."""

_BEHIND = 3200
"""Samples that are kept behind the last sound, 0.2 s: an s or an f at the end is faint."""

_FAINT, _LOUD = 1e-4, 1e-2
"""Of the power of the loudest frame: what is below -40 dB is silence, and what is above -20 dB is sound."""

_NOISE = 2.0
"""Of the power of the quietest 0.2 s: what is louder than that by 3 dB stands out of the noise."""

_NOTHING = 1e-7
"""Power of a frame that nobody hears: -70 dBFS."""


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


def end_of_sound(samples: Tensor) -> int:
    """How many of the samples [N] are there at the end of the last sound, with 0.2 s of what follows; 0 of silence.

    Silence is relative: 40 dB below the loudest, or as quiet as the noise between the words, if that is faint enough.
    """
    if not len(samples):
        return 0
    padded = F.pad(samples, (0, -len(samples) % _FRAME))
    power = padded.view(-1, _FRAME).square().mean(dim=1)
    loudest = float(power.max())
    if loudest < _NOTHING:
        return 0
    around = max(min(_PAUSE // _FRAME, len(power)), 1)
    noise = float(power.unfold(0, around, 1).mean(dim=1).min())
    silence = max(_FAINT * loudest, min(_NOISE * noise, _LOUD * loudest))
    last = int((power > silence).nonzero()[-1]) + 1
    return min(last * _FRAME + _BEHIND, len(samples))
