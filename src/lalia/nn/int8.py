"""Linear maps and tables in 8 bits, for inference: a quarter of the memory of float32.

A row of a weight has one scale, so that its largest number becomes 127 (weight-only, per output channel, symmetric).
What is multiplied with it stays exact to 15 bits: a row of inputs goes in as two rows of 8 bits, the second what the
first leaves over, and both cost hardly more than one, as reading the weight is what takes the time. Rounding inputs to
8 bits alone would be faster still, and five times further from the answers of float32.

Shapes: M rows, D_in, D_out, V rows of a table.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.nn.compact import compact_

__all__ = ["Int8Rows", "quantize_"]

_MOST = 127
_REST = 2 * _MOST
"""What is left over is at most half a step: this many times larger it fills 8 bits."""
_LEAST = 1e-30
"""The least scale, of a row of zeros."""


class Int8Rows:
    """A weight [D_out, D_in] in 8 bits: whole numbers, and a scale for each row."""

    def __init__(self, weight: Tensor, *, looked_up: bool = False) -> None:
        """
        :param looked_up: keep the rows as they are, for ``take``, beside those laid out for products.
        """
        self.shape, self.device = weight.shape, weight.device
        self.scale = torch.empty(len(weight), device=weight.device)
        numbers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        # By pieces: a copy of all of it in float32 would be the most memory of the whole.
        for piece, out, scale in zip(weight.split(4096), numbers.split(4096), self.scale.split(4096), strict=True):
            rows = piece.float()
            scale.copy_(rows.abs().amax(dim=1).clamp(min=_LEAST) / _MOST)
            out.copy_((rows / scale[:, None]).round_())
        packs = weight.is_cpu and _supported()
        self._packed: dict[tuple[int, int], Any] = {}
        if packs and not looked_up:
            self._packed[0, len(weight)] = _pack(numbers, self.scale)
        self._numbers = None if packs and not looked_up else numbers
        self._packs = packs

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, ids: Tensor) -> Tensor:
        """Rows of a table, [...] to [..., D_in] in float32."""
        assert self._numbers is not None
        return F.embedding(ids, self._numbers).float() * self.scale[ids][..., None]

    def linear(self, x: Tensor, bias: Tensor | None = None, *, rows: range | None = None) -> Tensor:
        """``F.linear`` with this weight, or with some rows of it: [..., D_in] to [..., D_out] in the type of x."""
        first, stop = (0, len(self)) if rows is None else (rows.start, rows.stop)
        if not self._packs:
            assert self._numbers is not None
            y = F.linear(x.float(), self._numbers[first:stop].float()) * self.scale[first:stop]
        else:
            if (first, stop) not in self._packed:
                assert self._numbers is not None
                self._packed[first, stop] = _pack(self._numbers[first:stop], self.scale[first:stop])
            flat = x.reshape(-1, x.shape[-1]).float()
            y = _multiply(flat, self._packed[first, stop]).view(*x.shape[:-1], stop - first)
        return (y if bias is None else y + bias).to(x.dtype)


@cache
def _supported() -> bool:
    """Whether this build of torch and this processor have the product."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    x, weight = torch.tensor([[3.0, -0.5, 2 / 3, 0.0]]), torch.eye(4, dtype=torch.int8)
    try:
        return torch.allclose(_multiply(x, _pack(weight, torch.ones(4))), x, atol=1e-4)
    except (RuntimeError, AttributeError):
        return False


def _pack(numbers: Tensor, scale: Tensor) -> Any:
    """The blocks of FBGEMM."""
    zeros = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():
        # PyTorch means to drop this type; without it `_supported` says no.
        warnings.simplefilter("ignore", UserWarning)
        weight = torch._make_per_channel_quantized_tensor(numbers, scale.double(), zeros, 0)
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        return torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = engine


def _multiply(x: Tensor, packed: Any) -> Tensor:
    """[M, D_in] to [M, D_out]."""
    if not len(x):
        return torch.ops.quantized.linear_dynamic(x, packed)  # type: ignore[no-any-return]
    if len(x) == 1:
        # The least operations: of one row their number is what counts.
        top = max(torch.linalg.vector_norm(x, torch.inf).item(), _LEAST)
        return _product(x, top / _MOST, packed)
    tops = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True).clamp_(min=_LEAST)
    return _product(x / tops, 1 / _MOST, packed).mul_(tops)


def _product(x: Tensor, step: float, packed: Any) -> Tensor:
    """[M, D_in] to [M, D_out], for inputs of at most 127 steps."""
    coarse = torch.fake_quantize_per_tensor_affine(x, step, 0, -_MOST, _MOST)
    both = torch.cat((coarse, (x - coarse).mul_(_REST)))
    y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(both, step, _MOST + 1, packed)
    return torch.add(y[: len(x)], y[len(x) :], alpha=1 / _REST)


@torch.no_grad()
def quantize_(module: nn.Module) -> None:
    """Put the large weights below ``module`` into 8 bits, in place; it is for inference from then on.

    See ``compact_`` for which these are. SmolLM2-135M then predicts the same word as in float32 at 96 of 100 places,
    with a divergence of 0.005 nats a token: its answers are worded otherwise, about as good. Half precision
    (``lalia.nn.half``) takes twice the memory and hardly more time, and changes nothing.

    :raises ConfigError: a map has an adapter.
    """
    compact_(module, lambda weight, looked_up: Int8Rows(weight, looked_up=looked_up))
