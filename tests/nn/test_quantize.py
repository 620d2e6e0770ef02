import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError
from lalia.nn.codebook import Codebook, Usage
from lalia.nn.fsq import FSQ
from lalia.nn.quantize import ResidualVQ
from lalia.nn.quantize_parts import GroupedResidualVQ, SplitResidualVQ

pytestmark = pytest.mark.usefixtures("one_thread")


DIM = 12
CONFIGS = {
    "residual": ResidualVQ.Config(16, 4),
    "projected": ResidualVQ.Config(16, 3, project=6),
    "factorised": ResidualVQ.Config(16, 3, codebook_dim=4, normalize=True),
    "grouped": GroupedResidualVQ.Config(2, ResidualVQ.Config(16, 2)),
    "split": SplitResidualVQ.Config(16, 4, project=6),
    "fsq": FSQ.Config((5, 4, 3), num_codebooks=2),
}
TABLES = sorted(set(CONFIGS) - {"fsq"})


@pytest.fixture(params=sorted(CONFIGS))
def config(request):
    return CONFIGS[request.param]


@pytest.fixture
def quantizer(config):
    return config.build(DIM).eval()


@torch.no_grad()
def error(quantizer, x, count):
    return float((x - quantizer.decode(quantizer.encode(x, count))).square().mean())


# -- every quantiser ------------------------------------------------------------------------------


def test_configurations_survive_writing(config):
    assert from_dict(to_dict(config)) == config
    assert config.tiny().build(DIM).config.num_books == config.num_books


def test_codes_are_in_range_and_a_prefix_is_a_coarser_description(config, quantizer):
    x = 3 * torch.randn(2, 40, DIM)
    codes = quantizer.encode(x)
    assert codes.shape == (2, config.num_books, 40)
    assert codes.dtype == torch.long
    assert 0 <= int(codes.min()) <= int(codes.max()) < config.num_codes
    for count in range(1, config.num_books + 1):
        assert torch.equal(quantizer.encode(x, count), codes[:, :count])
        assert quantizer.decode(codes[:, :count]).shape == x.shape


def test_training_gives_the_codes_and_values_of_use(quantizer):
    x = torch.randn(3, 10, DIM)
    made, codes = quantizer(x), quantizer.encode(x)
    assert torch.equal(made.codes, codes)
    torch.testing.assert_close(made.values, quantizer.decode(codes), atol=1e-5, rtol=1e-5)
    assert made.commitment.shape == (3,)


def test_gradients_pass_straight_through(quantizer):
    x = torch.randn(2, 5, DIM, requires_grad=True)
    quantizer(x).values.sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).any(dim=-1).all())


def test_the_plain_residual_quantiser_passes_the_gradient_once():
    quantizer, x = CONFIGS["residual"].build(DIM), torch.randn(2, 5, DIM, requires_grad=True)
    weights = torch.randn(2, 5, DIM)
    (quantizer(x).values * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights)


@pytest.mark.parametrize("name", TABLES)
def test_each_codebook_lowers_the_error(name):
    quantizer, x = CONFIGS[name].build(DIM).eval(), torch.randn(4, 80, DIM)
    with torch.no_grad():
        if name in ("projected", "split", "factorised"):
            # Random maps say nothing of the error: let them be the best there are.
            for part in quantizer.modules():
                if isinstance(part, ResidualVQ) and part.config.project:
                    part.after.weight.copy_(torch.linalg.pinv(part.before.weight))
    quantizer.fit(x)
    books = CONFIGS[name].num_books
    errors = [error(quantizer, x, k) for k in range(1, books + 1)]
    if name == "factorised":
        assert all(math.isfinite(e) for e in errors)
        return
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.85 * errors[0]


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_a_codebook_vector_is_its_own_code(seed):
    torch.manual_seed(seed)
    quantizer = ResidualVQ.Config(8, 1).build(4)
    codes = torch.randint(0, 8, (2, 1, 5))
    assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)


def test_residual_codes_equal_a_naive_search():
    quantizer, x = ResidualVQ.Config(16, 3).build(DIM), torch.randn(1, 6, DIM)
    for t in range(6):
        left = x[0, t]
        for k, book in enumerate(quantizer.layers):
            distances = [float((left - v).square().sum()) for v in book.vectors]
            best = distances.index(min(distances))
            assert int(quantizer.encode(x)[0, k, t]) == best
            left = left - book.vectors[best]


# -- learning by counting -------------------------------------------------------------------------


def test_codes_are_the_running_means_of_what_chose_them():
    book, decay = Codebook(3, 2, decay=0.9, dead_below=0.0), 0.9
    counts, sums = torch.zeros(3), torch.zeros(3, 2)
    for _ in range(4):
        x = torch.randn(30, 2)
        codes = book.assign(x)
        book.update(book.usage(x, codes))
        for c in range(3):
            counts[c] = decay * counts[c] + (1 - decay) * float((codes == c).sum())
            sums[c] = decay * sums[c] + (1 - decay) * x[codes == c].sum(0)
    torch.testing.assert_close(book.vectors, sums / counts[:, None])
    torch.testing.assert_close(book.counts, counts)


