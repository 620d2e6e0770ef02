"""How likely a language model finds a recording, of any length."""

from dataclasses import dataclass, replace

from lalia.lm import HF, SpeechLM
from lalia.streams import TokenSequence

__all__ = ["Scores", "context_of", "score"]

_CONTEXT_WHERE_UNKNOWN = 2048


@dataclass(frozen=True)
class Scores:
    """Log-probabilities in nats.

    :param tokens: of the recording; the end of the sequence is not counted, for a clip may end anywhere.
    :param sum: over these tokens.
    :param end: of the sequence ending after them.
    """

    tokens: int
    sum: float
    end: float

    @property
    def mean(self) -> float:
        return self.sum / max(self.tokens, 1)


def context_of(lm: SpeechLM) -> int:
    """The steps that a language model is made for."""
    if isinstance(lm.backbone, HF):
        return lm.backbone.context or _CONTEXT_WHERE_UNKNOWN
    return lm.backbone.config.context


def score(lm: SpeechLM, stream: str, tokens: TokenSequence, *, context: int | None = None) -> Scores:
    """The log-probability of one row of a stream.

    What is longer than the context is scored in windows of its length that overlap by half: each token is
    conditioned on everything before it in the window where it is new, so on at least half a context once that
    much came before it. A window begins as the beginning of a recording does, as in training on long recordings.

    :param tokens: [1, K, T].
    :param context: LM steps at once; the model's when not given.
    """
    books = tokens.values.shape[1]
    # The start and the end of the sequence take a step each.
    window = max(((context or context_of(lm)) - 2) // books, 2)
    tokens, n = replace(tokens.row(0), durations=None), int(tokens.lengths[0])
    total, end, done, start = 0.0, 0.0, 0, 0
    while True:
        part = tokens.cut(start, min(start + window, n))
        log_prob = lm.log_prob({stream: part})[stream][0]
        size = part.num_tokens
        total += float(log_prob[:, done - start : size].double().sum())
        done = start + size
        if done >= n:
            end = float(log_prob[0, size]) if log_prob.shape[1] > size else 0.0
            return Scores(n * books, total, end)
        start = min(start + window // 2, n - window)
