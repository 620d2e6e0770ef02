"""Packed products: the same numbers as ``F.linear``, always of the weight as it is now."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lalia.nn.packed import Linear, PackedWeight, pack_linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 24), (3, 24), (2, 5, 24), (0, 24), (300, 24)])
def test_it_is_a_linear_map(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 37, bias=bias).to(dtype)
    x = torch.randn(shape).to(dtype)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.inference_mode():
        y = layer(x)
    assert y.shape == (*shape[:-1], 37)
    assert y.dtype == dtype
    assert torch.allclose(y.double(), exact, atol={torch.bfloat16: 3e-2}.get(dtype, 1e-5))


def test_it_follows_its_weight() -> None:
    torch.manual_seed(0)
    layer, x = Linear(16, 8, bias=False), torch.randn(2, 16)

    def agrees() -> bool:
        with torch.inference_mode():
            return torch.allclose(layer(x), x @ layer.weight.T, atol=1e-6)

    assert agrees()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    layer(x).sum().backward()
    optimizer.step()
    assert agrees()
    layer.load_state_dict({"weight": torch.randn(8, 16)})
    assert agrees()
    layer.weight.data = torch.randn(8, 16)
    assert agrees()
    layer.weight = nn.Parameter(torch.randn(8, 16))
    assert agrees()


def test_gradients_are_those_of_a_linear_map() -> None:
    layer, x = Linear(16, 8), torch.randn(3, 16)
    with torch.no_grad():
        layer(x)
    layer(x).square().sum().backward()
    plain = nn.Linear(16, 8)
    plain.load_state_dict(layer.state_dict())
    plain(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)  # type: ignore[arg-type]


def test_some_rows_of_a_table() -> None:
    table, x = torch.randn(10, 16), torch.randn(2, 16)
    with torch.no_grad():
        assert torch.allclose(PackedWeight().linear(x, table[3:7]), x @ table[3:7].T, atol=1e-6)


def test_one_row_and_several_take_turns() -> None:
    torch.manual_seed(0)
    layer, x = Linear(24, 37), torch.randn(4, 24)
    with torch.inference_mode():
        wanted = F.linear(x, layer.weight, layer.bias)
        # Often enough in a row for each to have a copy of its own, which the other then uses too.
        for rows in (4, *[1] * 20, 4, *[4] * 20, 1):
            assert torch.allclose(layer(x[:rows]), wanted[:rows], atol=1e-6), rows


@pytest.mark.parametrize("rows", [1, 2])
def test_one_of_several_weights(rows: int) -> None:
    weight, x = nn.Parameter(torch.randn(3, 8, 16)), torch.randn(rows, 16)
    packed = [PackedWeight() for _ in weight]
    for _ in range(2):
        with torch.no_grad():
            for k, p in enumerate(packed):
                assert torch.allclose(p.linear(x, weight, part=k), x @ weight[k].T, atol=1e-5)
            weight += 1
    assert torch.equal(packed[1].linear(x, weight, part=1), F.linear(x, weight[1]))


def test_a_used_module_can_be_copied() -> None:
    layer, x = Linear(16, 8), torch.randn(2, 16)
    with torch.inference_mode():
        before = layer(x)
    twin = copy.deepcopy(layer)
    with torch.inference_mode():
        layer.weight.zero_()
        assert torch.equal(twin(x), before)
        assert not layer(x).equal(before)


def test_plain_layers_become_packed_ones() -> None:
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), Special(16, 4))
    x = torch.randn(2, 16)
    before = model(x)
    names = list(model.state_dict())
    pack_linears(model)
    assert [type(m) for m in model] == [Linear, nn.ReLU, Special]
    assert list(model.state_dict()) == names
    with torch.no_grad():
        assert torch.allclose(model(x), before, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_a_weight_of_half_precision_loses_nothing(bias: bool) -> None:
    """Weights from the largest of half precision to the least, inputs of float32: the sums are those of float32."""
    torch.manual_seed(0)
    layer = Linear(40, 37, bias=bias)
    with torch.no_grad():
        layer.weight.copy_((torch.randn(37, 40) * 10 ** torch.linspace(-7, 4, 40)).half())
    x = torch.randn(5, 40) * 10 ** torch.linspace(7, -4, 40)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    for rows in (1, 5, 1):
        with torch.inference_mode():
            y = layer(x[:rows])
        assert torch.allclose(y.double(), exact[:rows], rtol=1e-5, atol=1e-5 * exact.abs().max().item())


def test_a_weight_beyond_half_precision_keeps_its_digits() -> None:
    layer, x = Linear(16, 8, bias=False), torch.ones(1, 16)
    digit = 2.0**-15
    with torch.no_grad():
        layer.weight.fill_(1.0)
        assert torch.equal(layer(x), torch.full((1, 8), 16.0))
        layer.weight[5, 3] += digit
        assert torch.equal(layer(x)[0, 5], torch.tensor(16.0 + digit))
        layer.weight[5, 3] = 1e6
        assert torch.equal(layer(x)[0, 5], torch.tensor(15.0 + 1e6))