def test_dead_codes_are_revived_by_vectors_of_the_batch():
    book = Codebook(8, 4)
    with torch.no_grad():
        book.vectors[1:] = 100 + torch.arange(7.0)[:, None]  # where nothing ever comes
    x = torch.randn(200, 4)
    book.update(book.usage(x, book.assign(x)))
    assert float(book.vectors.max()) < 10
    for _ in range(20):
        book.update(book.usage(x, book.assign(x)))
    assert len(book.assign(x).unique()) == 8


def test_no_code_is_moved_by_an_empty_batch():
    book = Codebook(8, 4)
    book.fit(torch.randn(100, 4))
    before = book.vectors.clone()
    book.update(Usage.nothing(book))
    torch.testing.assert_close(book.vectors, before)


def test_two_processes_learn_what_one_learns_of_both_batches():
    book, a, b = Codebook(6, 3, dead_below=0.0), torch.randn(50, 3), torch.randn(70, 3)
    book.fit(torch.cat([a, b]))
    parts = [book.usage(x, book.assign(x)) for x in (a, b)]
    first = [parts[0].reduced(lambda t: t, rank, 2) for rank in range(2)]
    second = [parts[1].reduced(lambda t: t, rank, 2) for rank in range(2)]
    total = first[0] + second[1]
    x = torch.cat([a, b])
    whole = book.usage(x, book.assign(x))
    torch.testing.assert_close(total.counts, whole.counts)
    torch.testing.assert_close(total.sums, whole.sums, atol=1e-5, rtol=1e-5)
    # Candidates of either rank, never a mixture of both.
    assert total.known.tolist() == [1.0] * 6
    assert all(bool((v == x).all(dim=1).any()) for v in total.fresh)


def test_fitting_needs_fewer_vectors_than_codes_and_repeats_itself():
    books = [Codebook(16, 4) for _ in range(2)]
    x = torch.randn(5, 4)
    for book in books:
        book.fit(x, seed=3)
    assert torch.equal(books[0].vectors, books[1].vectors)
    assert bool(books[0].vectors.isfinite().all())


@pytest.mark.parametrize("name", TABLES)
def test_training_follows_the_data(name):
    quantizer = CONFIGS[name].build(DIM).train()
    x = torch.randn(4, 40, DIM)
    with torch.no_grad():
        before = quantizer(x).commitment.mean()
        for _ in range(10):
            quantizer.update(quantizer(x).usage)
        assert quantizer(x).commitment.mean() < 0.8 * before


# -- dropout --------------------------------------------------------------------------------------


def test_dropout_quantises_rows_by_fewer_codebooks():
    quantizer, x = ResidualVQ.Config(16, 4, dropout=1.0).build(DIM), torch.randn(64, 3, DIM)
    made = quantizer.train()(x)
    kept = []
    for b in range(64):
        matches = [
            k
            for k in range(1, 5)
            if torch.allclose(made.values[b], quantizer.decode(made.codes[b : b + 1, :k])[0], atol=1e-5)
        ]
        kept.append(matches)
    assert all(len(k) == 1 for k in kept)
    assert {k[0] for k in kept} == {1, 2, 3, 4}
    # What is dropped is not counted.
    assert [int(u.counts.sum()) for u in made.usage] == [3 * sum(m[0] > k for m in kept) for k in range(4)]
    quantizer.eval()
    torch.testing.assert_close(quantizer(x).values, quantizer.decode(made.codes), atol=1e-5, rtol=0)


# -- FSQ ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(2,), (3, 3), (8, 5, 5, 5), (4, 4, 4)])
def test_fsq_reaches_each_of_its_codes(levels):
    quantizer = FSQ.Config(levels).build(len(levels))
    codes = torch.arange(math.prod(levels))[None, None]
    with torch.no_grad():
        for part in (quantizer.before, quantizer.after[0]):
            part.weight.copy_(torch.eye(len(levels)))
            part.bias.zero_()
    spoken = quantizer.decode(codes)
    assert len({tuple(v.tolist()) for v in spoken[0]}) == math.prod(levels)
    # What bounds and rounds to these values gives the codes back.
    steps = spoken * (torch.tensor(levels) // 2)
    half = (torch.tensor(levels) - 1) * 1.001 / 2
    offset = (torch.tensor(levels) % 2 == 0) / 2
    x = torch.atanh((steps + offset) / half) - torch.atanh(offset / half)
    assert torch.equal(quantizer.encode(x), codes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResidualVQ.Config(1, 2),
        lambda: ResidualVQ.Config(8, 0),
        lambda: SplitResidualVQ.Config(8, 2, num_semantic=2),
        lambda: FSQ.Config(()),
        lambda: FSQ.Config((1, 4)),
        lambda: GroupedResidualVQ.Config(0),
        lambda: GroupedResidualVQ.Config(5).build(12),
        lambda: GroupedResidualVQ.Config(2, ResidualVQ.Config(8, 2, dropout=0.5)),
    ],
)
def test_wrong_configurations_are_refused(make):
    with pytest.raises(ConfigError):
        make()
