"""Stretches of time out of streams: of those with a clock, and of units without repeats, by their durations."""

import torch

from lalia.errors import ConfigError
from lalia.streams import StreamSpec, TokenSequence

__all__ = ["cut_time"]


def cut_time(tokens: TokenSequence, spec: StreamSpec, start: float, seconds: float) -> TokenSequence:
    """The tokens of one row that sound between ``start`` and ``start + seconds``.

    :raises ConfigError: nothing says when they sound.
    """
    rate = spec.frame_rate
    if spec.clocked and rate is not None:
        first = round(start * rate)
        return tokens.cut(first, first + max(round(seconds * rate), 1))
    if rate is None or tokens.durations is None:
        raise ConfigError("A stream without a clock cannot be cut in time. Leave the stage's seconds out.")
    ends = tokens.durations[0].cumsum(0)
    sounds = (ends > start * rate) & (ends - tokens.durations[0] < (start + seconds) * rate)
    index = sounds.nonzero()[:, 0]
    return TokenSequence(tokens.values[:, :, index], torch.tensor([len(index)]), tokens.durations[:, index])
