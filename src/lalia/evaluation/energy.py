"""Where in a recording the speech is, by its power."""

import numpy as np

from lalia.audio import Audio

__all__ = ["mean_power", "speech_span"]

_WINDOW = 0.02
_SILENCE_DB = 35.0


def mean_power(audio: Audio) -> np.ndarray:
    """Mean square over the 20 ms around every sample of row 0, mono, [N]."""
    x = audio.row(0).mono().samples[0, 0].double().cpu().numpy()
    half = max(round(_WINDOW / 2 * audio.sample_rate), 1)
    total = np.concatenate(([0.0], np.cumsum(x * x)))
    at = np.arange(len(x))
    low, high = np.maximum(at - half, 0), np.minimum(at + half, len(x))
    # A difference of running sums can be a rounding error below zero.
    return np.maximum(total[high] - total[low], 0.0) / (high - low)


def speech_span(power: np.ndarray) -> tuple[int, int]:
    """First sample of the speech and the one after its last; (0, 0) for silence.

    Speech is what lies within 35 dB of the loudest 20 ms.

    :param power: as `mean_power` gives it, [N].
    """
    if not len(power) or power.max() <= 0:
        return 0, 0
    loud = np.flatnonzero(power > power.max() * 10 ** (-_SILENCE_DB / 10))
    return int(loud[0]), int(loud[-1]) + 1
