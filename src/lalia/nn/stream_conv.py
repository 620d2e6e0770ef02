"""Causal convolutions that can be given a sound in pieces, with what they still need as a state.

Frame ``t`` of an output is made of the input up to frame ``(t + 1) * stride - 1``, so pieces give what the whole gives.
All rows of a call get the same number of frames. Shapes: B batch, C channels, T frames.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError, LayoutError
from lalia.nn.conv import as_picture, weight_norm
from lalia.streaming import State

__all__ = ["Causal", "CausalConv", "CausalConvTranspose", "ConvState", "OverlapState", "Padding", "stream_of"]

Padding = Literal["zero", "replicate"]

S = TypeVar("S", bound=State)

_FEW = 16
"""Up to so many frames a transposed convolution on a CPU is faster as a matrix product, ten times for one or two."""


def _begin(conv: nn.Conv1d | nn.ConvTranspose1d, fan_in: float) -> None:
    """Draw weights that keep the size of what goes through.

    Those that PyTorch draws shrink it at each layer, by about the square root of three: at the end of a codec's encoder
    nothing but biases is left, and the decoder learns for long without hearing anything.
    """
    nn.init.normal_(conv.weight, std=fan_in**-0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


@dataclass
class ConvState(State):
    """What a convolution looks back on.

    ``past`` [B, C, reach + stride - 1], right-aligned; of these the last ``pending``, the same for all rows, have made
    no frame yet. ``started`` [B]: there was a frame already.
    """

    past: Tensor
    started: Tensor
    pending: int = 0

    def reset(self, fresh: "ConvState", rows: Tensor) -> "ConvState":
        if self.pending != fresh.pending and bool(rows.any()) and not bool(rows.all()):
            raise LayoutError(
                f"Rows of a stream are to begin anew where others are {self.pending} frames into a stride. "
                "Reset them where a stride ends."
            )
        merged = super().reset(fresh, rows)
        merged.pending = fresh.pending if bool(rows.all()) else self.pending
        return merged


@dataclass
class OverlapState(State):
    """``tail`` [B, C, kernel - stride]: what reaches from earlier frames into what comes."""

    tail: Tensor


def stream_of(state: State | None, kind: type[S]) -> S | None:
    """A state as that of one layer."""
    assert state is None or isinstance(state, kind)
    return state


class Causal(nn.Module, ABC):
    """What looks at ``span`` frames of the past at every ``stride``: [B, C, T] -> [B, out, ceil(T / stride)].

    The past before the first frame is silence, or (``replicate``) that frame again and again; likewise where the end
    comes inside a stride.
    """

    def __init__(self, channels: int, out: int, span: int, *, stride: int = 1, padding: Padding = "zero") -> None:
        super().__init__()
        if span < stride:
            raise ConfigError(f"A convolution of {span} frames has stride {stride}. Widen its kernel.")
        self.channels, self.out, self.stride, self.padding = channels, out, stride, padding
        self.span, self.reach = span, span - stride

    @abstractmethod
    def look(self, x: Tensor) -> Tensor:
        """What is made of frames that reach back far enough: [B, C, reach + n * stride] -> [B, out, n]."""

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor of its kind and on its device."""

    def init_state(self, batch_size: int) -> ConvState:
        past = self.like.new_zeros(batch_size, self.channels, self.reach + self.stride - 1)
        return ConvState(past, torch.zeros(batch_size, dtype=torch.bool, device=past.device))

    def forward(self, x: Tensor, state: ConvState | None = None, *, final: bool = False) -> Tensor:
        """
        :param state: updated in place; None when the input is whole. With a state, frames are made of whole strides.
        :param final: the input ends here: make the last frame, and the state fresh.
        """
        if state is None:
            return self._whole(x)
        reach, total = self.reach, state.pending + x.shape[2]
        if self.padding == "replicate" and reach and x.shape[2]:
            state.past = torch.where(state.started[:, None, None], state.past, x[:, :, :1])
        window = torch.cat([state.past[:, :, self.stride - 1 - state.pending :], x], dim=2)
        state.started = state.started | (x.shape[2] > 0)
        if final:
            window = self._fill(window, -total % self.stride)
        count = (window.shape[2] - reach) // self.stride
        if count:
            made = self.look(window[:, :, : reach + count * self.stride])
        else:
            made = window.new_zeros(len(x), self.out, 0)
        if final:
            fresh = self.init_state(len(x))
            state.past, state.started, state.pending = fresh.past.to(window), fresh.started, 0
            return made
        state.pending = window.shape[2] - reach - count * self.stride
        room = state.past.shape[2] - (reach + state.pending)
        state.past = F.pad(window[:, :, count * self.stride :], (room, 0))
        return made

    def _whole(self, x: Tensor) -> Tensor:
        if self.padding == "zero" or not x.shape[2]:
            x = F.pad(x, (self.reach, 0))
        else:
            x = F.pad(x, (self.reach, 0), mode="replicate")
        x = self._fill(x, -(x.shape[2] - self.reach) % self.stride)
        if x.shape[2] == self.reach:
            return x.new_zeros(len(x), self.out, 0)
        return self.look(x)

    def _fill(self, x: Tensor, room: int) -> Tensor:
        return F.pad(x, (0, room), mode="constant" if self.padding == "zero" else "replicate") if room else x


