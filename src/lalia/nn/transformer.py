"""The decoder-only Transformer, with a preallocated KV state that is a value.

Shapes: B batch, S steps, D dim, H heads. The defaults are Llama's (RoPE, RMSNorm, SwiGLU, grouped
queries); the fields cover the older published models (learned or sinusoidal positions, LayerNorm,
ReLU or GELU).
"""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.streaming import State

__all__ = ["KVState", "Transformer"]


@dataclass
class KVState(State):
    """Keys and values of every layer so far.

    ``keys`` and ``values``: per layer [B, H_kv, capacity, D_head]; ``position`` [B]: steps already taken by
    each row. Rows may stand at different positions.
    """

    keys: list[Tensor]
    values: list[Tensor]
    position: Tensor

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def reserve(self, steps: int) -> None:
        """Make room for ``steps`` positions, at least doubling, so that growth costs O(1) a step."""
        if steps <= self.capacity:
            return
        room = max(steps, 2 * self.capacity) - self.capacity
        self.keys = [F.pad(k, (0, 0, 0, room)) for k in self.keys]
        self.values = [F.pad(v, (0, 0, 0, room)) for v in self.values]


def rotary_table(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of RoPE (arXiv:2104.09864) for positions [...]: [..., D_head], halves repeated."""
    inverse = theta ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    angle = positions.float()[..., None] * inverse
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to x [..., D_head] (the halves convention of Llama)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos + turned * sin


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Sinusoidal position embeddings [..., D] (arXiv:1706.03762 §3.5, sines then cosines)."""
    half = dim // 2
    rate = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half, device=positions.device))
    angle = positions.float()[..., None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Attention(nn.Module):
    """Causal self-attention with grouped keys and values."""

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.kv_heads
        self.head_dim = config.size_of_head
        self.rope = config.positions == "rope"
        self.dropout = config.dropout
        width = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        # One matrix for queries, keys and values: one read of x, one product.
        self.qkv = nn.Linear(config.dim, width, bias=config.bias or config.qkv_bias)
        self.out = nn.Linear(self.num_heads * self.head_dim, config.dim, bias=config.bias)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor] | None, cache: "_Cache | None") -> Tensor:
        b, s, _ = x.shape
        heads = self.qkv(x).view(b, s, self.num_heads + 2 * self.num_kv_heads, self.head_dim).transpose(1, 2)
        if table is not None:
            turned = rotate(heads[:, : self.num_heads + self.num_kv_heads], *table).to(heads.dtype)
            q, k = turned.split([self.num_heads, self.num_kv_heads], dim=1)
        else:
            q, k, _ = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        v = heads[:, self.num_heads + self.num_kv_heads :]
        mask, causal = None, s > 1
        if cache is not None:
            k, v, mask, causal = cache.extend(k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=causal and mask is None,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )
        return self.out(y.transpose(1, 2).reshape(b, s, -1))


