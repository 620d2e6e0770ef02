"""Layers one after another, those that stream each with its state. Shapes: B batch, C channels, T frames."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from lalia.streaming import State

__all__ = ["Stack", "StackState"]


@dataclass
class StackState(State):
    """The states of layers in order; None for those that need none."""

    layers: list[State | None]


class Stack(nn.Module):
    """Layers one after another; a layer that streams has ``init_state``."""

    layers: nn.ModuleList

    def init_state(self, batch_size: int) -> StackState:
        return StackState([_fresh(layer, batch_size) for layer in self.layers])

    def forward(self, x: Tensor, state: StackState | None = None, *, final: bool = False) -> Tensor:
        """
        :param x: [B, C, T].
        :param state: updated in place; None when the input is whole.
        :param final: the input ends here: make what is still held back, and the state fresh.
        """
        states: Iterable[State | None] = [None] * len(self.layers) if state is None else state.layers
        for layer, kept in zip(self.layers, states, strict=True):
            x = layer(x, kept, final=final) if hasattr(layer, "init_state") else layer(x)
        return x


def _fresh(layer: nn.Module, batch_size: int) -> State | None:
    return layer.init_state(batch_size) if hasattr(layer, "init_state") else None  # type: ignore[operator,no-any-return]
