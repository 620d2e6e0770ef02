import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.errors import LayoutError
from lalia.streams import TokenSequence, pad_batch
from lalia.tokenizers import durations_of, frames_of, pool_by_runs

CODES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30), min_size=1, max_size=3)


def batch(rows: list[list[int]]) -> TokenSequence:
    return pad_batch([TokenSequence(torch.tensor(r)[None, None], torch.tensor([len(r)])) for r in rows])


def runs(row: list[int]) -> list[list[int]]:
    """The frames of each run."""
    found: list[list[int]] = []
    for t, code in enumerate(row):
        if t and row[t - 1] == code:
            found[-1].append(t)
        else:
            found.append([t])
    return found


@given(CODES, st.booleans(), st.integers(1, 5))
def test_durations_are_those_of_the_runs(rows: list[list[int]], deduplicated: bool, bins: int) -> None:
    units = batch(rows).deduplicate() if deduplicated else batch(rows)
    binned, continuous = durations_of(units, bins), durations_of(units)
    assert binned.durations is None
    assert continuous.durations is None
    for b, row in enumerate(rows):
        frames = [len(r) for r in runs(row)]
        assert binned.row(b).values[0, 0].tolist() == [min(n, bins) - 1 for n in frames]
        assert continuous.row(b).values[0, :, 0].tolist() == pytest.approx([math.log(n) for n in frames])
        assert frames_of(continuous)[b].tolist() == [*frames, *[0] * (continuous.num_tokens - len(frames))]
        assert frames_of(binned.row(b))[0].tolist() == [min(n, bins) for n in frames]


@given(CODES, st.booleans(), st.integers(-1, 1))
def test_pooling_is_the_mean_of_each_run(rows: list[list[int]], deduplicated: bool, more: int) -> None:
    units = batch(rows).deduplicate() if deduplicated else batch(rows)
    features = pad_batch(
        [TokenSequence(torch.randn(1, n, 2), torch.tensor([n])) for n in (max(len(r) + more, 1) for r in rows)]
    )
    mean, first = pool_by_runs(features, units), pool_by_runs(features, units, how="first")
    for b, row in enumerate(rows):
        x = features.row(b).values[0]
        x = torch.cat([x, x[-1:]])
        wanted = torch.stack([torch.stack([x[t] for t in r]).mean(0) for r in runs(row)])
        torch.testing.assert_close(mean.row(b).values[0], wanted)
        assert torch.equal(first.row(b).values[0], torch.stack([x[r[0]] for r in runs(row)]))


def test_a_short_run_after_an_hour_keeps_its_precision() -> None:
    n = 180_000
    codes = torch.zeros(1, 1, n + 1, dtype=torch.long)
    codes[..., -1] = 1
    features = TokenSequence(torch.full((1, n + 1, 1), 5.3), torch.tensor([n + 1]))
    features.values[0, -1] = 5.123456
    pooled = pool_by_runs(features, TokenSequence(codes, torch.tensor([n + 1])))
    torch.testing.assert_close(pooled.values[0, :, 0], torch.tensor([5.3, 5.123456]), rtol=1e-7, atol=1e-7)


def test_streams_that_do_not_go_together_are_refused() -> None:
    units = batch([[1, 1, 2, 2]])
    with pytest.raises(LayoutError, match="has 2 frames of features, but its units last 4"):
        pool_by_runs(TokenSequence(torch.zeros(1, 2, 1), torch.tensor([2])), units)
    with pytest.raises(LayoutError, match="codes cannot be averaged"):
        pool_by_runs(units, units)
    with pytest.raises(LayoutError, match="2 rows cannot be averaged over 1 rows"):
        pool_by_runs(TokenSequence(torch.zeros(2, 4, 1), torch.tensor([4, 4])), units)
