"""Sampling: each filter against a naive one, the random numbers, and what comes out of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lalia.errors import ConfigError
from lalia.lm import Sampler, Sampling
from lalia.lm.sampling import sample, uniform

CHI_SQUARE_999 = {3: 16.27, 9: 27.88, 99: 148.2}
"""The 99.9th percentile, by degrees of freedom."""


def kept(logits: list[float], settings: Sampling) -> set[int]:
    """The ids that may come, found by walking every quantile."""
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    draw = torch.stack([grid, grid], dim=1)
    return set(sample(torch.tensor([logits]).expand(4000, -1), settings, draw).tolist())


def naive(logits: list[float], settings: Sampling) -> set[int]:
    """The same by the definitions, in plain Python."""
    scaled = [x / settings.temperature for x in logits]
    order = sorted(range(len(scaled)), key=lambda i: -scaled[i])
    if settings.top_k:
        order = order[: settings.top_k]
    weights = {i: math.exp(scaled[i] - scaled[order[0]]) for i in order}
    total, nucleus, mass = sum(weights.values()), [], 0.0
    for i in order:
        if mass >= settings.top_p and nucleus:
            break
        nucleus.append(i)
        mass += weights[i] / total
    return {i for i in nucleus if weights[i] >= settings.min_p * weights[order[0]]}


# Far enough apart that rounding decides nothing, and near enough that all of them come.
logits = st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(lambda x: [i / 10 for i in x])


@given(
    logits,
    st.floats(0.7, 3.0),
    st.one_of(st.just(0), st.integers(1, 9)),
    st.one_of(st.just(1.0), st.floats(0.0, 0.99)),
    st.one_of(st.just(0.0), st.floats(0.01, 1.0)),
)
@settings(max_examples=150)
def test_filters_keep_what_their_definitions_keep(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    chosen = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert kept(logits, chosen) == naive(logits, chosen)


def draws(n: int, first: int = 0) -> Tensor:
    return torch.tensor([[uniform(s, first), uniform(s, first + 1)] for s in range(n)], dtype=torch.float64)


def chi_square(ids: Tensor, expected: Tensor) -> float:
    counts = torch.bincount(ids, minlength=len(expected)).double()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("first", [0, 2, 100])
def test_what_comes_has_the_probabilities_of_the_softmax(first: int) -> None:
    n, logits = 20_000, torch.tensor([1.0, 0.0, -1.0, 2.0])
    for temperature in (1.0, 0.5, 2.0):
        ids = sample(logits.expand(n, 4), Sampling(temperature=temperature), draws(n, first))
        assert chi_square(ids, (logits.double() / temperature).softmax(0) * n) < CHI_SQUARE_999[3]
    ids = sample(logits.expand(n, 4), Sampling(top_k=2), draws(n, first))
    assert set(ids.tolist()) == {0, 3}
    expected = logits[[0, 3]].double().softmax(0) * n
    assert chi_square((ids == 3).long(), expected) < CHI_SQUARE_999[3]


def test_uniform_numbers_are_uniform_and_do_not_follow_one_another() -> None:
    numbers = torch.tensor([uniform(0, d) for d in range(10_000)], dtype=torch.float64)
    assert 0 <= float(numbers.min()) < float(numbers.max()) < 1
    bins = (numbers * 10).long()
    assert chi_square(bins, torch.full((10,), 1000.0)) < CHI_SQUARE_999[9]
    pairs = bins[:-1] * 10 + bins[1:]
    assert chi_square(pairs, torch.full((100,), len(pairs) / 100)) < CHI_SQUARE_999[99]
    # The first draws of neighbouring seeds, as the rows of a batch have them.
    seeds = torch.tensor([uniform(s, 0) for s in range(10_000)], dtype=torch.float64)
    pairs = (seeds[:-1] * 10).long() * 10 + (seeds[1:] * 10).long()
    assert chi_square(pairs, torch.full((100,), len(pairs) / 100)) < CHI_SQUARE_999[99]


@given(st.integers(0, 2**70), st.integers(0, 2**40))
def test_uniform_numbers_are_below_one_and_repeatable(seed: int, draw: int) -> None:
    assert 0.0 <= uniform(seed, draw) < 1.0
    assert uniform(seed, draw) == uniform(seed, draw)


def test_the_draws_of_one_seed_are_not_those_of_the_next() -> None:
    numbers = {uniform(s, d) for s in range(100) for d in range(100)}
    assert len(numbers) == 10_000


def test_no_quantile_lies_beyond_the_last_id() -> None:
    edge = torch.tensor([[0.0, 0.0], [1 - 2**-53, 0.0]], dtype=torch.float64)
    for size in (3, 1000):
        generator = torch.Generator().manual_seed(size)
        for _ in range(50):
            logits = torch.randn(1, size, generator=generator).mul(3).expand(2, -1).clone()
            logits[:, :1] = logits[:, -1:] = -torch.inf
            first, last = sample(logits, Sampling(), edge).tolist()
            assert first == 1
            assert last == size - 2


def test_temperature_zero_takes_the_most_likely() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert sample(logits, Sampling(temperature=0), None).tolist() == [1, 0]


def test_repeated_codes_are_drawn_again_without_filters() -> None:
    """VALL-E 2 §4.2: what makes up too much of the window is replaced by a draw from the whole distribution."""
    logits = torch.tensor([[9.0, 8.0, 7.9, -20.0]])
    settings = Sampling(top_k=1, repetition_window=4, repetition_ratio=0.5)
    draw = torch.tensor([[0.5, 0.99]], dtype=torch.float64)
    for recent, expected in (
        ([-1, -1, -1, -1], 0),
        ([0, 1, 0, 1], 0),  # half of the window is not more than half
        ([0, 0, 1, 0], 2),
        ([1, 1, 1, 1], 0),  # something else repeats
    ):
        assert sample(logits, settings, draw, torch.tensor([recent])).tolist() == [expected]


def test_rows_do_not_see_one_another() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 50, generator=generator)
    recent = torch.randint(50, (6, 10), generator=generator)
    settings = Sampling(temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, repetition_window=10, repetition_ratio=0.0)
    together = sample(logits, settings, draws(6), recent)
    alone = [int(sample(logits[i : i + 1], settings, draws(6)[i : i + 1], recent[i : i + 1])) for i in range(6)]
    assert together.tolist() == alone


def test_streams_take_their_own_settings() -> None:
    greedy, hot = Sampling(temperature=0), Sampling(temperature=2.0)
    sampler = Sampler(streams={"text": greedy, "units": hot, "pitch": hot})
    assert sampler.of("text") == greedy
    assert sampler.of("other") == Sampling()
    # Drawn together, what they agree on counts.
    assert sampler.of("units", "pitch") == hot
    assert sampler.of("units", "text") == Sampling()


def test_bans_add_up() -> None:
    sampler = Sampler().ban(units=((3, 5),)).ban(units=((9, 10),), text=((0, 1),))
    assert sampler.banned == {"units": ((3, 5), (9, 10)), "text": ((0, 1),)}


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 1.5}, {"min_p": -0.1}, {"repetition_ratio": 2.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"Sampling has {name}"):
        Sampling(**wrong)  # type: ignore[arg-type]
