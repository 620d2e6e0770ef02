"""Reading a transcript off a sound: greedy search that can take up a draft, and that notices when it goes in circles.

Shapes: B batch, S steps, T frames, D dim, V vocabulary, R the likeliest tokens that are kept of a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from lalia.encoders.recognizer import Recognizer
from lalia.nn.whisper import Memory, StepState

__all__ = ["Transcript", "cut_loop", "most_tokens", "read"]

_TOKENS, _TOKENS_PER_SECOND = 16, 12
"""What is longer is no speech: fast speech has 6 tokens a second."""


@dataclass(frozen=True, eq=False)
class Transcript:
    """What was read.

    :param ids: of text [S].
    :param likely: the ids [S, R] of the likeliest tokens at each step, best first, and ``log_probs`` [S, R] theirs,
        among the tokens that may come.
    :param no_speech: the probability that nobody speaks.
    :param looped: it went in circles, or did not come to an end, and was cut there.
    """

    ids: list[int]
    likely: Tensor
    log_probs: Tensor
    no_speech: float
    looped: bool

    @property
    def confidence(self) -> float:
        """The mean log-probability of its tokens; that of nothing is -inf."""
        return float(self.log_probs[:, 0].mean()) if self.ids else -torch.inf


def most_tokens(num_samples: int, sample_rate: int) -> int:
    """Tokens that a sound can have at most."""
    return _TOKENS + round(_TOKENS_PER_SECOND * num_samples / sample_rate)


def cut_loop(ids: Sequence[int], *, longest: int = 16, rounds: int = 4, least: int = 12) -> int | None:
    """How many tokens are left when the circle at the end of a text is gone round once; None without one.

    A circle is up to ``longest`` tokens that come at least ``rounds`` times, and ``least`` tokens in all: of speech,
    more than anyone repeats.
    """
    for period in range(1, min(longest, len(ids) // rounds) + 1):
        same = next(n for n in count() if n + period >= len(ids) or ids[-1 - n] != ids[-1 - n - period])
        if same + period >= max(rounds * period, least):
            return len(ids) - same
    return None


@torch.inference_mode()
def read(
    recognizer: Recognizer, sounds: Sequence[Tensor], most: Sequence[int], *, keep: int = 64, draft: Sequence[int] = ()
) -> list[Transcript]:
    """The likeliest transcript of each sound, token by token (greedy search).

    :param sounds: per row [T, D], of ``Recognizer.listen``.
    :param most: tokens of each row at most.
    :param keep: R, how many tokens of each step are kept.
    :param draft: what the only row may say: what of it is right takes one pass of the decoder for all tokens, instead
        of one each. The transcript is the same as without.
    """
    if not sounds:
        return []
    net, rules = recognizer.net, recognizer.rules
    assert not draft or len(sounds) == 1
    room = net.config.target_positions - len(rules.prompt)
    rows = [_Row(rules.end, min(n, room)) for n in most]
    memory = net.remember(list(sounds))
    state = net.init_state(len(rows))
    draft = list(draft)[:room]
    begin = torch.tensor([[*rules.prompt, *draft]] * len(rows), device=memory.keys[0].device)
    hidden = net.step(begin, memory, state)
    nobody = net.logits(hidden[:, 0]).softmax(-1)[:, rules.no_speech].tolist()
    likely, log_probs = _best(recognizer, hidden[:, len(rules.prompt) - 1 :], keep, first=True)
    for n, proposed in enumerate(draft):
        # What follows a wrong token was computed for nothing.
        if rows[0].done or int(likely[0, n, 0]) != proposed:
            break
        rows[0].add(likely[0, n], log_probs[0, n])
    state.position = len(rules.prompt) + len(rows[0].ids)
    likely, log_probs = likely[:, len(rows[0].ids)], log_probs[:, len(rows[0].ids)]
    while True:
        for b, row in enumerate(rows):
            row.add(likely[b], log_probs[b])
        if all(row.done for row in rows):
            return [row.transcript(nobody[b]) for b, row in enumerate(rows)]
        likely, log_probs = _go_on(recognizer, likely[:, :1], memory, state, keep)


def _go_on(recognizer: Recognizer, ids: Tensor, memory: Memory, state: StepState, keep: int) -> tuple[Tensor, Tensor]:
    likely, log_probs = _best(recognizer, recognizer.net.step(ids, memory, state), keep, first=False)
    return likely[:, 0], log_probs[:, 0]


def _best(recognizer: Recognizer, hidden: Tensor, keep: int, *, first: bool) -> tuple[Tensor, Tensor]:
    """The likeliest tokens after each step [B, S, D]: ids and log-probabilities [B, S, R]."""
    logits = recognizer.net.logits(hidden)
    logits[:, int(first) :] += recognizer.forbidden
    if first:
        logits[:, 0] += recognizer.forbidden_first
    values, ids = logits.topk(min(keep, logits.shape[-1]), dim=-1)
    return ids, values - logits.logsumexp(-1, keepdim=True)


class _Row:
    """One transcript as it grows."""

    def __init__(self, end: int, most: int) -> None:
        self.end, self.most = end, most
        self.ids: list[int] = []
        self.steps: list[tuple[Tensor, Tensor]] = []
        self.done = self.looped = False

    def add(self, likely: Tensor, log_probs: Tensor) -> None:
        """Take the likeliest token of a step; one that is done takes no more."""
        if self.done:
            return
        token = int(likely[0])
        if token == self.end:
            self.done = True
            return
        if len(self.ids) == self.most:
            self.done = self.looped = True
            return
        self.ids.append(token)
        self.steps.append((likely, log_probs))
        kept = cut_loop(self.ids)
        if kept is not None:
            del self.ids[kept:], self.steps[kept:]
            self.done = self.looped = True

    def transcript(self, no_speech: float) -> Transcript:
        if not self.steps:
            empty = torch.zeros(0, 0)
            return Transcript([], empty.long(), empty, no_speech, self.looped)
        likely, log_probs = (torch.stack(part) for part in zip(*self.steps, strict=True))
        return Transcript(self.ids, likely, log_probs, no_speech, self.looped)
