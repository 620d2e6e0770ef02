"""ABX beside loops that are written from its definition."""

import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, DataError
from lalia.evaluation.representation import Item, Representation, abx
from lalia.evaluation.representation import distances as distances_module
from lalia.evaluation.representation.abx_task import frames_of_item
from lalia.evaluation.representation.distances import Frames, group_distances
from lalia.evaluation.representation.dtw import STEP, Blocks, warped

# -- references -------------------------------------------------------------------------------------


def naive_dtw(costs):
    """Mean cost on the path of least cost; of several the shortest."""
    n, m = costs.shape
    best = {}
    for i, j in product(range(n), range(m)):
        before = [best[p] for p in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if p in best]
        cost, steps = min(before) if before else (0, 0)
        best[i, j] = (cost + costs[i, j], steps + 1)
    cost, steps = best[n - 1, m - 1]
    return cost / steps


def frame_distance(kind, p, q):
    if kind == "identical":
        return 0.0 if p == q else 1.0
    if kind == "euclidean":
        return float(np.linalg.norm(p - q))
    lengths = np.linalg.norm(p), np.linalg.norm(q)
    if 0 in lengths:
        return 0.0 if lengths[0] == lengths[1] else 1.0
    return math.acos(min(max(float(p @ q) / lengths[0] / lengths[1], -1), 1)) / math.pi


def item_distance(kind, p, q):
    # Whole numbers, so that paths of the same cost are not told apart by rounding.
    costs = np.array([[round(frame_distance(kind, x, y) * 2**24) for y in q] for x in p])
    return naive_dtw(costs) / 2**24


def naive_abx(items, pieces, speaker, context, kind):
    """Cell by cell, triplet by triplet; then over contexts, over speakers, over pairs of phones."""

    def where(i):
        return (items[i].previous, items[i].following) if context == "within" else None

    cells = defaultdict(list)
    every = range(len(items))
    near = {(i, j): item_distance(kind, pieces[i], pieces[j]) for i in every for j in every}
    for a, b, x in product(every, every, every):
        one, other, third = items[a], items[b], items[x]
        if a == x or where(a) != where(b) or where(a) != where(x) or one.speaker != other.speaker:
            continue
        if one.phone != third.phone or one.phone == other.phone:
            continue
        if (one.speaker == third.speaker) != (speaker == "within"):
            continue
        dxa, dxb = near[x, a], near[x, b]
        wrong = 0.5 if dxa == dxb else float(dxa > dxb)
        cells[one.phone, other.phone, one.speaker, third.speaker, where(a)].append(wrong)
    pairs = defaultdict(lambda: defaultdict(list))
    for (phone, other, who, _, _), errors in cells.items():
        key = who if context == "within" or speaker == "within" else ""
        pairs[phone, other][key].append(np.mean(errors))
    if not pairs:
        return None
    return float(np.mean([np.mean([np.mean(e) for e in speakers.values()]) for speakers in pairs.values()]))


