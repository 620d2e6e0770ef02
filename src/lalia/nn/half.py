"""Linear maps and tables in half precision, for inference on a CPU, where half precision holds them without loss.

Most weights are published so. A product computes in float32 as before (``lalia.nn.packed``), so that nothing changes
but the memory, which is a third of the weight and its packed copy together.

Shapes: D_in, D_out.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.nn.compact import compact_
from lalia.nn.packed import halves, is_half, pack_half, times_half

__all__ = ["HalfRows", "halve_"]


class HalfRows:
    """A weight [D_out, D_in] in half precision."""

    def __init__(self, weight: Tensor, *, looked_up: bool = False) -> None:
        """
        :param looked_up: keep the rows as they are, for ``take``, beside those laid out for products.
        """
        self.shape, self.device = weight.shape, weight.device
        self._rows = weight.half() if looked_up else None
        self._packed: dict[tuple[int, int], Any] = {}
        if not looked_up:
            self._packed[0, len(weight)] = pack_half(weight)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, ids: Tensor) -> Tensor:
        """Rows of a table, [...] to [..., D_in] in float32."""
        assert self._rows is not None
        return F.embedding(ids, self._rows).float()

    def linear(self, x: Tensor, bias: Tensor | None = None, *, rows: range | None = None) -> Tensor:
        """``F.linear`` with this weight, or with some rows of it: [..., D_in] to [..., D_out]."""
        at = (0, len(self)) if rows is None else (rows.start, rows.stop)
        if at not in self._packed:
            assert self._rows is not None
            self._packed[at] = pack_half(self._rows[at[0] : at[1]].float())
        return times_half(x, self._packed[at], bias)


@torch.no_grad()
def halve_(module: nn.Module) -> None:
    """Keep the large weights below ``module`` that half precision holds in it alone, in place; see ``compact_``.

    Nothing is changed where the processor has no such product, or on a GPU.

    :raises ConfigError: a map has an adapter.
    """

    def make(weight: Tensor, looked_up: bool) -> HalfRows | None:
        fits = weight.is_cpu and weight.dtype == torch.float32 and halves() and is_half(weight)
        return HalfRows(weight, looked_up=looked_up) if fits else None

    compact_(module, make)
