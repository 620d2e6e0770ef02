import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.data import Batch, BatchPlan, BatchSampler
from lalia.errors import ConfigError, DataError

some_lengths = st.lists(st.integers(0, 60), min_size=1, max_size=120).filter(any)


@st.composite
def plans(draw: st.DrawFn, crop: bool = True) -> BatchPlan:
    lengths = draw(some_lengths)
    shortest = min(x for x in lengths if x)
    max_tokens = draw(st.integers(1 if crop else shortest, 400))
    return BatchPlan(
        lengths,
        max_tokens,
        seed=draw(st.integers(0, 5)),
        max_rows=draw(st.none() | st.integers(1, 9)),
        max_length=draw(st.none() | st.integers(1 if crop else shortest, 80)),
        max_padding=draw(st.sampled_from([0.0, 0.1, 0.5, 0.9])),
        crop=crop,
    )


@given(plans(), st.integers(0, 3))
def test_every_utterance_once_per_epoch(plan: BatchPlan, epoch: int) -> None:
    seen = [i for batch in plan.epoch(epoch) for i in batch.indices]
    assert sorted(seen) == np.flatnonzero(plan.lengths > 0).tolist()
    assert plan.num_skipped == int((plan.lengths == 0).sum())


@given(plans(), st.integers(0, 3))
def test_batches_keep_their_bounds(plan: BatchPlan, epoch: int) -> None:
    for number, batch in enumerate(plan.epoch(epoch)):
        sizes = [row.stop - row.start for row in batch.rows]
        assert (batch.epoch, batch.number) == (epoch, number)
        assert batch.num_tokens == len(sizes) * max(sizes) <= plan.max_tokens
        assert len(sizes) <= (plan.max_rows or len(sizes))
        assert 1 - sum(sizes) / batch.num_tokens <= plan.max_padding + 1e-9
        for row in batch.rows:
            assert 0 <= row.start < row.stop <= plan.lengths[row.index]
            assert row.stop - row.start == min(plan.lengths[row.index], plan.max_length)


@given(plans(crop=False))
def test_without_cropping_what_is_too_long_is_left_out_and_counted(plan: BatchPlan) -> None:
    fits = (plan.lengths > 0) & (plan.lengths <= plan.max_length)
    rows = [row for batch in plan.epoch(0) for row in batch.rows]
    assert sorted(row.index for row in rows) == np.flatnonzero(fits).tolist()
    assert all((row.start, row.stop) == (0, plan.lengths[row.index]) for row in rows)
    assert plan.num_skipped == int((~fits).sum())


@settings(max_examples=40)
@given(plans(), st.data())
def test_resumed_anywhere_the_batches_are_those_of_the_uninterrupted_run(plan: BatchPlan, data: st.DataObject) -> None:
    whole = list(BatchSampler(plan, epochs=3))
    cut = data.draw(st.integers(0, len(whole)))
    first = BatchSampler(plan, epochs=3)
    iterator = iter(first)
    for _ in range(cut):
        next(iterator)
    state = json.loads(json.dumps(first.state_dict()))
    second = BatchSampler(plan, epochs=3)
    second.load_state_dict(state)
    assert list(second) == whole[cut:]
    # The same where the sampler ran ahead of what was used.
    if cut:
        ahead = BatchSampler(plan, epochs=3)
        taken = list(ahead)
        second.load_state_dict(ahead.state_dict(after=taken[cut - 1]))
        assert list(second) == whole[cut:]


@settings(max_examples=40)
@given(plans(), st.integers(1, 5))
def test_the_ranks_together_see_what_one_process_sees(plan: BatchPlan, world: int) -> None:
    whole = list(BatchSampler(plan, epochs=2))
    shares = [list(BatchSampler(plan, epochs=2, rank=r, world=world)) for r in range(world)]
    assert {len(share) for share in shares} == {len(whole)}
    for batch, *parts in zip(whole, *shares, strict=True):
        rows: list[Any] = [None] * len(batch.rows)
        for r, part in enumerate(parts):
            rows[r::world] = part.rows
        assert tuple(rows) == batch.rows
        assert max(len(p.rows) for p in parts) - min(len(p.rows) for p in parts) <= 1


