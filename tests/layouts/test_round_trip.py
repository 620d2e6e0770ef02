"""Every layout, nested at random: packing loses nothing, lays every cell once, and generation walks the same steps."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lalia.layouts import (
    Cell,
    Choice,
    Chunks,
    Concat,
    Cursor,
    Flat,
    Grid,
    Laid,
    Layout,
    Merge,
    Parallel,
    Switch,
    grid_of,
)
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence

SPECS = {
    "units": StreamSpec(kind=Discrete(20), frame_rate=25.0),
    "slow": StreamSpec(kind=Discrete(5), frame_rate=10.0),
    "codes": StreamSpec(kind=Discrete(9, num_codebooks=3), frame_rate=25.0),
    "more": StreamSpec(kind=Discrete(9, num_codebooks=2), frame_rate=25.0),
    "text": StreamSpec(kind=Discrete(30, end=29), frame_rate=None),
    "runs": StreamSpec(kind=Discrete(15), frame_rate=25.0, deduplicated=True),
    "pitch": StreamSpec(kind=Discrete(7), frame_rate=10.0, deduplicated=True),
    "heard": StreamSpec(kind=Continuous(4), frame_rate=50.0),
}


def codebooks(name: str) -> int:
    kind = SPECS[name].kind
    return kind.num_codebooks if isinstance(kind, Discrete) else 1


def timed(layout: Layout) -> set[str]:
    """The streams that a part of the layout orders by time."""
    if isinstance(layout, Concat):
        return set().union(*(timed(p) for p in layout.parts))
    return set(layout.streams) if layout.timed else set()


@st.composite
def parts(draw: st.DrawFn, streams: tuple[str, ...], number: int) -> Layout:
    """A layout of exactly these streams."""
    makers: list[Callable[[], Layout]] = []
    closed = draw(st.booleans())
    if len(streams) == 1:
        makers.append(lambda: Flat(streams[0], closed=closed))
    columns = [(s, k) for s in streams for k in range(codebooks(s))]

    def parallel() -> Layout:
        delays = [draw(st.integers(0, 4)) for _ in columns]
        if closed:
            delays = [max(d, delays[columns.index((s, 0))]) for (s, _), d in zip(columns, delays, strict=True)]
        return Parallel(streams, delays=tuple(delays) if draw(st.booleans()) else (), closed=closed)

    makers += [parallel, lambda: Chunks({s: draw(st.integers(1, 5)) for s in streams}, closed=closed)]
    if all(codebooks(s) == 1 and isinstance(SPECS[s].kind, Discrete) for s in streams):
        makers += [lambda: Merge(streams, closed=closed), lambda: Switch(streams, marker=f"switch{number}")]
        if len(streams) > 2:
            beside = {streams[0]: streams[1:2], streams[2]: streams[3:]}
            makers.append(lambda: Switch(streams[::2][:2], marker=f"switch{number}", beside=beside))
    return draw(st.sampled_from(makers))()


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    streams = draw(st.lists(st.sampled_from(sorted(SPECS)), min_size=1, max_size=5, unique=True))
    groups: list[Layout] = []
    while streams:
        n = draw(st.integers(1, len(streams)))
        groups.append(draw(parts(tuple(streams[:n]), len(groups))))
        streams = streams[n:]
    if len(groups) > 2 and draw(st.booleans()):
        groups = [groups[0], Concat(tuple(groups[1:]))]
    return Concat(tuple(groups)) if len(groups) > 1 or draw(st.booleans()) else groups[0]


@dataclass(frozen=True)
class Case:
    layout: Layout
    streams: Streams
    cut: float


@st.composite
def cases(draw: st.DrawFn, *, inner_ends: bool = False) -> Case:
    layout = draw(layouts())
    rows = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    streams: Streams = {}
    for name in (s for s in layout.streams if s not in layout.markers):
        spec, kind = SPECS[name], SPECS[name].kind
        lengths = draw(st.lists(st.integers(0, 7), min_size=rows, max_size=rows))
        n = max(lengths)
        if isinstance(kind, Discrete):
            # In a chat, the end that a text has of its own is among its tokens; a model that says it has ended.
            size = kind.codebook_size - (kind.end is not None and not inner_ends)
            values = torch.randint(size, (rows, kind.num_codebooks, n), generator=generator)
        else:
            values = torch.randn((rows, n, kind.dim), generator=generator)
        tokens = TokenSequence(values, torch.tensor(lengths))
        if name in timed(layout):
            if spec.deduplicated:
                tokens = replace(tokens, durations=torch.randint(1, 4, (rows, n), generator=generator))
            elif not spec.clocked:
                # Quarters of a second, so that some tokens of two streams begin together.
                at = torch.randint(0, 6, (rows, n), generator=generator).sort(dim=1).values / 4
                tokens = replace(tokens, times=at)
        streams[name] = tokens
    return Case(layout, streams, draw(st.floats(0.0, 1.0)))


@given(cases(inner_ends=True))
@settings(max_examples=250)
def test_unpacking_gives_back_what_was_packed(case: Case) -> None:
    back = case.layout.unpack(case.layout.pack(case.streams, SPECS), SPECS)
    for name, tokens in case.streams.items():
        assert back[name].lengths.tolist() == tokens.lengths.tolist()
        for b in range(len(tokens)):
            assert torch.equal(back[name].row(b).values, tokens.row(b).values)


@given(cases(inner_ends=True))
@settings(max_examples=250)
def test_every_cell_is_laid_once_and_every_end(case: Case) -> None:
    grid = case.layout.pack(case.streams, SPECS)
    ends = case.layout.ends(SPECS)
    for name, tokens in case.streams.items():
        for b in range(len(tokens)):
            n = int(tokens.lengths[b])
            for k in range(codebooks(name)):
                position = grid.positions[name][b, k]
                assert Counter(position[position >= 0].tolist()) == Counter(range(n + (k == 0 and name in ends)))
                if k == 0 and name in ends:
                    kind = SPECS[name].kind
                    assert isinstance(kind, Discrete)
                    assert int(grid.values[name][b, 0, int(position.argmax())]) == kind.end_id
    for b in range(len(grid)):
        used = torch.stack([(p[b] >= 0).any(dim=0) for p in grid.positions.values()]).any(dim=0)
        assert not used[int(grid.lengths[b]) :].any(), "cells in padding"


@given(cases(inner_ends=True))
@settings(max_examples=50)
def test_rows_are_laid_out_alike_alone_and_in_a_batch(case: Case) -> None:
    grid = case.layout.pack(case.streams, SPECS)
    for b in range(len(grid)):
        alone = case.layout.pack({n: t.row(b) for n, t in case.streams.items()}, SPECS)
        n = int(grid.lengths[b])
        assert alone.num_steps == n
        for name, position in alone.positions.items():
            assert torch.equal(position[0], grid.positions[name][b, :, :n])


def truth(grid: Grid, b: int, s: int) -> dict[Cell, int | torch.Tensor]:
    """The cells of one step with their values."""
    found: dict[Cell, int | torch.Tensor] = {}
    for name, position in grid.positions.items():
        for k in range(position.shape[1]):
            t = int(position[b, k, s])
            if t >= 0:
                value = grid.values[name]
                found[Cell(name, k, t)] = value[b, s] if value.is_floating_point() else int(value[b, k, s])
    return found


def walk(case: Case, grid: Grid, b: int, known: Streams, complete: set[str]) -> None:
    """Feed a cursor with the values of a packed grid; it must lay that very grid, and then be over."""
    layout = case.layout
    ends = layout.ends(SPECS)
    # Streams without an end are cut off by the caller; in Switch, the marker says when.
    switched = {s for s in timed(layout) if s not in layout.markers and s not in ends} - merged(layout)
    limits = {n: int(t.lengths[b]) for n, t in case.streams.items() if n not in ends and n not in switched}
    cursor = Cursor(layout, SPECS, known, complete=sorted(complete), limits=limits)
    steps: list[list[Laid]] = []
    while cursor.step is not None and len(steps) < int(grid.lengths[b]):
        there = truth(grid, b, len(steps))
        laid = []
        for slot in cursor.step:
            if isinstance(slot, Choice):
                cell = next(c for c in slot.cells if c in there)
                laid.append(Laid(cell, there[cell]))
            elif slot is not None:
                # Beyond an end of this very step, whatever a model says is dropped.
                value = cursor.given(slot)
                laid.append(Laid(slot, there.get(slot, 0) if value is None else value))
        steps.append(cursor.lay(laid))
    assert cursor.step is None
    made = grid_of([steps], layout.all_specs(SPECS))
    n = int(grid.lengths[b])
    assert len(steps) == n
    for name in layout.streams:
        position = made.positions[name][0]
        assert torch.equal(position, grid.positions[name][b, :, :n])
        if grid.values[name].is_floating_point():
            there = position[0] >= 0
            assert torch.equal(made.values[name][0][there], grid.values[name][b, :n][there])
        else:
            there = position >= 0
            assert torch.equal(made.values[name][0][there], grid.values[name][b, :, :n][there])


def merged(layout: Layout) -> set[str]:
    if isinstance(layout, Concat):
        return set().union(*(merged(p) for p in layout.parts))
    return set(layout.streams) if isinstance(layout, Merge) else set()


def spoken_for(case: Case) -> set[str]:
    """Streams that no model predicts: they are always given whole."""
    return {n for n in case.streams if isinstance(SPECS[n].kind, Continuous)}


@given(cases())
@settings(max_examples=250)
def test_generation_from_nothing_walks_the_steps_of_training(case: Case) -> None:
    grid = case.layout.pack(case.streams, SPECS)
    whole = spoken_for(case)
    for b in range(len(grid)):
        walk(case, grid, b, {n: case.streams[n].row(b) for n in whole}, whole)


@given(cases())
@settings(max_examples=250)
def test_generation_after_a_prompt_walks_the_steps_of_training(case: Case) -> None:
    layout, grid = case.layout, case.layout.pack(case.streams, SPECS)
    whole = spoken_for(case)
    for b in range(len(grid)):
        last = round(case.cut * int(grid.lengths[b]))
        known = {}
        for name, tokens in case.streams.items():
            here = grid.positions[name][b, :, :last]
            # Frames of which every codebook is laid by then.
            n = min(int((here[k] >= 0).sum()) for k in range(len(here)))
            n = int(tokens.lengths[b]) if name in whole else min(n, int(tokens.lengths[b]))
            row = tokens.row(b)
            known[name] = row.cut(0, n) if n else replace(row.cut(0, 0), lengths=torch.tensor([0]))
        walk(case, grid, b, layout.mark(known, SPECS), whole)


@given(cases(inner_ends=True))
@settings(max_examples=100)
def test_what_is_known_whole_is_laid_without_a_question(case: Case) -> None:
    grid = case.layout.pack(case.streams, SPECS)
    for b in range(len(grid)):
        row = case.layout.mark({n: t.row(b) for n, t in case.streams.items()}, SPECS)
        cursor = Cursor(case.layout, SPECS, row, complete=case.layout.streams)
        steps = 0
        while (laid := cursor.known_step()) is not None:
            assert {i.cell for i in laid} == set(truth(grid, b, steps))
            cursor.lay(laid)
            steps += 1
        assert cursor.step is None
        assert steps == int(grid.lengths[b])


@given(cases())
@settings(max_examples=100)
def test_streams_given_whole_among_streams_to_come(case: Case) -> None:
    """Where order does not hang on time, any streams may be there already (a question beside its answer)."""
    assume(not case.layout.timed)
    grid = case.layout.pack(case.streams, SPECS)
    names = sorted(case.streams)
    whole = spoken_for(case) | {n for i, n in enumerate(names) if (i + int(case.cut * 8)) % 2}
    for b in range(len(grid)):
        walk(case, grid, b, {n: case.streams[n].row(b) for n in whole}, whole)
