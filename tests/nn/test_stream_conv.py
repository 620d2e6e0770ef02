import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, LayoutError
from lalia.nn.stream_conv import CausalConv, CausalConvTranspose
from lalia.streaming import reset_rows, select_rows

pytestmark = pytest.mark.usefixtures("one_thread")


SHAPES = {
    "plain": {"kernel_size": 3},
    "dilated": {"kernel_size": 3, "dilation": 4},
    "strided": {"kernel_size": 8, "stride": 4},
    "no-overlap": {"kernel_size": 3, "stride": 3},
    "point": {"kernel_size": 1},
    "odd": {"kernel_size": 7, "stride": 2, "bias": False, "groups": 2},
    "replicate": {"kernel_size": 4, "stride": 2, "padding": "replicate"},
    "replicate-3": {"kernel_size": 6, "stride": 3, "padding": "replicate", "normalize": True},
}


def in_pieces(layer, x, cuts):
    state, made = layer.init_state(len(x)), []
    ends = [*sorted(cuts), x.shape[2]]
    for i, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        made.append(layer(x[:, :, start:stop], state, final=i == len(ends) - 1))
    return torch.cat(made, dim=2), state


@settings(max_examples=80)
@given(st.sampled_from(sorted(SHAPES)), st.integers(0, 30), st.lists(st.integers(0, 30), max_size=6))
def test_pieces_give_what_the_whole_gives(name, frames, cuts):
    torch.manual_seed(0)
    layer, x = CausalConv(4, 6, **SHAPES[name]), torch.randn(2, 4, frames)
    whole = layer(x)
    assert whole.shape == (2, 6, -(-frames // layer.stride))
    made, state = in_pieces(layer, x, [c for c in cuts if c <= frames])
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)
    again, _ = in_pieces(layer, x, [])
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=0)
    assert state.pending == 0
    assert not state.past.any()


@settings(max_examples=60)
@given(
    st.integers(1, 5), st.integers(0, 9), st.integers(0, 12), st.lists(st.integers(0, 12), max_size=5), st.booleans()
)
def test_transposed_pieces_give_what_the_whole_gives(stride, extra, frames, cuts, bias):
    torch.manual_seed(0)
    layer, x = CausalConvTranspose(4, 6, stride + extra, stride=stride, bias=bias), torch.randn(2, 4, frames)
    whole = layer(x)
    assert whole.shape == (2, 6, frames * stride)
    made, state = in_pieces(layer, x, [c for c in cuts if c <= frames])
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)
    with torch.no_grad():  # by another way
        made, state = in_pieces(layer, x, [c for c in cuts if c <= frames])
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)
    assert not state.tail.any()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_frame_depends_on_the_past_alone(name):
    layer, x = CausalConv(4, 6, **SHAPES[name]), torch.randn(1, 4, 24)
    other = x.clone()
    other[:, :, 12:] = torch.randn(1, 4, 12)
    known = 12 // layer.stride
    torch.testing.assert_close(layer(x)[:, :, :known], layer(other)[:, :, :known])
    assert not torch.allclose(layer(x)[:, :, known:], layer(other)[:, :, known:])


def test_rows_leave_and_join():
    layer, x = CausalConv(4, 6, kernel_size=8, stride=4), torch.randn(3, 4, 24)
    whole, state = layer(x), layer.init_state(3)
    layer(x[:, :, :12], state)
    alone = select_rows(state, torch.tensor([2, 0]))
    made = layer(x[[2, 0], :, 12:], alone, final=True)
    torch.testing.assert_close(made, whole[[2, 0], :, 3:])
    state = reset_rows(state, layer.init_state(3), torch.tensor([False, True, False]))
    made = layer(torch.cat([x[:1, :, 12:], x[1:2, :, :12], x[2:, :, 12:]]), state)
    torch.testing.assert_close(made, torch.cat([whole[:1, :, 3:], whole[1:2, :, :3], whole[2:, :, 3:]]))


def test_a_row_cannot_begin_inside_a_stride():
    layer = CausalConv(4, 6, kernel_size=8, stride=4)
    state = layer.init_state(2)
    layer(torch.randn(2, 4, 5), state)
    with pytest.raises(LayoutError, match="1 frames into a stride"):
        reset_rows(state, layer.init_state(2), torch.tensor([True, False]))
    assert reset_rows(state, layer.init_state(2), torch.tensor([True, True])).pending == 0


def test_gradients_reach_the_weights_through_pieces():
    layer, x = CausalConvTranspose(4, 6, 8, stride=4), torch.randn(2, 4, 5)
    layer(x).square().sum().backward()
    whole = layer.conv.weight.grad.clone()
    layer.zero_grad()
    in_pieces(layer, x, [2])[0].square().sum().backward()
    torch.testing.assert_close(layer.conv.weight.grad, whole, atol=1e-4, rtol=1e-4)


def test_kernels_cover_their_strides():
    with pytest.raises(ConfigError, match="stride 4"):
        CausalConv(4, 4, 3, stride=4)
    with pytest.raises(ConfigError, match="stride 4"):
        CausalConvTranspose(4, 4, 3, stride=4)