def test_the_number_of_processes_may_change_on_resuming() -> None:
    plan = BatchPlan(list(range(1, 200)), 600)
    whole = list(BatchSampler(plan, epochs=2))
    two = BatchSampler(plan, epochs=2, rank=1, world=2)
    iterator = iter(two)
    for _ in range(7):
        next(iterator)
    three = [BatchSampler(plan, epochs=2, rank=r, world=3) for r in range(3)]
    for sampler in three:
        sampler.load_state_dict(two.state_dict())
    for batch, *parts in zip(whole[7:], *three, strict=True):
        assert sorted(i for p in parts for i in p.indices) == sorted(batch.indices)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    lengths = np.random.default_rng(0).integers(100, 800, 2000)

    def batches(seed: int, epoch: int) -> list[list[int]]:
        return [b.indices for b in BatchPlan(lengths, 16_000, seed=seed).epoch(epoch)]

    assert batches(0, 0) == batches(0, 0)
    kinds = [batches(0, 0), batches(0, 1), batches(1, 0)]
    for a in range(3):
        for b in range(a):
            # Not the same batches in another order either.
            shared = {frozenset(x) for x in kinds[a]} & {frozenset(x) for x in kinds[b]}
            assert len(shared) < 5


def test_the_order_is_the_same_on_every_machine() -> None:
    plan = BatchPlan(torch.tensor([3, 9, 4, 4, 12, 7, 7, 1, 30, 5]), 24, seed=7, max_length=10)
    found = [[(r.index, r.start, r.stop) for r in b.rows] for b in plan.epoch(2)]
    # Pinned: a run that is resumed with other versions of NumPy must see the same batches.
    assert found == [
        [(0, 0, 3), (3, 0, 4), (2, 0, 4), (9, 0, 5)],
        [(4, 1, 11)],
        [(6, 0, 7), (5, 0, 7)],
        [(7, 0, 1)],
        [(1, 0, 9), (8, 6, 16)],
    ]


def test_little_padding_on_lengths_like_those_of_speech() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(600, 200, 5000), 50, 900).astype(int)
    plan = BatchPlan(lengths, 20_000)
    epoch = plan.epoch(0)
    padded = sum(b.num_tokens for b in epoch)
    assert 1 - lengths.sum() / padded < 0.12
    # And the batches are full: no more of them than a few over the least possible.
    assert len(epoch) < 1.2 * padded / 20_000


def test_windows_move_over_what_is_too_long() -> None:
    plan = BatchPlan([1000] * 50, 64)
    starts = np.array([[row.start for b in plan.epoch(e) for row in b.rows] for e in range(40)])
    assert starts.min() < 50
    assert starts.max() > 1000 - 64 - 50
    assert abs(starts.mean() - (1000 - 64) / 2) < 30


def test_a_state_of_another_plan_is_refused() -> None:
    sampler = BatchSampler(BatchPlan([3, 4, 5], 10))
    state = sampler.state_dict()
    for other in (BatchPlan([3, 4, 6], 10), BatchPlan([3, 4, 5], 11), BatchPlan([3, 4, 5], 10, seed=1)):
        with pytest.raises(DataError, match="belongs to other data"):
            BatchSampler(other).load_state_dict(state)
    BatchSampler(BatchPlan(torch.tensor([3, 4, 5]), 10)).load_state_dict(state)


def test_a_sampler_without_an_end() -> None:
    iterator = iter(BatchSampler(BatchPlan([3, 4, 5], 5)))
    batches = [next(iterator) for _ in range(30)]
    assert [b.epoch for b in batches] == [i // 3 for i in range(30)]


def test_an_epoch_is_a_sequence() -> None:
    epoch = BatchPlan(list(range(1, 100)), 300).epoch(0)
    assert epoch[-1] == epoch[len(epoch) - 1]
    assert [b.number for b in epoch[1:3]] == [1, 2]
    assert isinstance(epoch[0], Batch)
    with pytest.raises(IndexError):
        epoch[len(epoch)]


@pytest.mark.parametrize(
    "options", [{"max_tokens": 0}, {"max_rows": 0}, {"max_length": 0}, {"max_padding": 1.0}, {"seed": -1}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BatchPlan([1, 2], **({"max_tokens": 10} | options))


def test_nothing_that_fits() -> None:
    for lengths, crop in (([], True), ([0, 0], True), ([20, 30], False)):
        with pytest.raises(DataError, match="None of the"):
            BatchPlan(lengths, 10, crop=crop)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        BatchSampler(BatchPlan([1], 1), rank=2, world=2)
    plan = BatchPlan([5, 50], 10, crop=False, draw=lambda epoch: np.array([epoch % 2]))
    assert plan.epoch(0)[0].indices == [0]
    with pytest.raises(DataError, match="Epoch 1 has no utterances"):
        plan.epoch(1)
