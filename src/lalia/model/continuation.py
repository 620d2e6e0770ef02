"""Speech that goes on where a recording stops."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.lm import Sampler, SpeechLM, collect
from lalia.model.scoring import context_of
from lalia.streams import Streams, StreamSpec, TokenSequence

__all__ = ["Continuation", "Speaker", "continue_speech"]

_ROUNDS = 4
_SEED_STRIDE = 1_000_003
"""Between the seeds of one round of generation and the next, so that seeds next to one another share none."""


@dataclass(frozen=True)
class Continuation:
    """Speech continued: ``audio`` is the prompt as the model says it, and what comes after ``prompt_seconds``.

    :param tokens: that were generated.
    :param timings: ``encode_seconds``, ``generate_seconds``, ``vocode_seconds``.
    """

    audio: Audio
    prompt_seconds: float
    tokens: int
    timings: Mapping[str, float]


@dataclass(frozen=True)
class Speaker:
    """What continuing takes of a model.

    :param lm: a language model of ``stream`` alone, whose codes are as ``spec`` says.
    :param decode: streams to sound.
    :param predict_durations: frames [B, T] that units [B, 1, T] last; None where only speaking them tells.
    """

    lm: SpeechLM
    stream: str
    spec: StreamSpec
    decode: Callable[[Streams], Audio]
    predict_durations: Callable[[TokenSequence], Tensor] | None


def continue_speech(
    speaker: Speaker, encode: Callable[[], TokenSequence], *, seconds: float, sampler: Sampler, seed: int
) -> Continuation:
    """The prompt and ``seconds`` more, to the frame.

    :param encode: gives the prompt as tokens, of one row.
    """
    started = time.perf_counter()
    known = encode()
    encoded = time.perf_counter()
    spec = speaker.spec
    assert spec.frame_rate is not None
    # An end would cut the answer short of what was asked for.
    end = spec.kind.end_id  # type: ignore[union-attr]
    sampler = sampler.ban(**{speaker.stream: ((end, end + 1),)})
    heard = _frames(known) / spec.frame_rate
    wanted = heard + seconds
    voice = _Voice(speaker, sampler, seed, heard / max(int(known.lengths[0]), 1))
    made, vocoding = known, 0.0
    for _ in range(_ROUNDS):
        made = voice.go_on(made, wanted)
        before = time.perf_counter()
        out = speaker.decode({speaker.stream: made})
        vocoding += time.perf_counter() - before
        if out.seconds >= wanted - 1 / spec.frame_rate:
            break
        # The vocoder spoke faster than was thought; with its real pace, more is generated.
        voice.pace = max(out.seconds, 0.1) / int(made.lengths[0])
        made = replace(made, durations=None)
    return Continuation(
        out.cut(0.0, wanted),
        heard,
        int(made.lengths[0] - known.lengths[0]),
        {
            "encode_seconds": encoded - started,
            "generate_seconds": time.perf_counter() - encoded - vocoding,
            "vocode_seconds": vocoding,
        },
    )


@dataclass
class _Voice:
    """Goes on with tokens until they last long enough.

    :param pace: seconds per token, where nothing tells how long a token lasts.
    """

    speaker: Speaker
    sampler: Sampler
    seed: int
    pace: float
    round: int = 0

    def go_on(self, made: TokenSequence, wanted: float) -> TokenSequence:
        lm, stream = self.speaker.lm, self.speaker.stream
        books = made.values.shape[1]
        room = context_of(lm) - 2
        while (total := self._seconds(made)) < wanted:
            # With no clock, pace is what was seen so far.
            spare, least = (1.1, 8) if self.speaker.spec.deduplicated else (1.0, 1)
            tokens = max(math.ceil((wanted - total) / self.pace * spare - 1e-6), least)
            # Half the context is left for what came before.
            steps = min(tokens * books, max(room // 2, books))
            seen = max((room - steps) // books, 1)
            tail = replace(made, durations=None).cut(max(made.num_tokens - seen, 0))
            parts = lm.generate(
                {stream: tail},
                sampler=self.sampler,
                # A layout may have a step for each codebook, or one for all of a frame.
                max_steps=steps,
                limits={stream: tail.num_tokens + tokens},
                seeds=[self.seed + self.round * _SEED_STRIDE],
            )
            new = collect(parts)[stream]
            self.round += 1
            made = self._join(made, new)
        return made

    def _seconds(self, tokens: TokenSequence) -> float:
        rate = self.speaker.spec.frame_rate
        assert rate is not None
        if tokens.durations is None and self.speaker.spec.deduplicated:
            return int(tokens.lengths[0]) * self.pace
        return _frames(tokens) / rate

    def _join(self, known: TokenSequence, new: TokenSequence) -> TokenSequence:
        """Known tokens and new ones, with the durations that the vocoder predicts where the stream needs them."""
        values, lengths = torch.cat([known.values, new.values], dim=2), known.lengths + new.lengths
        joined = TokenSequence(values, lengths)
        if known.durations is None or self.speaker.predict_durations is None:
            return joined
        durations = self.speaker.predict_durations(joined)[:, known.num_tokens :]
        return TokenSequence(values, lengths, torch.cat([known.durations, durations], dim=1))


def _frames(tokens: TokenSequence) -> int:
    return int(tokens.lengths[0] if tokens.durations is None else tokens.durations.sum())
