"""Interleaving: an utterance that is both speech and text as spans of the one and the other (SpiRit-LM, SUTLM)."""

import random
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.layouts.extent import times_of
from lalia.streams import Streams, StreamSpec, TokenSequence

__all__ = ["Interleave"]


@dataclass(frozen=True)
class Interleave(Configuration):
    """Spans that take turns at word boundaries, drawn anew each time an utterance is seen (arXiv:2402.05755 §3.1).

    For the layout ``Switch``: each stream keeps the tokens of its own spans, with their times. An utterance whose words
    have no times stays speech.

    :param first: the stream of speech, ``second``: that of text, whose tokens have the times of their words.
    :param beside: other streams of the speech, which go where it goes; what sounds when a span begins begins it.
    :param first_words: fewest and most words of a span of speech, ``second_words``: of text.
    """

    first: str
    second: str
    _: KW_ONLY
    first_words: tuple[int, int] = (5, 15)
    second_words: tuple[int, int] = (10, 30)
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for low, high in (self.first_words, self.second_words):
            if not 1 <= low <= high:
                raise ConfigError(f"Interleave has spans of {low} to {high} words. Give at least 1, and no less most.")

    def tiny(self) -> "Interleave":
        return replace(self, first_words=(2, 5), second_words=(2, 5))

    def __call__(self, streams: Streams, specs: Mapping[str, StreamSpec], draw: random.Random) -> Streams:
        """The streams of one row, cut to their spans."""
        speech, text = streams[self.first].row(0), streams[self.second].row(0)
        times = times_of(speech, specs[self.first])
        spoken = torch.tensor([t for i in range(speech.num_tokens) if (t := times.at(i)) is not None])
        if text.times is None or not text.num_tokens or len(spoken) < speech.num_tokens:
            nothing = TokenSequence(text.values[:, :, :0], torch.tensor([0]), times=torch.zeros(1, 0))
            always = [(float("-inf"), float("inf"))]
            beside = {name: _sounding(streams[name].row(0), specs[name], always) for name in self.beside}
            return {**streams, self.first: _timed(speech, spoken), self.second: nothing, **beside}
        words = sorted(set(text.times[0].tolist()))
        # The time up to which each span goes, beginning with either stream.
        of_speech = draw.random() < 0.5
        kept_speech = torch.zeros(speech.num_tokens, dtype=torch.bool)
        kept_text = torch.zeros(text.num_tokens, dtype=torch.bool)
        spans: list[tuple[float, float]] = []
        start, at = float("-inf"), 0
        while at < len(words):
            at += draw.randint(*(self.first_words if of_speech else self.second_words))
            stop = words[at] if at < len(words) else float("inf")
            if of_speech:
                spans.append((start, stop))
                kept_speech |= (spoken >= start) & (spoken < stop)
            else:
                kept_text |= (text.times[0] >= start) & (text.times[0] < stop)
            start, of_speech = stop, not of_speech
        return {
            **streams,
            self.first: _kept(_timed(speech, spoken), kept_speech),
            self.second: _kept(text, kept_text),
            **{name: _sounding(streams[name].row(0), specs[name], spans) for name in self.beside},
        }


def _timed(tokens: TokenSequence, times: Tensor) -> TokenSequence:
    return TokenSequence(tokens.values, tokens.lengths, times=times[None].float())


def _sounding(tokens: TokenSequence, spec: StreamSpec, spans: list[tuple[float, float]]) -> TokenSequence:
    """The tokens that sound in each span, those that have begun before it from its beginning on."""
    clock = times_of(tokens, spec)
    begin = [t for i in range(tokens.num_tokens) if (t := clock.at(i)) is not None]
    end = [*begin[1:], float("inf")]
    found = [
        (i, max(b, start))
        for start, stop in spans
        for i, (b, e) in enumerate(zip(begin, end, strict=True))
        if e > start and b < stop
    ]
    index = torch.tensor([i for i, _ in found], dtype=torch.long)
    times = torch.tensor([t for _, t in found], dtype=torch.float32)
    return TokenSequence(tokens.values[:, :, index], torch.tensor([len(found)]), times=times[None])


def _kept(tokens: TokenSequence, kept: Tensor) -> TokenSequence:
    assert tokens.times is not None
    return TokenSequence(tokens.values[:, :, kept], kept.sum()[None], times=tokens.times[:, kept])
