"""Sound as it comes in, at the rate at which it is heard."""

import numpy as np
import soxr
import torch

from lalia.audio import Audio
from lalia.errors import AudioError

__all__ = ["Intake"]


class Intake:
    """Pieces of one sound, checked, as one channel at another rate.

    :param sample_rate: of what comes out, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._rate: int | None = None
        self._resampler: soxr.ResampleStream | None = None

    def push(self, piece: Audio) -> Audio:
        """The next piece [1, C, N], of which the resampler may hold back a few milliseconds.

        :raises AudioError: it has another rate than those before, or samples that are no finite numbers.
        """
        if self._rate not in (None, piece.sample_rate):
            raise AudioError(
                f"The sound comes at {piece.sample_rate} Hz, and came at {self._rate} Hz. Keep to one rate."
            )
        samples = piece.mono().samples[0, 0].detach().float().cpu()
        if not bool(torch.isfinite(samples).all()):
            raise AudioError("The sound has samples that are no finite numbers. Check where it comes from.")
        self._rate = piece.sample_rate
        if piece.sample_rate != self.sample_rate:
            if self._resampler is None:
                self._resampler = soxr.ResampleStream(piece.sample_rate, self.sample_rate, 1, dtype=np.float32)
            samples = torch.from_numpy(self._resampler.resample_chunk(samples.numpy()))
        return Audio(samples[None, None], self.sample_rate)
