"""Weights in half precision give what they give in float32, and are not there twice."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.nn.compact import CompactLinear
from lalia.nn.half import HalfRows, halve_
from lalia.nn.packed import Linear, halves

pytestmark = pytest.mark.skipif(not halves(), reason="this processor has no products of half precision")


@torch.no_grad()
def half(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).half().float()


@torch.inference_mode()
def test_products_and_rows_are_those_of_the_weight() -> None:
    weight, bias, x = half(24, 48), torch.randn(24), torch.randn(2, 3, 48)
    rows = HalfRows(weight, looked_up=True)
    torch.testing.assert_close(rows.linear(x, bias), F.linear(x, weight, bias))
    torch.testing.assert_close(rows.linear(x, rows=range(4, 9)), F.linear(x, weight[4:9]))
    torch.testing.assert_close(HalfRows(weight).linear(x[:1, 0]), F.linear(x[:1, 0], weight))
    ids = torch.tensor([[3, 0], [23, 3]])
    assert torch.equal(rows.take(ids), weight[ids])


@torch.inference_mode()
def test_what_half_precision_does_not_hold_stays() -> None:
    model = nn.Sequential(Linear(8, 8), nn.Linear(8, 8), Linear(8, 4))
    with torch.no_grad():
        model[0].weight.copy_(half(8, 8))
        model[2].weight.fill_(0.1)
    x, plain = torch.randn(5, 8), model[2]
    before, held = model(x), weakref.ref(model[0].weight)
    halve_(model)
    gc.collect()
    assert isinstance(model[0], CompactLinear)
    assert held() is None
    assert model[2] is plain
    torch.testing.assert_close(model(x), before)
    with pytest.raises(ConfigError, match="Save the model before"):
        model.state_dict()