class CausalConv(Causal):
    """A convolution over the past.

    :param normalize: with weight normalisation.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding: Padding = "zero",
        normalize: bool = False,
    ) -> None:
        super().__init__(channels, out, (kernel_size - 1) * dilation + 1, stride=stride, padding=padding)
        self.conv = nn.Conv1d(channels, out, kernel_size, stride, dilation=dilation, groups=groups, bias=bias)
        _begin(self.conv, kernel_size * channels // groups)
        if normalize:
            weight_norm(self.conv)

    @property
    def like(self) -> Tensor:
        return self.conv.weight

    def look(self, x: Tensor) -> Tensor:
        if self.conv.groups == 1:
            return self.conv(x)  # type: ignore[no-any-return]
        return as_picture(self.conv, x)


class CausalConvTranspose(nn.Module):
    """A transposed convolution into the future: [B, C, T] -> [B, out, T * stride].

    Each frame reaches ``kernel - stride`` frames beyond its own; what reaches beyond the last is cut off.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel_size: int,
        *,
        stride: int,
        groups: int = 1,
        bias: bool = True,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if kernel_size < stride:
            raise ConfigError(
                f"A transposed convolution of {kernel_size} frames has stride {stride}. Widen its kernel."
            )
        self.stride, self.reach, self.out = stride, kernel_size - stride, out
        self.conv = nn.ConvTranspose1d(channels, out, kernel_size, stride, groups=groups, bias=bias)
        _begin(self.conv, kernel_size * channels / (groups * stride))
        if normalize:
            weight_norm(self.conv)

    def init_state(self, batch_size: int) -> OverlapState:
        return OverlapState(self.conv.weight.new_zeros(batch_size, self.out, self.reach))

    def forward(self, x: Tensor, state: OverlapState | None = None, *, final: bool = False) -> Tensor:
        """Parameters as for ``CausalConv``."""
        count = x.shape[2] * self.stride
        if not count:
            if state is not None and final:
                state.tail = torch.zeros_like(state.tail)
            return x.new_zeros(len(x), self.out, 0)
        if state is None:
            return self.conv(x)[:, :, :count]  # type: ignore[no-any-return]
        conv = self.conv
        few = x.device.type == "cpu" and x.shape[2] <= _FEW and conv.groups == 1 and not torch.is_grad_enabled()
        if few:
            made = _spread(x, conv.weight, self.stride)
        else:
            made = F.conv_transpose1d(x, conv.weight, None, self.stride, groups=conv.groups)
        made = made + F.pad(state.tail, (0, made.shape[2] - self.reach))
        state.tail = torch.zeros_like(state.tail) if final else made[:, :, count:]
        made = made[:, :, :count]
        return made if conv.bias is None else made + conv.bias[:, None]


def _spread(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """``F.conv_transpose1d`` of a few frames [B, C, T]: what each frame becomes, added where they overlap."""
    b, channels, frames = x.shape
    _, out, size = weight.shape
    steps = -(-size // stride)
    parts = (x.transpose(1, 2) @ weight.reshape(channels, -1)).view(b, frames, out, size)
    parts = F.pad(parts, (0, steps * stride - size)).view(b, frames, out, steps, stride)
    total = F.pad(parts[:, :, :, 0], (0, 0, 0, 0, 0, steps - 1))
    for j in range(1, steps):
        total = total + F.pad(parts[:, :, :, j], (0, 0, 0, 0, j, steps - 1 - j))
    return total.transpose(1, 2).reshape(b, out, -1)[:, :, : (frames - 1) * stride + size]
