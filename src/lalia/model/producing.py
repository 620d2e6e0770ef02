"""Generation through all language models of a recipe, in the order in which they run."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from lalia.layouts import Switch
from lalia.layouts.extent import times_of
from lalia.lm import CTC, Graph, Sampler, SpeechLM, collect
from lalia.lm.generation import HIDDEN
from lalia.lm.graph import HIDDEN_SUFFIX
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence

__all__ = ["Wanted", "join_tokens", "produce"]


@dataclass(frozen=True)
class Wanted:
    """How much of what is to be made.

    :param seconds: from the beginning of the streams; it bounds those that have a clock.
    :param tokens: most tokens of streams without one, the known ones counted.
    :param ends: whether streams may end before that.
    """

    seconds: float
    tokens: Callable[[str], int]
    ends: bool


def produce(
    lms: Mapping[str, SpeechLM],
    known: Streams,
    wanted: Wanted,
    *,
    complete: Collection[str] = (),
    temperature: float | None = None,
    seed: int = 0,
) -> Streams:
    """Known streams of one row with what the language models make of them.

    Streams that are laid by time come back with ``times``: those of the known tokens in seconds, and later ones that
    tell the order in which the others were made.

    :param known: prompts and questions.
    :param complete: streams of which nothing more comes.
    :param temperature: of every stream that is sampled; the recipe's settings when not given.
    """
    graph = Graph(lms)
    streams: Streams = dict(known)
    done = set(complete)
    for name, lm in graph.lms.items():
        for feeder in graph.feeders(name):
            if feeder + HIDDEN_SUFFIX not in streams:
                streams[feeder + HIDDEN_SUFFIX] = _hidden(graph, feeder, streams)
        done |= {s for s in lm.layout.streams if s.endswith(HIDDEN_SUFFIX)}
        own = {s: streams[s] for s in lm.layout.streams if s in streams}
        if lm.layout.timed:
            streams |= {s: _timed(t, lm.specs[s]) for s, t in own.items()}
        if lm.aligned:
            made = _along(lm, own)
        else:
            reads_it = any(name in graph.feeders(n) for n in graph.lms if n != name)
            made = _generate(lm, own, wanted, done, temperature, seed, graph.source(name) if reads_it else None)
            if HIDDEN in made:
                streams[name + HIDDEN_SUFFIX] = made.pop(HIDDEN)
        for stream, tokens in made.items():
            streams[stream] = join_tokens(streams[stream], tokens) if stream in own else tokens
        done |= set(lm.heads)
    return streams


def _generate(
    lm: SpeechLM,
    known: Streams,
    wanted: Wanted,
    done: Collection[str],
    temperature: float | None,
    seed: int,
    hidden_of: str | None,
) -> Streams:
    sampler = with_temperature(lm.config.sampler, temperature)
    limits: dict[str, int] = {}
    for stream in lm.heads:
        spec = lm.specs[stream]
        if stream in done or stream in lm.layout.markers:
            continue
        clocked = spec.clocked and spec.frame_rate is not None
        limits[stream] = round(wanted.seconds * (spec.frame_rate or 0.0)) if clocked else wanted.tokens(stream)
        if not wanted.ends and isinstance(spec.kind, Discrete) and stream in lm.ends:
            sampler = sampler.ban(**{stream: ((spec.kind.end_id, spec.kind.end_id + 1),)})
    if isinstance(lm.layout, Switch):
        open_ = [s for s in lm.layout.switched if s not in done]
        if len(open_) == 1 and open_[0] in known and known[open_[0]].num_tokens:
            # The one span that can go on is open: nothing turns.
            limits[lm.layout.marker] = 1
    plain = {s: t for s, t in known.items() if s not in lm.layout.markers}
    books = lm.layout.num_codebooks(lm.specs)
    parts = lm.generate(
        plain,
        sampler=sampler,
        complete=[s for s in done if s in lm.specs],
        limits=limits,
        # A model that switches between streams without end would never stop.
        max_steps=2 * sum(n * books[s] for s, n in limits.items()) + 16,
        seeds=[seed],
        hidden_of=hidden_of,
    )
    if lm.layout.timed:
        timed = [t.times for s, x in plain.items() if (t := _timed(x, lm.specs[s])).times is not None]
        parts = _in_order(parts, max((float(x.max()) + 1 for x in timed if x.numel()), default=0.0))
    return collect(parts)


def _timed(tokens: TokenSequence, spec: StreamSpec) -> TokenSequence:
    """The tokens of one row with their times, where these are known."""
    clock = times_of(tokens, spec)
    at = [x for t in range(int(tokens.lengths[0])) if (x := clock.at(t)) is not None]
    return replace(tokens, times=torch.tensor([at], dtype=torch.float64)) if len(at) == tokens.num_tokens else tokens


def _in_order(parts: Iterable[Streams], first: float) -> Iterator[Streams]:
    """The parts with the number of their step, from ``first`` on, for the times of their tokens."""
    for step, part in enumerate(parts):
        yield {
            n: replace(t, times=torch.full((len(t), t.num_tokens), first + step, dtype=torch.float64))
            for n, t in part.items()
        }


def _along(lm: SpeechLM, known: Streams) -> Streams:
    """What aligned heads find along the steps."""
    with torch.inference_mode():
        grid = lm.pack(known)
        hidden = lm(grid)
        lengths = grid.lengths * lm.config.upsample
        out = {}
        for stream in lm.heads:
            head = lm.head(stream)
            assert isinstance(head, CTC)
            out[stream] = head.decode(lm.hidden_of(stream, hidden), lengths)
    return out


def _hidden(graph: Graph, name: str, streams: Streams) -> TokenSequence:
    """The hidden states of a language model whose streams are all there."""
    with torch.inference_mode():
        needed = {s: streams[s] for s in graph.streams(name)}
        grid = graph.fill(name, {n: g.to(graph.lms[n].start.device) for n, g in graph.grids(name, needed).items()})
        hidden = graph.hidden(name, grid)
    return TokenSequence(hidden, torch.tensor([hidden.shape[1]]))


def with_temperature(sampler: Sampler, temperature: float | None) -> Sampler:
    """The sampler with another temperature for every stream that is not taken greedily."""
    if temperature is None:
        return sampler
    streams = {s: x if x.temperature == 0 else replace(x, temperature=temperature) for s, x in sampler.streams.items()}
    return replace(sampler, default=replace(sampler.default, temperature=temperature), streams=streams)


def join_tokens(known: TokenSequence, new: TokenSequence) -> TokenSequence:
    """One row behind another; durations, which only the known ones have, are dropped, and so are times of one alone."""
    first, times = known.row(0), None
    if known.times is not None and new.times is not None:
        times = torch.cat([first.times.to(new.times), new.row(0).times], dim=1)  # type: ignore[union-attr, list-item]
    axis = 2 if first.discrete else 1
    values = torch.cat([first.values.to(new.values.dtype), new.row(0).values.to(first.values.device)], dim=axis)
    return TokenSequence(values, torch.tensor([values.shape[axis]]), times=times)
