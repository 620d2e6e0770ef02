"""Products with a weight matrix, for few rows on a CPU.

A step of generation multiplies every weight with one row per session. The BLAS behind ``F.linear`` is made for
many rows and reads a weight at a fraction of the speed of memory; oneDNN, given the weight in blocks of its own,
is two to four times faster at the same precision. For one row alone a sum of the weight's columns is faster still,
where these lie one after the other in memory. Most weights come in half precision: what half precision holds without
loss, FBGEMM keeps so, reads half the bytes and computes in float32, the fastest of all for one row or several.
The copy is made at the first use, and made anew when the weight has changed, or, of blocks and columns, when the number
of rows has lastingly become one, or several.
"""

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Linear", "PackedWeight", "halves", "is_half", "pack_half", "pack_linears", "times_half"]

_ROWS = 16
"""The rows that the blocks are laid out for; from one row to hundreds, no other number gave faster ones."""

_MANY = 128
"""Rows from which on MKL is the faster one, by some 5 % of float32; no copy is made then."""

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


@cache
def halves() -> bool:
    """Whether there is the product of float32 rows with a weight in half precision."""
    if (
        torch.backends.cpu.get_cpu_capability() == "DEFAULT"
        or "fbgemm" not in torch.backends.quantized.supported_engines
    ):
        return False
    x, weight = torch.ones(2, 16), torch.eye(16)
    try:
        return torch.equal(times_half(x, pack_half(weight), None), x)
    except (RuntimeError, AttributeError):
        return False


def pack_half(weight: Tensor) -> Any:
    """A weight [out, in] of float32, laid out in half precision for ``times_half``."""
    return torch.ops.quantized.linear_prepack_fp16(weight, None)


def times_half(x: Tensor, packed: Any, bias: Tensor | None) -> Tensor:
    """``F.linear`` in float32 with a weight of ``pack_half``."""
    y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
    return y if bias is None else y.add_(bias)


def is_half(weight: Tensor) -> bool:
    """Whether every number is one of half precision."""
    # By pieces: the first of most weights that are none says so.
    return all(torch.equal(rows.half().float(), rows) for rows in weight.split(256))


class PackedWeight:
    """A copy of one weight, or of some rows of it, for as long as the weight stays what it is."""

    def __init__(self) -> None:
        self._key: Any = None
        self._copy: Any = None
        self._form: Literal["half", "columns", "blocks"] = "blocks"
        """What the copy is: half precision for any rows, the columns for one row, or the blocks for several."""
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
        if dtype == torch.float32 and x.numel() >= _MANY * x.shape[-1] and torch.backends.mkl.is_available():
            return F.linear(x, weight if part is None else weight[part], bias)
        columns = x.numel() == x.shape[-1] and dtype == torch.float32
        fits = self._form == "half" or columns == (self._form == "columns")
        self._misfits = 0 if fits else self._misfits + 1
        key = (weight.data_ptr(), weight._version, weight.shape, dtype)
        if key != self._key or self._misfits > _PATIENCE:
            plain = weight.detach() if part is None else weight.detach()[part]
            if key != self._key and dtype == torch.float32 and halves() and is_half(plain):
                self._form, self._copy = "half", pack_half(plain.contiguous())
            elif columns:
                self._form, self._copy = "columns", plain.t().contiguous().t()
            else:
                self._form, self._copy = "blocks", _reorder(plain.contiguous())
            self._key, self._misfits = key, 0
        match self._form:
            case "half":
                return times_half(x, self._copy, bias)
            case "columns":
                return F.linear(x, self._copy, bias)
            case "blocks":
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
