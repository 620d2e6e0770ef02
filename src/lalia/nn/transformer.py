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
from lalia.nn.kernels import RMSNorm, attend, rotate
from lalia.nn.kv import KVState, KVView
from lalia.nn.packed import Linear

__all__ = ["KVState", "Transformer"]

_INIT_STD = 0.02


def angles(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of RoPE (arXiv:2104.09864) for positions [...]: [..., D_head / 2]."""
    rate = theta ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    angle = positions.float()[..., None] * rate
    return angle.cos(), angle.sin()


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Sinusoidal position embeddings [..., D] (arXiv:1706.03762 §3.5), sines then cosines."""
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
        self.dropout = config.attention_dropout
        width = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        # One matrix for queries, keys and values: one read of x, one product.
        self.qkv = Linear(config.dim, width, bias=config.bias or config.qkv_bias)
        self.out = Linear(self.num_heads * self.head_dim, config.dim, bias=config.bias)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor] | None, view: KVView | None, layer: int) -> Tensor:
        b, s, _ = x.shape
        turned = self.num_heads + self.num_kv_heads
        heads = self.qkv(x).view(b, s, turned + self.num_kv_heads, self.head_dim).transpose(1, 2)
        qk, v = heads[:, :turned], heads[:, turned:]
        if table is not None:
            qk = rotate(qk, *table)
        q, k = qk[:, : self.num_heads], qk[:, self.num_heads :]
        dropout = self.dropout if self.training else 0.0
        if view is None:
            y = attend(q, k, v, causal=s > 1, dropout=dropout)
        else:
            k, v = view.extend(layer, k, v)
            y = attend(q, k, v, mask=view.mask, causal=view.causal, dropout=dropout)
        return self.out(y.transpose(1, 2).reshape(b, s, -1))


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202) or a plain two-layer network."""

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        self.activation = config.activation
        self.gated = config.activation in ("swiglu", "geglu")
        # Gate and value side by side in one matrix.
        self.up = Linear(config.dim, config.hidden * (2 if self.gated else 1), bias=config.bias)
        self.down = Linear(config.hidden, config.dim, bias=config.bias)

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

    def __init__(self, config: "Transformer.Config", layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = _norm(config)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor] | None, view: KVView | None) -> Tensor:
        x = x + self._drop(self.attention(self.attention_norm(x), table, view, self.layer))
        return x + self._drop(self.feed_forward(self.feed_forward_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout and self.training else x


def _norm(config: "Transformer.Config") -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.dim, eps=config.norm_eps)
    return nn.LayerNorm(config.dim, eps=config.norm_eps)


class Transformer(Configurable, nn.Module):
    """A causal Transformer from scratch: [B, S, D] to [B, S, D]."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """The shape of a Transformer.

        :param ffn_dim: hidden size of the feed-forward layers; 8/3 of dim rounded up to 64 when not given.
        :param num_kv_heads: heads of keys and values (grouped-query attention); all when not given.
        :param context: most steps that the model is meant for; a bound only for learned positions.
        :param positions: sinusoidal ones have the scale of embeddings at the start of training, as they have
            in fairseq, which scales both up.
        :param bias: in every linear map; ``qkv_bias`` only in that of queries, keys and values (Qwen).
        :param dropout: on what each half of a block adds.
        :param attention_dropout: on attention weights; slow, as the fast kernels have none.
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
        attention_dropout: float = 0.0

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
            return replace(
                self,
                num_layers=min(self.num_layers, 3),
                num_heads=heads,
                num_kv_heads=max(heads * self.kv_heads // self.num_heads, 1),
                head_dim=None,
                dim=32 * heads,
                ffn_dim=64 * heads,
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
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
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
            nn.init.normal_(p, std=_INIT_STD / math.sqrt(2 * self.config.num_layers) if last else _INIT_STD)

    def init_state(self, batch_size: int, capacity: int = 256) -> KVState:
        """An empty KV state with room for ``capacity`` steps; it grows when they are used up."""
        c = self.config
        p = next(self.parameters())
        shape = (batch_size, c.kv_heads, capacity, c.size_of_head)
        return KVState(
            [p.new_zeros(shape) for _ in self.layers],
            [p.new_zeros(shape) for _ in self.layers],
            torch.zeros(batch_size, dtype=torch.long),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: KVState | None = None) -> Tensor:
        """Hidden states of the steps.

        :param x: [B, S, D].
        :param lengths: [B] valid steps of x; only with a state, where rows then move on by their own length.
        :param state: keys and values so far, updated in place; None for a whole sequence.
        :returns: [B, S, D].
        :raises ConfigError: more steps than there are learned positions.
        """
        steps = last = x.shape[1]
        view, at = None, torch.arange(steps, device=x.device)
        if state is not None:
            moved = state.position + (steps if lengths is None else lengths.to(state.position))
            view, last = KVView(state, steps), int(moved.max())
            at = view.at
        x, table = self._place(x, at, last, steps if view is None else view.stop)
        for layer in self.layers:
            x = layer(x, table, view)
        if state is not None:
            # Steps past a row's length were computed on padding; the row's next steps overwrite them.
            state.position = moved
        return self.norm(x)

    def _place(self, x: Tensor, at: Tensor, last: int, stop: int) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Tell x [B, S, D] where its steps are: it with what is added, and RoPE's table if it is that.

        :param at: positions [S], or [B or 1, S].
        :param last: the steps of the longest row, and ``stop``: also with padding.
        """
        match self.config.positions:
            case "rope":
                cos, sin = (t[at] for t in self._angles(stop, x.device))
                return x, (cos, sin) if at.ndim == 1 else (cos[:, None], sin[:, None])
            case "sinusoidal":
                return x + (_INIT_STD * sinusoids(at, self.dim)).to(x.dtype), None
            case "learned":
                assert self.position_embedding is not None
                if last > self.config.context:
                    raise ConfigError(
                        f"The model has {self.config.context} learned positions, but the sequence has {last} steps. "
                        "Shorten it."
                    )
                # Padding may lie beyond the last position.
                return x + self.position_embedding(at.clamp(max=self.config.context - 1)), None
            case "none":
                return x, None

    def _angles(self, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin of positions 0 to at least ``stop``."""
        # A table, not a state: it holds nothing of any input. Grown by doubling, made anew on another device.
        if self._table is None or len(self._table[0]) < stop or self._table[0].device != device:
            size = max(256, 1 << (stop - 1).bit_length())
            # Made outside inference mode, because training may use the same table later.
            with torch.inference_mode(False), torch.no_grad():
                at = torch.arange(size, device=device)
                self._table = angles(at, self.config.size_of_head, self.config.rope_theta)
        return self._table
