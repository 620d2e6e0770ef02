"""RMSNorm: PyTorch's, value for value and gradient for gradient."""

import pytest
import torch
from torch import Tensor, nn

from lalia.nn.kernels import RMSNorm, rotate, whole_turn
from lalia.nn.positions import angles

SHAPES = [(24,), (1, 24), (3, 1, 24), (2, 50, 24), (0, 24)]


def both(dtype: torch.dtype) -> tuple[RMSNorm, nn.RMSNorm]:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(24, eps=1e-5), nn.RMSNorm(24, eps=1e-5)
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def gradients(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = norm(x)
    y.pow(3).sum().backward()
    assert x.grad is not None
    assert isinstance(norm.weight.grad, Tensor)
    return y.detach(), x.grad, norm.weight.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_torchs(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    ours, theirs = both(dtype)
    x = 3 * torch.randn(shape).to(dtype)
    with torch.inference_mode():
        y, wanted = ours(x), theirs(x)
    assert y.dtype == dtype
    assert torch.allclose(y, wanted, atol={torch.bfloat16: 1e-2}.get(dtype, 1e-6))


@pytest.mark.parametrize("shape", SHAPES)
def test_its_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    ours, theirs = both(torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    for mine, wanted in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        assert torch.allclose(mine, wanted, atol=1e-9)


def test_silence_stays_finite_and_a_transposed_input_is_the_same() -> None:
    ours, theirs = both(torch.float32)
    assert torch.equal(ours(torch.zeros(2, 24)), torch.zeros(2, 24))
    x = torch.randn(5, 3, 24).transpose(0, 1)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_turning_both_halves_at_once_is_turning_each() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 1, 8)
    cos, sin = angles(torch.tensor([5]), 8, 100.0)
    assert torch.allclose(rotate(x, *whole_turn(cos, sin)), rotate(x, cos, sin), atol=1e-6)
