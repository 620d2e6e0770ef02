"""Streams that were merged with units, back on their clock: generation knows their order, and no times."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from lalia.streams import Streams, StreamSpec, TokenSequence
from lalia.vocoders import UnitVocoder, Vocoder

__all__ = ["on_the_clock"]


def on_the_clock(streams: Streams, vocoder: Vocoder, specs: Mapping[str, StreamSpec]) -> Streams:
    """What a vocoder of units reads, each stream beside the units with the frames that its own clock gives it.

    A token holds from the first unit that came after it until another comes (SpiRit-LM expressive, arXiv:2402.05755);
    how long units last, the vocoder predicts.

    :param streams: of one row; those that were merged have ``times`` that order them among one another.
    """
    if not isinstance(vocoder, UnitVocoder):
        return streams
    units, rate = streams[vocoder.stream], specs[vocoder.stream].frame_rate
    out = dict(streams)
    for name in vocoder.conditions.names:
        tokens, spec = streams[name], specs[name]
        if tokens.times is None or units.times is None or spec.frame_rate is None or rate is None:
            continue
        if not units.num_tokens or not tokens.num_tokens:
            continue
        frames = units.durations
        if frames is None and vocoder.durations is not None:
            frames = vocoder.predict_durations(units.to(next(vocoder.parameters()).device)).cpu()
        elif frames is None:
            frames = torch.ones(1, units.num_tokens)
        ends = frames[0].double().cumsum(0) / rate
        count = max(round(float(ends[-1]) * spec.frame_rate), 1)
        middle = (torch.arange(count, dtype=torch.float64) + 0.5) / spec.frame_rate
        sounding = torch.searchsorted(ends, middle, right=True).clamp(max=units.num_tokens - 1)
        holding = torch.searchsorted(tokens.times[0].contiguous(), units.times[0], right=True) - 1
        at = holding.clamp(min=0)[sounding]
        made = TokenSequence(tokens.values[:, :, at.to(tokens.values.device)], torch.tensor([count]))
        out[name] = made.deduplicate() if spec.deduplicated else made
    return {n: replace(t, times=None) for n, t in out.items()}
