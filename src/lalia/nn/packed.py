"""Products with a weight matrix, for few rows on a CPU.

A step of generation multiplies every weight with one row per session. The BLAS behind ``F.linear`` is made for
many rows and reads a weight at a fraction of the speed of memory; oneDNN, given the weight in blocks of its own,
is two to four times faster at the same precision. For one row alone the fastest is a sum of the weight's columns,
where these lie one after the other in memory. Blocks or columns are a copy, made at the first use, and made anew when
the weight has changed, or when the number of rows has lastingly become one, or several.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Linear", "PackedWeight", "pack_linears"]

_ROWS = 16
"""The rows that the blocks are laid out for; from one row to hundreds, no other number gave faster ones."""

_TYPES = (torch.float32, torch.bfloat16)

_PATIENCE = 8
"""Calls in a row for which the copy for another number of rows must do: making one costs as much as several."""


@cache
def _supported(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this processor have the product."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    x, weight = torch.ones(2, 16, dtype=dtype), torch.eye(16, dtype=dtype)
    try:
        return torch.equal(_multiply(x, _reorder(weight), None), x)
    except (RuntimeError, AttributeError):
        # These operations are torch's own, for its compiler: a later version may have others.
        return False


def _reorder(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)  # type: ignore[no-any-return]


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")  # type: ignore[no-any-return]


class PackedWeight:
    """A copy of one weight, or of some rows of it, for as long as the weight stays what it is."""

    def __init__(self) -> None:
        self._key: Any = None
        self._copy: Tensor | None = None
        self._columns = False
        """Whether the copy is the columns, for one row, or the blocks, for several."""
        self._misfits = 0
        """Calls in a row to which the other would have been better suited."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The blocks cannot be copied or stored, and need not be.
        return (PackedWeight, ())

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, part: int | None = None) -> Tensor:
        """``F.linear(x, weight, bias)``: [..., in] and [out, in] to [..., out].

        :param part: which of several weights [W, out, in]; always the same one.
        """
        if torch.is_grad_enabled():
            # In training the weight changes at every step: nothing to keep.
            self._key = self._copy = None
            return F.linear(x, weight if part is None else weight[part], bias)
        dtype = x.dtype
        if (
            dtype not in _TYPES
            or dtype != weight.dtype
            or not x.is_cpu
            or not x.numel()
            or torch.is_autocast_enabled("cpu")
            or weight.is_inference()
            or not _supported(dtype)
        ):
            return F.linear(x, weight if part is None else weight[part], bias)
        columns = x.numel() == x.shape[-1] and dtype == torch.float32
        self._misfits = 0 if columns == self._columns else self._misfits + 1
        key = (weight.data_ptr(), weight._version, weight.shape, dtype)
        if key != self._key or self._misfits > _PATIENCE:
            self._key, self._columns, self._misfits = key, columns, 0
            plain = weight.detach() if part is None else weight.detach()[part]
            self._copy = plain.t().contiguous().t() if columns else _reorder(plain.contiguous())
        assert self._copy is not None
        if self._columns:
            return F.linear(x, self._copy, bias)
        return _multiply(x.contiguous(), self._copy, bias)


class Linear(nn.Linear):
    """``torch.nn.Linear``, faster on a CPU where gradients are off."""

    def forward(self, x: Tensor) -> Tensor:
        packed: PackedWeight | None = self.__dict__.get("_packed")
        if packed is None:
            packed = self.__dict__["_packed"] = PackedWeight()
        return packed.linear(x, self.weight, self.bias)


def pack_linears(module: nn.Module) -> None:
    """Make every plain ``torch.nn.Linear`` below ``module`` a ``Linear``, in place; names and weights stay."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = Linear
