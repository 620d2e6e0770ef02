import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lalia.nn.conv import Conv, DepthwiseConv
from lalia.nn.fir import Field, init_fir, run_fir
from lalia.streaming import reset_rows, select_rows

FIELD = Field(left=7, right=4, hop=6)


class Network(nn.Module):
    """[B, T, 3] to [B, T * 6]: an uneven convolution, a transposed one with zero padding, and one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv(3, 4, 6, lookahead=1)
        self.depthwise = DepthwiseConv(4, 3)
        self.up = nn.ConvTranspose1d(4, 2, 10, 6, padding=2)
        self.last = nn.Conv1d(2, 1, 13, padding=6)

    def forward(self, x):
        x = self.depthwise(F.leaky_relu(self.first(x)))
        return self.last(F.leaky_relu(self.up(x.transpose(1, 2))))[:, 0]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().eval()


def pieces_of(network, frames, lengths, plan):
    """Every row gets its own pieces: ``plan`` [calls][B] says how many frames each call brings."""
    state, position, out = init_fir(FIELD, frames, len(frames)), [0] * len(frames), [[] for _ in lengths]
    for call, counts in enumerate(plan):
        new = torch.zeros(len(frames), max(counts), frames.shape[2])
        for b, n in enumerate(counts):
            new[b, :n] = frames[b, position[b] : position[b] + n]
            position[b] += n
        final = call == len(plan) - 1
        made, emitted = run_fir(lambda x, _: network(x), FIELD, new, torch.tensor(counts), state, final=final)
        for b, n in enumerate(emitted.tolist()):
            out[b].append(made[b, :n])
    assert position == list(lengths)
    return [torch.cat(parts) for parts in out]


@st.composite
def plans(draw):
    rows = draw(st.integers(1, 3))
    return [draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)) for _ in range(draw(st.integers(1, 6)))]


@given(plans())
@torch.no_grad()
def test_pieces_join_to_the_whole_for_any_cut(network, plan):
    lengths = [sum(counts) for counts in zip(*plan, strict=True)]
    frames = torch.randn(len(lengths), max(lengths), 3)
    streamed = pieces_of(network, frames, lengths, plan)
    whole, n = run_fir(lambda x, _: network(x), FIELD, frames, torch.tensor(lengths))
    for b, length in enumerate(lengths):
        alone = network(frames[b : b + 1, :length])[0] if length else torch.zeros(0)
        assert n[b] == length * FIELD.hop
        torch.testing.assert_close(streamed[b], alone, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(whole[b, : int(n[b])], alone, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_narrower_field_would_not_be_exact(network):
    frames = torch.randn(1, 40, 3)
    alone = network(frames)[0]
    for field in (Field(FIELD.left - 1, FIELD.right, 6), Field(FIELD.left, FIELD.right - 1, 6)):
        state, out = init_fir(field, frames, 1), []
        for t in range(40):
            one = torch.tensor([1])
            made, n = run_fir(lambda x, _: network(x), field, frames[:, t : t + 1], one, state, final=t == 39)
            out.append(made[0, : int(n)])
        assert (torch.cat(out) - alone).abs().max() > 1e-5


@torch.no_grad()
def test_nothing_is_emitted_before_its_future_is_known(network):
    state = init_fir(FIELD, torch.zeros(1, 1, 3), 1)
    emitted = [
        int(run_fir(lambda x, _: network(x), FIELD, torch.randn(1, 1, 3), torch.tensor([1]), state)[1])
        for _ in range(8)
    ]
    assert emitted == [0] * FIELD.right + [FIELD.hop] * (8 - FIELD.right)


@torch.no_grad()
def test_rows_end_join_and_move_independently(network):
    frames = torch.randn(3, 30, 3)
    run = lambda x, _: network(x)  # noqa: E731
    n = lambda *counts: torch.tensor(counts)  # noqa: E731
    state = init_fir(FIELD, frames, 2)
    a, na = run_fir(run, FIELD, frames[:2, :12], n(12, 12), state)
    # Row 0 ends, row 1 goes on; then row 0 is reset for a newcomer, and the two change places.
    b, nb = run_fir(run, FIELD, frames[:2, 12:20], n(8, 8), state, final=torch.tensor([True, False]))
    first = torch.cat([a[0, : int(na[0])], b[0, : int(nb[0])]])
    torch.testing.assert_close(first, network(frames[:1, :20])[0], atol=1e-6, rtol=1e-5)
    state = reset_rows(state, init_fir(FIELD, frames, 2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    mixed = torch.stack([frames[1, 20:30], frames[2, :10]])
    c, nc = run_fir(run, FIELD, mixed, n(10, 10), state, final=True)
    second = torch.cat([a[1, : int(na[1])], b[1, : int(nb[1])], c[0, : int(nc[0])]])
    torch.testing.assert_close(second, network(frames[1:2])[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(c[1, : int(nc[1])], network(frames[2:, :10])[0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_rows_in_one_situation_are_computed_together(network):
    sizes = []

    def counting(x, rows):
        sizes.append(len(rows))
        return network(x)

    state = init_fir(FIELD, torch.zeros(1, 1, 3), 4)
    for counts in ((20, 20, 20, 9), (5, 5, 5, 5), (3, 3, 3, 14)):
        run_fir(counting, FIELD, torch.randn(4, max(counts), 3), torch.tensor(counts), state)
    assert sizes == [3, 1, 3, 1, 3, 1]


@pytest.mark.parametrize("lookahead", [0, 2, 4])
def test_convolutions_see_exactly_what_they_say(lookahead):
    for conv in (Conv(2, 2, 5, lookahead=lookahead), DepthwiseConv(2, 5, lookahead=lookahead)):
        x = torch.randn(1, 11, 2, requires_grad=True)
        conv(x)[0, 5].sum().backward()
        seen = x.grad[0].abs().sum(-1).nonzero()[:, 0].tolist()
        assert seen == list(range(5 - (4 - lookahead), 5 + lookahead + 1))


def test_the_depthwise_shortcut_equals_the_plain_convolution():
    conv = DepthwiseConv(6, 7)
    x = torch.randn(2, 9, 6)
    plain = conv.conv(F.pad(x.transpose(1, 2), (3, 3))).transpose(1, 2)
    torch.testing.assert_close(conv(x), plain)
