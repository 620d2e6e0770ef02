"""Weights for inference alone, in a form that takes less memory than that in which they are trained.

Shapes: D_in, D_out, V rows of a table.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.lora import LoraLinear
from lalia.nn.packed import Linear

__all__ = ["CompactEmbedding", "CompactLinear", "HasTable", "Rows", "RowsOf", "compact_"]


class Rows(Protocol):
    """A weight [D_out, D_in] in another form."""

    shape: torch.Size
    device: torch.device

    def __len__(self) -> int: ...

    def take(self, ids: Tensor) -> Tensor:
        """Rows of a table, [...] to [..., D_in] in float32."""
        ...

    def linear(self, x: Tensor, bias: Tensor | None = None, *, rows: range | None = None) -> Tensor:
        """``F.linear`` with this weight, or with some rows of it: [..., D_in] to [..., D_out] in the type of x."""
        ...


RowsOf = Callable[[nn.Parameter], Rows | None]
"""Makes the other form of a weight, of one weight one for all who ask; None of a weight that is to stay."""


class CompactLinear(nn.Module):
    """A linear map without parameters: made by ``compact_`` of one that has its weight."""

    def __init__(self, rows: Rows, bias: Tensor | None) -> None:
        super().__init__()
        self.rows, self.bias = rows, bias
        self.out_features, self.in_features = rows.shape

    def forward(self, x: Tensor) -> Tensor:
        return self.rows.linear(x, self.bias)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise _unsaveable()


class CompactEmbedding(nn.Module):
    """A table, likewise."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows
        self.num_embeddings, self.embedding_dim = rows.shape

    def forward(self, ids: Tensor) -> Tensor:
        """[...] to [..., D]."""
        return self.rows.take(ids)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise _unsaveable()


def _unsaveable() -> ConfigError:
    return ConfigError(
        "The weights are in a form for inference, which is not for saving. Save the model before it is made so."
    )


@runtime_checkable
class HasTable(Protocol):
    """A module with a table of its own that can be in another form."""

    def compact(self, rows_of: RowsOf) -> None:
        """Put what ``rows_of`` makes of a weight in its place."""
        ...


@torch.no_grad()
def compact_(module: nn.Module, make: Callable[[Tensor, bool], Rows | None]) -> None:
    """Put the large weights below ``module`` into another form, in place; it is for inference from then on.

    These are every ``Linear`` of lalia, as Transformers have, and the vocabularies of language models. One after the
    other, each freed before the next: there are never two copies of the whole, where nobody else holds the weights.

    :param make: of a weight, and whether rows of it are looked up, the other form; None where it is to stay.
    :raises ConfigError: a map has an adapter.
    """
    for name, part in module.named_modules():
        if isinstance(part, LoraLinear):
            raise ConfigError(f"{name or 'The module'} has an adapter, which has no compact form. Merge it first.")
    made: dict[int, tuple[nn.Parameter, Rows | None]] = {}

    def rows_of(weight: nn.Parameter) -> Rows | None:
        if id(weight) not in made:
            # The weight is kept until all who share it have asked, or another might get its id.
            made[id(weight)] = (weight, make(weight.detach(), True))
        return made[id(weight)][1]

    for part in list(module.modules()):
        if isinstance(part, HasTable):
            part.compact(rows_of)
    made.clear()
    # Their places, as a list of the maps themselves would hold them all.
    places = [(p, name) for p in module.modules() for name, child in p.named_children() if type(child) is Linear]
    for parent, name in places:
        old = getattr(parent, name)
        rows = make(old.weight.detach(), False)
        if rows is not None:
            setattr(parent, name, CompactLinear(rows, None if old.bias is None else old.bias.detach().float()))
        del old
