"""A Transformer that looks back a fixed number of frames, for streams without end.

Its state has the size of the window, whatever the length of the stream, and a whole input is computed in blocks, so
time and memory are linear in its length. Keys are kept unrotated and placed relative to the window: RoPE knows only
distances (arXiv:2104.09864 §3.2), and the angles of a stream of days would lose their precision.

Shapes: B batch, T frames, D dim, H heads, W window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.kernels import attend, rotate
from lalia.nn.layers import FeedForward, norm_of
from lalia.nn.packed import Linear
from lalia.nn.positions import angles
from lalia.nn.transformer import Transformer
from lalia.streaming import State

__all__ = ["WindowState", "WindowTransformer"]

_LEAST_BLOCK = 64


@dataclass
class WindowState(State):
    """The last ``W - 1`` frames: ``keys`` and ``values`` per layer [B, H_kv, W - 1, D_head], right-aligned.

    ``seen`` [B]: how many of them there are.
    """

    keys: list[Tensor]
    values: list[Tensor]
    seen: Tensor


@dataclass(frozen=True)
class _Place:
    """Where the frames of a block stand among the keys: RoPE of queries and keys, and who sees whom [B, 1, S, T]."""

    queries: tuple[Tensor, Tensor] | None
    keys: tuple[Tensor, Tensor] | None
    mask: Tensor


class _Layer(nn.Module):
    """Pre-norm attention and feed-forward, each with a scale per channel (arXiv:2103.17239 §2)."""

    def __init__(self, config: Transformer.Config, scale: float) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.kv_heads, config.size_of_head
        width = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        self.attention_norm = norm_of(config)
        self.qkv = Linear(config.dim, width, bias=config.bias or config.qkv_bias)
        self.out = Linear(self.num_heads * self.head_dim, config.dim, bias=config.bias)
        self.attention_scale = nn.Parameter(torch.full((config.dim,), scale))
        self.feed_forward_norm = norm_of(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_scale = nn.Parameter(torch.full((config.dim,), scale))

    def forward(self, x: Tensor, place: _Place, past: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        made, past = self._attend(self.attention_norm(x), place, past)
        x = x + self.attention_scale * made
        return x + self.feed_forward_scale * self.feed_forward(self.feed_forward_norm(x)), past

    def _attend(self, x: Tensor, place: _Place, past: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        b, s, _ = x.shape
        heads = self.qkv(x).view(b, s, -1, self.head_dim).transpose(1, 2)
        q, k, v = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        k, v = torch.cat([past[0].to(k.dtype), k], dim=2), torch.cat([past[1].to(v.dtype), v], dim=2)
        kept = k[:, :, s:], v[:, :, s:]
        if place.queries is not None and place.keys is not None:
            q, k = rotate(q.contiguous(), *place.queries), rotate(k, *place.keys)
        y = attend(q, k, v, mask=place.mask)
        return self.out(y.transpose(1, 2).reshape(b, s, -1)), kept


class WindowTransformer(nn.Module):
    """[B, T, D] to [B, T, D]; each frame sees itself and the ``config.window - 1`` before it.

    :param config: the shape, with a ``window``. There is no norm after the last layer.
    :param scale: of what each half of a layer adds, at the start of training.
    :raises ConfigError: it has no window, positions that are not relative, or what such layers do not have.
    """

    def __init__(self, config: Transformer.Config, *, scale: float = 0.01) -> None:
        super().__init__()
        plain = config.mask == "causal" and config.rope_scaling is None and not config.qk_norm
        if config.window is None or config.positions not in ("rope", "none") or not plain:
            raise ConfigError(
                f"A Transformer of a codec has window {config.window}, {config.positions} positions and a "
                f"{config.mask} mask. Give it a window, rope or none, and causal; without rope_scaling and qk_norm."
            )
        if config.dropout or config.attention_dropout:
            raise ConfigError(f"A Transformer of a codec has dropout {config.dropout:g}. Set both dropouts to 0.")
        self.config, self.window = config, config.window
        self.layers = nn.ModuleList(_Layer(config, scale) for _ in range(config.num_layers))

    def init_state(self, batch_size: int) -> WindowState:
        c, p = self.config, next(self.parameters())
        shape = (batch_size, c.kv_heads, self.window - 1, c.size_of_head)
        return WindowState(
            [p.new_zeros(shape) for _ in self.layers],
            [p.new_zeros(shape) for _ in self.layers],
            torch.zeros(batch_size, dtype=torch.long, device=p.device),
        )

    def forward(self, x: Tensor, state: WindowState | None = None, *, final: bool = False) -> Tensor:
        """
        :param state: updated in place; None when the input is whole.
        :param final: the input ends here: make the state fresh.
        """
        kept = self.init_state(len(x)) if state is None else state
        blocks = x.split(max(self.window, _LEAST_BLOCK), dim=1)
        made = [self._block(block, kept) for block in blocks if block.shape[1]]
        if state is not None and final:
            fresh = self.init_state(len(x))
            state.keys, state.values, state.seen = fresh.keys, fresh.values, fresh.seen
        return torch.cat(made, dim=1) if made else x

    def _block(self, x: Tensor, state: WindowState) -> Tensor:
        place = self._place(x, state.seen)
        for i, layer in enumerate(self.layers):
            x, (state.keys[i], state.values[i]) = layer(x, place, (state.keys[i], state.values[i]))
        state.seen = (state.seen + x.shape[1]).clamp(max=self.window - 1)
        return x

    def _place(self, x: Tensor, seen: Tensor) -> _Place:
        past, steps = self.window - 1, x.shape[1]
        keys = torch.arange(past + steps, device=x.device)
        queries = keys[past:]
        distance = queries[:, None] - keys
        near = (distance >= 0) & (distance < self.window)
        mask = (near & (keys >= past - seen[:, None, None]))[:, None]
        if self.config.positions == "none":
            return _Place(None, None, mask)
        cos, sin = angles(keys, self.config.size_of_head, self.config.rope_theta)
        return _Place((cos[past:], sin[past:]), (cos, sin), mask)
