"""How likely a language model finds a recording, of any length."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError, LayoutError
from lalia.lm import HF, SpeechLM
from lalia.recipe import Recipe
from lalia.streams import Streams, StreamSpec, TokenSequence, pad_batch

__all__ = ["Scores", "context_of", "judge_of", "score", "score_rows", "times_of_tokens"]

_CONTEXT_WHERE_UNKNOWN = 2048

_BATCH_TOKENS = 2048
"""Of each stream, with padding: more at once is no faster on a CPU."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities in nats.

    :param log_probs: of every token of the recording, stream by stream and in each in order of time, the codebooks of a
        frame one after another. The end of the sequence is not among them, for a clip may end anywhere.
    :param starts: the second at which each of these tokens begins.
    :param end: of the sequence ending after them.
    """

    log_probs: tuple[float, ...]
    starts: tuple[float, ...]
    end: float

    @property
    def tokens(self) -> int:
        return len(self.log_probs)

    @property
    def sum(self) -> float:
        return math.fsum(self.log_probs)

    @property
    def mean(self) -> float:
        return self.sum / max(self.tokens, 1)


def context_of(lm: SpeechLM) -> int:
    """The steps that a language model is made for."""
    if isinstance(lm.backbone, HF):
        return lm.backbone.context or _CONTEXT_WHERE_UNKNOWN
    return lm.backbone.config.context


def judge_of(recipe: Recipe, lms: nn.ModuleDict) -> tuple[SpeechLM, tuple[str, ...]]:
    """The language model of speech, and those of its streams that are made of the sound.

    :raises ConfigError: there is none, or it reads what is not in a recording, like a text at the same time.
    """
    speech = recipe.speech_stream
    lm = next((lm for lm in lms.values() if isinstance(lm, SpeechLM) and speech in lm.heads), None)
    if lm is None:
        raise ConfigError(f"Model {recipe.name!r} has no language model of {speech!r}. Choose another model.")
    found = []
    for name in lm.layout.streams:
        known = recipe.streams.get(name)
        if known is not None and known.channel == recipe.streams[speech].channel and name in lm.heads:
            if known.sample_rate is not None or known.per_run_of is not None:
                found.append(name)
                continue
            if lm.layout.timed:
                continue  # it may be speech alone
        if name not in lm.layout.markers:
            raise ConfigError(
                f"The language model of {recipe.name!r} has the stream {name!r} beside {speech!r}, which is not in a "
                "recording. Choose a model of speech alone."
            )
    return lm, tuple(found)


def score(lm: SpeechLM, streams: Streams, *, specs: Mapping[str, StreamSpec], context: int | None = None) -> Scores:
    """The log-probability of one row.

    What is longer than the context is scored in windows of its length that overlap by half: each token is
    conditioned on everything before it in the window where it is new, so on at least half a context once that
    much came before it. A window begins as the beginning of a recording does, as in training on long recordings.

    :param streams: of one row: all that the model reads and predicts.
    :param specs: of these, for the times of the tokens.
    :param context: LM steps at once; the model's when not given.
    :raises LayoutError: it is longer than the context, and its streams do not have a token each for the same time.
    """
    whole = {name: tokens.row(0) for name, tokens in streams.items()}
    bare = _bare(whole, specs)
    n, window = _length(whole), _window(lm, bare, context)
    if n > window and len({int(t.lengths[0]) for t in whole.values()} - {0}) > 1:
        sizes = ", ".join(f"{int(t.lengths[0])} of {name!r}" for name, t in whole.items())
        raise LayoutError(f"{sizes} tokens do not fit the context together, nor come in step. Score shorter pieces.")
    parts: dict[str, list[Tensor]] = {name: [] for name in whole}
    end, done, start = 0.0, 0, 0
    while True:
        stop = min(start + window, n)
        log_prob = lm.log_prob({name: tokens.cut(start, stop) for name, tokens in bare.items()})
        for name, tokens in whole.items():
            size = tokens.cut(start, stop).num_tokens
            parts[name].append(log_prob[name][0, :, done - start : size].double().cpu())
            end = float(log_prob[name][0, 0, size]) if log_prob[name].shape[2] > size else end
        done = stop
        if done >= n:
            return _scores({name: torch.cat(p, dim=1) for name, p in parts.items()}, whole, specs, end)
        start = min(start + window // 2, n - window)


def score_rows(lm: SpeechLM, rows: Sequence[Streams], *, specs: Mapping[str, StreamSpec]) -> list[Scores]:
    """The same of several rows: those that are about as long at once, those that are longer than the context alone.

    Whatever stands in a batch with a row changes its log-probabilities by rounding alone, up to some 1e-5 nats each.
    """
    bare = [_bare({name: tokens.row(0) for name, tokens in streams.items()}, specs) for streams in rows]
    found: dict[int, Scores] = {}
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: _length(bare[i])):
        if _length(bare[i]) > _window(lm, bare[i], None):
            found[i] = score(lm, rows[i], specs=specs)
            continue
        if batch and (len(batch) + 1) * _length(bare[i]) > _BATCH_TOKENS:
            found |= _score_batch(lm, rows, bare, batch, specs)
            batch = []
        batch.append(i)
    if batch:
        found |= _score_batch(lm, rows, bare, batch, specs)
    return [found[i] for i in range(len(rows))]


def _score_batch(
    lm: SpeechLM,
    rows: Sequence[Streams],
    bare: Sequence[Streams],
    batch: Sequence[int],
    specs: Mapping[str, StreamSpec],
) -> dict[int, Scores]:
    log_prob = lm.log_prob({name: pad_batch([bare[i][name] for i in batch]) for name in bare[batch[0]]})
    found = {}
    for b, i in enumerate(batch):
        end, own = 0.0, {}
        for name, tokens in bare[i].items():
            size = int(tokens.lengths[0])
            own[name] = log_prob[name][b, :, :size].double().cpu()
            end = float(log_prob[name][b, 0, size]) if log_prob[name].shape[2] > size else end
        found[i] = _scores(own, {name: tokens.row(0) for name, tokens in rows[i].items()}, specs, end)
    return found


def _bare(whole: Streams, specs: Mapping[str, StreamSpec]) -> Streams:
    """Without the lengths of tokens, which are no part of what is predicted; when they begin, a layout may ask."""
    return {
        n: replace(t, durations=None, times=times_of_tokens(t, specs[n], whole, specs)[None]) for n, t in whole.items()
    }


def _length(streams: Streams) -> int:
    return max(int(tokens.lengths[0]) for tokens in streams.values())


def _window(lm: SpeechLM, streams: Streams, context: int | None) -> int:
    """Tokens of each stream that fit the context: a layout may take a step for each codebook, or several at once."""
    n = max(_length(streams), 1)
    # The start of the sequence has a step in the grid, its end has one behind it.
    steps, room = lm.pack(streams).num_steps - 1, (context or context_of(lm)) - 2
    return n if steps <= room else max(room * n // steps, 2)


def _scores(log_probs: Mapping[str, Tensor], whole: Streams, specs: Mapping[str, StreamSpec], end: float) -> Scores:
    values: list[float] = []
    starts: list[float] = []
    for name, own in log_probs.items():
        values += own.T.flatten().tolist()
        times = times_of_tokens(whole[name], specs[name], whole, specs)
        starts += times.repeat_interleave(own.shape[0]).tolist()
    return Scores(tuple(values), tuple(starts), end)


def times_of_tokens(tokens: TokenSequence, spec: StreamSpec, whole: Streams, specs: Mapping[str, StreamSpec]) -> Tensor:
    """The second [T] at which each token of a row begins; what has no clock begins with its like in one that has."""
    n = int(tokens.lengths[0])
    if tokens.times is not None:
        return tokens.times[0].double()
    if spec.frame_rate is None:
        clocks = (name for name, t in whole.items() if specs[name].frame_rate is not None and int(t.lengths[0]) == n)
        clock = next(clocks, None)
        if clock is None:
            return torch.zeros(n, dtype=torch.float64)
        tokens, spec = whole[clock], specs[clock]
    frames = torch.ones(n, dtype=torch.float64) if tokens.durations is None else tokens.durations[0].double()
    return (frames.cumsum(0) - frames) / spec.frame_rate  # type: ignore[operator]
