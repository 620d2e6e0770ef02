"""Every layout: packing loses nothing, lays every cell once, and generation walks the same steps."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import LayoutError
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
    "codes": StreamSpec(kind=Discrete(9, num_codebooks=3), frame_rate=25.0),
    "more": StreamSpec(kind=Discrete(9, num_codebooks=2), frame_rate=25.0),
    "text": StreamSpec(kind=Discrete(30, end=29), frame_rate=None),
    # Without repeats there is no clock before the model has spoken: only it can tell whose token comes next.
    "runs": StreamSpec(kind=Discrete(15), frame_rate=25.0, deduplicated=True),
    "pitch": StreamSpec(kind=Discrete(7), frame_rate=10.0, deduplicated=True),
    "features": StreamSpec(kind=Continuous(4), frame_rate=50.0),
}

LAYOUTS: dict[str, Layout] = {
    "flat": Flat("units"),
    "flat-codebooks": Flat("codes"),
    "flat-open": Flat("units", closed=False),
    "parallel": Parallel(("units", "codes")),
    "delays": Parallel(("text", "codes", "more"), delays=(0, 1, 2, 3, 0, 2)),
    "parallel-open": Parallel(("units", "more"), delays=(0, 0, 1), closed=False),
    "chunks": Chunks({"text": 3, "units": 5}),
    "chunks-codebooks": Chunks({"text": 2, "codes": 3}),
    "merge": Merge(("runs", "pitch")),
    "switch": Switch(("runs", "text")),
    "concat": Concat((Flat("features"), Flat("text"), Parallel(("units", "more"), delays=(0, 1, 1)))),
    "nested": Concat((Flat("features"), Switch(("runs", "text")))),
}


def make(layout: Layout, lengths: dict[str, list[int]], seed: int) -> Streams:
    """Random streams of the layout, with times so that they can be ordered."""
    generator = torch.Generator().manual_seed(seed)
    out: Streams = {}
    for name in layout.streams:
        if name in layout.markers:
            continue
        kind, rows = SPECS[name].kind, lengths[name]
        n = max(rows)
        times = torch.rand((len(rows), n), generator=generator).sort(dim=1).values if layout.timed else None
        if isinstance(kind, Discrete):
            size = kind.codebook_size - (kind.end is not None)
            values = torch.randint(size, (len(rows), kind.num_codebooks, n), generator=generator)
        else:
            values = torch.randn((len(rows), n, kind.dim), generator=generator)
        out[name] = TokenSequence(values, torch.tensor(rows), times=times)
    return out


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, Layout, Streams]:
    name = draw(st.sampled_from(sorted(LAYOUTS)))
    layout = LAYOUTS[name]
    rows = draw(st.integers(1, 3))
    lengths = {s: draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)) for s in layout.streams}
    return name, layout, make(layout, lengths, draw(st.integers(0, 1000)))


@given(cases())
@settings(max_examples=300)
def test_unpacking_gives_back_what_was_packed(case: tuple[str, Layout, Streams]) -> None:
    _, layout, streams = case
    back = layout.unpack(layout.pack(streams, SPECS), SPECS)
    for name, tokens in streams.items():
        assert back[name].lengths.tolist() == tokens.lengths.tolist()
        for b in range(len(tokens)):
            assert torch.equal(back[name].row(b).values, tokens.row(b).values)


@given(cases())
@settings(max_examples=300)
def test_every_cell_is_laid_once_and_every_end(case: tuple[str, Layout, Streams]) -> None:
    _, layout, streams = case
    grid = layout.pack(streams, SPECS)
    ends = layout.ends(SPECS)
    for name, tokens in streams.items():
        kind = SPECS[name].kind
        for b in range(len(tokens)):
            n = int(tokens.lengths[b])
            for k in range(kind.num_codebooks if isinstance(kind, Discrete) else 1):
                seen = Counter(grid.positions[name][b, k][grid.positions[name][b, k] >= 0].tolist())
                wanted = range(n + 1) if k == 0 and name in ends else range(n)
                assert seen == Counter(wanted)


def cells_at(grid: Grid, b: int, s: int) -> dict[Cell, int | torch.Tensor]:
    found: dict[Cell, int | torch.Tensor] = {}
    for name, position in grid.positions.items():
        for k in range(position.shape[1]):
            t = int(position[b, k, s])
            if t >= 0:
                value = grid.values[name]
                found[Cell(name, k, t)] = value[b, s] if value.is_floating_point() else int(value[b, k, s])
    return found


@given(cases())
@settings(max_examples=300)
def test_generation_walks_the_steps_of_training(case: tuple[str, Layout, Streams]) -> None:
    """A cursor that knows nothing, fed with the values of a packed grid, lays that very grid."""
    _, layout, streams = case
    grid = layout.pack(streams, SPECS)
    for b in range(len(grid)):
        # Features and open streams have no end that a model could say: their lengths are given.
        silent = {s for s in layout.streams if s not in layout.ends(SPECS)}
        switched = set().union(*(set(p.switched) for p in _parts(layout) if isinstance(p, Switch)))
        limits = {s: int(streams[s].lengths[b]) for s in silent - switched if s in streams}
        cursor = Cursor(layout, SPECS, {}, limits=limits)
        rows: list[list[Laid]] = []
        while cursor.step is not None and len(rows) < int(grid.lengths[b]):
            truth = cells_at(grid, b, len(rows))
            laid = []
            for slot in cursor.step:
                if isinstance(slot, Choice):
                    cell = next(c for c in slot.cells if c in truth)
                    laid.append(Laid(cell, truth[cell]))
                elif slot is not None and slot in truth:
                    laid.append(Laid(slot, truth[slot]))
                elif slot is not None:
                    # Beyond an end of this very step: whatever a model says there is dropped.
                    laid.append(Laid(slot, 0))
            rows.append(cursor.lay(laid))
        assert cursor.step is None or not any(cursor.step)
        made = grid_of([rows], layout.all_specs(SPECS))
        n = int(grid.lengths[b])
        for name in layout.streams:
            assert torch.equal(made.positions[name][0], grid.positions[name][b, :, :n])
            present = made.positions[name][0] >= 0
            if not grid.values[name].is_floating_point():
                assert torch.equal(made.values[name][0][present], grid.values[name][b, :, :n][present])


def _parts(layout: Layout) -> list[Layout]:
    return [p for part in layout.parts for p in _parts(part)] if isinstance(layout, Concat) else [layout]


def test_chunks_take_turns_until_one_ends() -> None:
    """13 text, 26 speech, 7 text, then speech alone, when the text has 20 cells with its end (GLM-4-Voice)."""
    streams = make(Chunks({"text": 13, "units": 26}), {"text": [19], "units": [99]}, 0)
    grid = Chunks({"text": 13, "units": 26}).pack(streams, SPECS)
    who = ["text" if int(grid.positions["text"][0, 0, s]) >= 0 else "units" for s in range(grid.num_steps)]
    runs = [1]
    for a, b in itertools.pairwise(who):
        runs = [*runs[:-1], runs[-1] + 1] if a == b else [*runs, 1]
    assert runs == [13, 26, 7, 74]


def test_delays_of_moshi() -> None:
    """Text and semantic codes at their frame, the acoustic codebooks one step later (arXiv:2410.00037 §3.4.4)."""
    specs = {
        "text": StreamSpec(kind=Discrete(32000), frame_rate=12.5),
        "moshi": StreamSpec(kind=Discrete(2048, num_codebooks=8), frame_rate=12.5),
        "user": StreamSpec(kind=Discrete(2048, num_codebooks=8), frame_rate=12.5),
    }
    books = (0, 1, 1, 1, 1, 1, 1, 1)
    layout = Parallel(("text", "moshi", "user"), delays=(0, *books, *books), closed=False)
    n = 5
    streams = {
        s: TokenSequence(torch.zeros((1, specs[s].kind.num_codebooks, n), dtype=torch.long), torch.tensor([n]))  # type: ignore[union-attr]
        for s in specs
    }
    grid = layout.pack(streams, specs)
    assert grid.num_steps == n + 1
    for stream in ("moshi", "user"):
        for k, delay in enumerate(books):
            first = (grid.positions[stream][0, k] == 0).nonzero().item()
            assert first == delay


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        (Flat("units"), {"units": TokenSequence(torch.full((1, 1, 3), 20), torch.tensor([3]))}, "outside 0"),
        (Flat("units"), {}, "missing"),
        (Flat("units"), {"units": TokenSequence(torch.zeros((1, 2, 3), dtype=torch.long), torch.tensor([3]))}, "shape"),
        (Parallel(("units",), delays=(0, 1)), {}, "delays"),
    ],
)
def test_what_does_not_fit_is_refused(layout: Layout, change: Streams, message: str) -> None:
    streams = change or ({} if message == "missing" else make(layout, {"units": [3]}, 0))
    with pytest.raises(LayoutError, match=message):
        layout.pack(streams, SPECS)