@st.composite
def tasks(draw, kind):
    """Items of few names, so that there is something to compare, one recording for each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    items, recordings = [], {}
    for n in range(draw(st.integers(6, 14))):
        length = int(rng.integers(1, 5))
        phone, before, who = rng.choice(list("pbt")), rng.choice(list("ae")), rng.choice(["anna", "ben", "cy"])
        items.append(Item(f"f{n}", 0.0, length / 10, str(phone), str(before), "n", str(who)))
        if kind == "identical":
            recordings[f"f{n}"] = torch.from_numpy(rng.integers(0, 3, length))
        else:
            # Few values: there are ties, and frames of length 0. Euclidean distances are whole numbers.
            width = 3 if kind == "angular" else 1
            recordings[f"f{n}"] = torch.from_numpy(rng.integers(-1, 2, (length, width)).astype(np.float64))
    return items, recordings


@pytest.mark.parametrize("kind", ["angular", "euclidean", "identical"])
@pytest.mark.parametrize("context", ["within", "any"])
@pytest.mark.parametrize("speaker", ["within", "across"])
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_as_defined(speaker, context, kind, data):
    items, recordings = data.draw(tasks(kind))
    expected = naive_abx(items, [recordings[i.file].numpy() for i in items], speaker, context, kind)
    how = {"speaker": speaker, "context": context, "distance": kind, "max_size_group": None, "max_x_across": None}
    if expected is None:
        with pytest.raises(DataError, match="none can be compared"):
            abx(items, Representation(recordings, 10.0), **how)
        return
    found = abx(items, Representation(recordings, 10.0), **how)
    assert found.error().value == pytest.approx(expected, abs=1e-9)
    shuffled = data.draw(st.permutations(items))
    assert list(abx(shuffled, Representation(recordings, 10.0), **how)) == list(found)


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_warping(seed, n, m, units):
    rng = np.random.default_rng(seed)
    pairs, dtype = 7, np.float32 if units else np.float64
    rows, columns = rng.integers(1, n + 1, pairs), rng.integers(1, m + 1, pairs)
    costs = rng.integers(0, 2 if units else 2**28, (pairs, n, m))
    flat = costs.astype(dtype).ravel() + dtype(STEP)
    start, one = np.arange(pairs) * n * m, np.ones(pairs, np.int64)
    found = warped(flat, Blocks(start, one * m, one, rows, columns))
    expected = [naive_dtw(c[:a, :b]) for c, a, b in zip(costs, rows, columns, strict=True)]
    assert found == pytest.approx(expected, rel=1e-12)
    # Symmetric: the costs read the other way.
    assert (warped(flat, Blocks(start, one, one * m, columns, rows)) == found).all()


def test_worked_example():
    """X is 0 1; A is 0 0 1 and costs nothing; B is 1 1: its path has two steps, of which the first costs 1."""
    recordings = {"x": [0, 1], "a": [0, 0, 1], "b": [1, 1]}
    items = [Item(f, 0.0, len(u) / 10, "b" if f == "b" else "a", "s", "t", "anna") for f, u in recordings.items()]
    representation = Representation({k: torch.tensor(v) for k, v in recordings.items()}, 10.0)
    (cell,) = abx(items, representation)
    assert cell == ("a", "b", ("s", "t"), "anna", "anna", 0.0, 2)
    frames = Frames.of([representation.recordings[f] for f in "xab"], "identical")
    found = group_distances(frames, np.arange(4), np.array([0, 2, 2]), np.array([1, 0, 1]))
    # a b: 0 0 1 by 1 1 is warped as 1 1 0, three steps.
    assert found.values == pytest.approx([0, 1 / 2, 2 / 3])


def test_all_tied_is_chance():
    items = [Item(f"f{i}", 0.0, 0.1 * (1 + i % 3), "ab"[i % 2], "s", "t", "anna") for i in range(8)]
    same = Representation({i.file: torch.ones(3, 4) for i in items}, 10.0)
    assert abx(items, same).error().value == 0.5


def _many(seed=0, count=300):
    rng = np.random.default_rng(seed)
    items, recordings = [], {}
    for n in range(count):
        length = int(rng.integers(3, 9))
        phone, who = int(rng.integers(4)), str(rng.choice(["anna", "ben", "cy", "di"]))
        items.append(Item(f"f{n}", 0.0, length / 50, "ptkb"[phone], "s", "t", who))
        recordings[f"f{n}"] = torch.from_numpy(rng.standard_normal((length, 8)) + np.eye(8)[phone])
    return items, Representation(recordings, 50.0)


@pytest.mark.parametrize("speaker", ["within", "across"])
def test_how_much_is_done_at_once_does_not_matter(speaker, monkeypatch):
    items, representation = _many()
    whole = abx(items, representation, speaker=speaker)
    monkeypatch.setattr(distances_module, "_AT_ONCE", 500)
    monkeypatch.setattr("lalia.evaluation.representation.dtw._PAIRS", 3)
    monkeypatch.setattr("lalia.evaluation.representation.abx_task._TRIPLETS", 50)
    assert list(abx(items, representation, speaker=speaker)) == list(whole)


def test_what_is_drawn():
    items, representation = _many()
    few = abx(items, representation, speaker="across", max_size_group=3, max_x_across=2)
    assert np.diff(few.cells.bounds).max() == 3
    heard = defaultdict(set)
    for cell in few:
        heard[cell.phone, cell.other, cell.speaker].add(cell.heard)
    assert {len(s) for s in heard.values()} == {2}
    how = {"speaker": "across", "max_size_group": 3, "max_x_across": 2}
    assert list(abx(items[::-1], representation, **how)) == list(few)
    assert list(abx(items, representation, seed=1, **how)) != list(few)
    # Another speaker changes nothing of what is drawn for the first.
    others = [i for i in items if i.speaker != "di"]
    kept = {items[i] for i in few.cells.chosen if items[i].speaker != "di"}
    again = abx(others, representation, **how)
    assert kept == {others[i] for i in again.cells.chosen}


def test_interval_and_pairs():
    items, representation = _many()
    found = abx(items, representation)
    estimate = found.error()
    assert estimate.n == 6  # of four phones
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == pytest.approx(np.mean(list(found.pairs.values())))
    assert len(found.pairs) == 12
    assert len(found) == len(list(found))


def test_pooled():
    items, representation = _many()
    pooled = {k: v.mean(0, keepdim=True) for k, v in representation.recordings.items()}
    short = [i._replace(offset=0.02) for i in items]
    assert abx(items, representation, pool=True).error() == abx(short, Representation(pooled, 50.0)).error()


def test_no_single_precision_below_float32():
    items, representation = _many()
    halves = Representation({k: v.half() for k, v in representation.recordings.items()}, 50.0)
    assert abx(items, halves).error().value == pytest.approx(abx(items, representation).error().value, abs=0.01)


@pytest.mark.parametrize(
    ("onset", "offset", "rate", "frames"),
    [
        (0.0, 0.1, 50.0, range(5)),
        (0.01, 0.07, 50.0, range(4)),  # both are centres
        (0.011, 0.069, 50.0, range(1, 3)),
        (0.2925, 0.4725, 100.0, range(29, 47)),
        (0.07, 0.09, 50.0, range(3, 5)),
        (0.04, 0.2, 12.5, range(3)),
    ],
)
def test_frames_by_their_centres(onset, offset, rate, frames):
    item = Item("f", onset, offset, "a", "s", "t", "anna")
    assert frames_of_item(item, Representation({"f": torch.arange(60)}, rate)).tolist() == list(frames)


@pytest.mark.parametrize(("onset", "offset"), [(0.0, 0.3), (0.031, 0.049), (0.5, 0.6)])
def test_frames_that_are_not_there(onset, offset):
    with pytest.raises(DataError, match=r"'f' has 10 frames, but its item from .* Check the rate, or leave it out\."):
        frames_of_item(Item("f", onset, offset, "a", "s", "t", "x"), Representation({"f": torch.arange(10)}, 50.0))


def test_refusals():
    items, representation = _many(count=60)
    units = Representation({k: torch.zeros(len(v), dtype=torch.long) for k, v in representation.recordings.items()}, 50)
    with pytest.raises(DataError, match="There is no recording 'nobody'"):
        abx([*items, items[0]._replace(file="nobody")], representation)
    with pytest.raises(DataError, match="Of 0 items none can be compared"):
        abx([], representation)
    with pytest.raises(ConfigError, match="Units have no angular distance"):
        abx(items, units, distance="angular")
    with pytest.raises(ConfigError, match="Features have no identical distance"):
        abx(items, representation, distance="identical")
    with pytest.raises(ConfigError, match="no pooling"):
        abx(items, units, pool=True)
    with pytest.raises(ConfigError, match=r"max_size_group is 1\. Give at least 2"):
        abx(items, representation, max_size_group=1)
    with pytest.raises(ConfigError, match="There is no ABX among speakers"):
        abx(items, representation, speaker="among")
    with pytest.raises(ConfigError, match="There is no distance 'cosine'"):
        abx(items, representation, distance="cosine")
    long = Representation({k: torch.ones(3000, 2) for k in representation.recordings}, 50.0)
    with pytest.raises(DataError, match="has 3000 frames"):
        abx([i._replace(offset=60.0) for i in items], long)
