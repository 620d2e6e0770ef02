"""How likely a language model finds a recording, of any length."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError, LayoutError
from lalia.layouts import Grid
from lalia.lm import HF, SpeechLM
from lalia.lm.rows import columns_of, log_prob_of_rows, one_after_another, shared_steps
from lalia.recipe import Recipe
from lalia.streams import Streams, StreamSpec, TokenSequence, pad_batch

__all__ = ["Scores", "context_of", "judge_of", "score", "score_rows", "times_of_tokens"]

_CONTEXT_WHERE_UNKNOWN = 2048

_BATCH_TOKENS = 2048
"""Of each stream, with padding, where rows are padded."""

_CHAIN_STEPS = 768
"""Of the language model where they are not: enough for its products, and what comes between two stays in the cache."""


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
    n, window = _length(whole), _window(lm, bare, lm.pack(bare).num_steps, context)
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
    """The same of several rows at once: of those that begin alike, the beginning once; those that are longer than the
    context alone.

    Whatever stands in a batch with a row changes its log-probabilities by rounding alone, up to some 1e-5 nats each.
    """
    bare = [_bare({name: tokens.row(0) for name, tokens in streams.items()}, specs) for streams in rows]
    grids = [lm.pack(streams) for streams in bare]
    found: dict[int, Scores] = {}
    short = []
    for i, grid in enumerate(grids):
        if _length(bare[i]) > _window(lm, bare[i], grid.num_steps, None):
            found[i] = score(lm, rows[i], specs=specs)
        else:
            short.append(i)
    chains = one_after_another(lm, [grids[i].num_steps for i in short])
    for batch, log_probs in _chains(lm, grids, short) if chains else _padded(lm, bare, short):
        for i, log_prob in zip(batch, log_probs, strict=True):
            end, own = 0.0, {}
            for name, tokens in bare[i].items():
                size = int(tokens.lengths[0])
                own[name] = log_prob[name][0, :, :size].double().cpu()
                end = float(log_prob[name][0, 0, size]) if log_prob[name].shape[2] > size else end
            found[i] = _scores(own, {name: tokens.row(0) for name, tokens in rows[i].items()}, specs, end)
    return [found[i] for i in range(len(rows))]


_Batches = Iterator[tuple[Sequence[int], Sequence[Mapping[str, Tensor]]]]
"""Rows by number, and the log-probabilities [1, K, T] of each by stream."""


def _chains(lm: SpeechLM, grids: Sequence[Grid], rows: Sequence[int]) -> _Batches:
    """Rows as one sequence without padding, in an order in which those that begin alike follow one another."""
    columns = {i: columns_of(grids[i]) for i in rows}
    same: dict[object, list[int]] = {}
    for i in rows:
        same.setdefault(i if columns[i] is None else tuple(columns[i] or ()), []).append(i)
    batch: list[list[int]] = []
    shared: list[int] = []
    steps = 0

    def done() -> tuple[Sequence[int], Sequence[Mapping[str, Tensor]]]:
        found = log_prob_of_rows(lm, [grids[of[0]] for of in batch], shared)
        return [i for of in batch for i in of], [
            log_prob for of, log_prob in zip(batch, found, strict=True) for _ in of
        ]

    for of in sorted(same.values(), key=lambda of: columns[of[0]] or []):
        size = grids[of[0]].num_steps
        alike = shared_steps(columns[batch[-1][0]], columns[of[0]]) if batch else 0
        if batch and steps + size - alike > _CHAIN_STEPS:
            yield done()
            batch, shared, steps, alike = [], [], 0, 0
        batch.append(of)
        shared.append(alike)
        steps += size - alike
    if batch:
        yield done()


def _padded(lm: SpeechLM, bare: Sequence[Streams], rows: Sequence[int]) -> _Batches:
    """Rows that are about as long, padded to the longest."""
    batch: list[int] = []

    def done() -> tuple[Sequence[int], Sequence[Mapping[str, Tensor]]]:
        log_prob = lm.log_prob({name: pad_batch([bare[i][name] for i in batch]) for name in bare[batch[0]]})
        return batch, [{name: found[b : b + 1] for name, found in log_prob.items()} for b in range(len(batch))]

    for i in sorted(rows, key=lambda i: _length(bare[i])):
        if batch and (len(batch) + 1) * _length(bare[i]) > _BATCH_TOKENS:
            yield done()
            batch = []
        batch.append(i)
    if batch:
        yield done()


def _bare(whole: Streams, specs: Mapping[str, StreamSpec]) -> Streams:
    """Without the lengths of tokens, which are no part of what is predicted; when they begin, a layout may ask."""
    return {
        n: replace(t, durations=None, times=times_of_tokens(t, specs[n], whole, specs)[None]) for n, t in whole.items()
    }


def _length(streams: Streams) -> int:
    return max(int(tokens.lengths[0]) for tokens in streams.values())


def _window(lm: SpeechLM, streams: Streams, steps: int, context: int | None) -> int:
    """Tokens of each stream that fit the context: a layout may take a step for each codebook, or several at once.

    :param steps: that all of them take.
    """
    n = max(_length(streams), 1)
    # The start of the sequence has a step in the grid, its end has one behind it.
    steps, room = steps - 1, (context or context_of(lm)) - 2
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