class _Cache:
    """One layer's view of a KVState during one forward pass."""

    def __init__(self, state: KVState, layer: int, steps: int) -> None:
        self.state, self.layer, self.steps = state, layer, steps
        start = state.position
        first = int(start[0])
        # All rows at one place is the common case (one session, or a batch of equal prompts): then the new
        # keys are one slice, and no mask is needed for a single step.
        self.together = bool((start == first).all())
        self.first = first
        self.stop = int(start.max()) + steps
        self.mask: Tensor | None = None
        if not (self.together and (steps == 1 or first == 0)):
            query = start[:, None] + torch.arange(steps, device=start.device)
            key = torch.arange(self.stop, device=start.device)
            self.mask = (key <= query[..., None])[:, None]
        self.index = None if self.together else start[:, None] + torch.arange(steps, device=start.device)

    def at(self, layer: int) -> "_Cache":
        self.layer = layer
        return self

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None, bool]:
        keys, values = self.state.keys[self.layer], self.state.values[self.layer]
        if self.index is None:
            keys[:, :, self.first : self.stop] = k
            values[:, :, self.first : self.stop] = v
        else:
            rows = torch.arange(len(k), device=k.device)[:, None]
            keys[rows, :, self.index] = k.transpose(1, 2).to(keys.dtype)
            values[rows, :, self.index] = v.transpose(1, 2).to(values.dtype)
        return (
            keys[:, :, : self.stop].to(k.dtype),
            values[:, :, : self.stop].to(v.dtype),
            self.mask,
            self.mask is None and self.steps > 1,
        )


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202) or a plain two-layer network."""

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        self.activation = config.activation
        self.gated = config.activation in ("swiglu", "geglu")
        # Gate and value side by side in one matrix.
        self.up = nn.Linear(config.dim, config.hidden * (2 if self.gated else 1), bias=config.bias)
        self.down = nn.Linear(config.hidden, config.dim, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        match self.activation:
            case "swiglu":
                gate, value = x.chunk(2, dim=-1)
                x = F.silu(gate) * value
            case "geglu":
                gate, value = x.chunk(2, dim=-1)
                x = F.gelu(gate, approximate="tanh") * value
            case "gelu":
                x = F.gelu(x)
            case "relu":
                x = F.relu(x)
        return self.down(x)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = _norm(config)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor] | None, cache: _Cache | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), table, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


def _norm(config: "Transformer.Config") -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.dim, eps=config.norm_eps)
    return nn.LayerNorm(config.dim, eps=config.norm_eps)


class Transformer(Configurable, nn.Module):
    """A causal Transformer from scratch: [B, S, D] to [B, S, D]."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param ffn_dim: hidden size of the feed-forward layers; 8/3 of dim rounded up to 64 when not given.
        :param num_kv_heads: heads of keys and values (grouped-query attention); all when not given.
        :param context: most steps that the model is meant for; a bound only for learned positions.
        """

        _: KW_ONLY
        num_layers: int
        num_heads: int
        dim: int
        ffn_dim: int | None = None
        num_kv_heads: int | None = None
        head_dim: int | None = None
        context: int = 3072
        positions: Literal["rope", "learned", "sinusoidal", "none"] = "rope"
        rope_theta: float = 10000.0
        norm: Literal["rms", "layer"] = "rms"
        norm_eps: float = 1e-5
        activation: Literal["swiglu", "geglu", "gelu", "relu"] = "swiglu"
        bias: bool = False
        qkv_bias: bool = False
        dropout: float = 0.0

        def __post_init__(self) -> None:
            if self.head_dim is None and self.dim % self.num_heads:
                raise ConfigError(
                    f"Transformer has dim {self.dim} and {self.num_heads} heads. Make dim a multiple of num_heads, "
                    "or give head_dim."
                )
            if self.num_heads % self.kv_heads:
                raise ConfigError(
                    f"Transformer has {self.num_heads} heads and {self.kv_heads} kv heads. "
                    "Make num_heads a multiple of num_kv_heads."
                )

        def tiny(self) -> "Transformer.Config":
            heads = 4 if self.num_heads % 4 == 0 else self.num_heads
            kept = {"num_kv_heads": max(heads * self.kv_heads // self.num_heads, 1), "head_dim": None}
            return replace(
                self, num_layers=min(self.num_layers, 3), num_heads=heads, dim=32 * heads, ffn_dim=64 * heads, **kept
            )

        @property
        def kv_heads(self) -> int:
            return self.num_kv_heads or self.num_heads

        @property
        def size_of_head(self) -> int:
            return self.head_dim or self.dim // self.num_heads

        @property
        def hidden(self) -> int:
            return self.ffn_dim or -(-8 * self.dim // 3 // 64) * 64

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = _norm(config)
        self.position_embedding = nn.Embedding(config.context, config.dim) if config.positions == "learned" else None
        self._table: tuple[Tensor, Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02), with the matrices that end a residual branch scaled by 1/sqrt(2 layers) (GPT-2)."""
        for name, p in self.named_parameters():
            if p.ndim < 2:
                continue
            last = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
            nn.init.normal_(p, std=0.02 / math.sqrt(2 * self.config.num_layers) if last else 0.02)

    def init_state(self, batch_size: int, capacity: int = 256) -> KVState:
        """An empty KV state with room for ``capacity`` steps; it grows when they are used up."""
        c = self.config
        p = next(self.parameters())
        shape = (batch_size, c.kv_heads, capacity, c.size_of_head)
        return KVState(
            [p.new_zeros(shape) for _ in self.layers],
            [p.new_zeros(shape) for _ in self.layers],
            torch.zeros(batch_size, dtype=torch.long, device=p.device),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: KVState | None = None) -> Tensor:
        """
        :param x: [B, S, D].
        :param lengths: [B] valid steps of x; only with a state, where rows then move on by their own length.
        :param state: keys and values so far, updated in place; None for a whole sequence.
        :returns: [B, S, D].
        """
        b, s, _ = x.shape
        cache = None
        if state is not None:
            state.reserve(int(state.position.max()) + s)
            cache = _Cache(state, 0, s)
        table, offset = self._positions(s, state, x)
        if offset is not None:
            x = x + offset.to(x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(x, table, None if cache is None else cache.at(i))
        if state is not None:
            # Steps past a row's length were computed on padding; the row's next steps overwrite them.
            state.position = state.position + (s if lengths is None else lengths.to(state.position))
        return self.norm(x)

    def _positions(
        self, s: int, state: KVState | None, x: Tensor
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        c = self.config
        at = torch.arange(s, device=x.device)
        if state is not None:
            at = state.position[:, None] + at
        if c.positions == "rope":
            cos, sin = self._rope(s if state is None else int(state.position.max()) + s, x)
            if state is None:
                return (cos[:s], sin[:s]), None
            return (cos[at][:, None], sin[at][:, None]), None
        if c.positions == "sinusoidal":
            return None, sinusoids(at, self.dim)
        if self.position_embedding is not None:
            last = s if state is None else int(state.position.max()) + s
            if last > c.context:
                raise ConfigError(
                    f"The model has {c.context} learned positions, but the sequence has {last} steps. Shorten it."
                )
            return None, self.position_embedding(at)
        return None, None

    def _rope(self, stop: int, x: Tensor) -> tuple[Tensor, Tensor]:
        # A table, not a state: it holds nothing of any input. Grown by doubling, made anew on another device.
        if self._table is None or len(self._table[0]) < stop or self._table[0].device != x.device:
            size = max(256, 1 << (stop - 1).bit_length())
            # Made outside inference mode, because training may use the same table later.
            with torch.inference_mode(False), torch.no_grad():
                at = torch.arange(size, device=x.device)
                self._table = rotary_table(at, self.config.size_of_head, self.config.rope_theta)
        return self._table
