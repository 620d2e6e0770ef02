"""The layers of a Transformer.

Shapes: B batch, S steps, D dim, H heads. Where several channels go through the same weights, they lie between
the batch and the steps, [B, C, S, D], and in attention side by side among the heads, [B, C x H, S, D_head].
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.nn.kernels import RMSNorm, rotate
from lalia.nn.kv import View
from lalia.nn.packed import Linear

if TYPE_CHECKING:
    from lalia.nn.transformer import Transformer

__all__ = ["INIT_STD", "Attention", "Block", "FeedForward", "Table", "drop", "look", "merge_heads", "norm_of"]

INIT_STD = 0.02

Table = tuple[Tensor, Tensor]
"""cos and sin of the angles of the positions, where they are rotary."""


def norm_of(config: "Transformer.Config") -> nn.Module:
    """A normalisation layer over D."""
    if config.norm == "rms":
        return RMSNorm(config.dim, eps=config.norm_eps)
    return nn.LayerNorm(config.dim, eps=config.norm_eps)


def drop(module: nn.Module, x: Tensor, rate: float) -> Tensor:
    """Dropout while ``module`` is trained."""
    return F.dropout(x, rate) if rate and module.training else x


class Attention(nn.Module):
    """Self-attention with grouped keys and values."""

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.kv_heads
        self.head_dim = config.size_of_head
        self.dropout = config.attention_dropout
        turned = self.num_heads + self.num_kv_heads
        # One matrix for queries, keys and values: one read of x, one product.
        self.qkv = Linear(config.dim, (turned + self.num_kv_heads) * self.head_dim, bias=config.bias or config.qkv_bias)
        self.out = Linear(self.num_heads * self.head_dim, config.dim, bias=config.bias)
        self.q_norm = RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else None
        # The two steps of a pair have one position: this is what tells them apart.
        self.side = nn.Parameter(torch.empty(2, turned * self.head_dim)) if config.mask == "pair" else None

    def forward(self, x: Tensor, table: Table | None, view: View, layer: int) -> Tensor:
        turned = self.num_heads + self.num_kv_heads
        heads = self.qkv(x).view(*x.shape[:-1], turned + self.num_kv_heads, self.head_dim).transpose(-3, -2)
        qk, v = heads.narrow(-3, 0, turned), heads.narrow(-3, turned, self.num_kv_heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([self.num_heads, self.num_kv_heads], dim=-3)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], dim=-3)
        if self.side is not None:
            qk = qk + self.side[view.at % 2].unflatten(-1, (turned, self.head_dim)).transpose(-3, -2).to(qk.dtype)
        if table is not None:
            qk = rotate(qk, *table)
        q, k = qk.narrow(-3, 0, self.num_heads), qk.narrow(-3, self.num_heads, self.num_kv_heads)
        dropout = self.dropout if self.training else 0.0
        return self.out(merge_heads(look(q, k, v, view, layer, dropout=dropout)))


def look(q: Tensor, k: Tensor, v: Tensor, view: View, layer: int, *, dropout: float) -> Tensor:
    """Attention of queries [B, (C,) H, S, D_head] on keys and values alike, after those that came before."""
    if q.ndim == 4:
        return view.attend(layer, q, k, v, dropout=dropout)
    y = view.attend(layer, q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), dropout=dropout)
    return y.view(q.shape)


def merge_heads(y: Tensor) -> Tensor:
    """[B, (C,) H, S, D_head] to [B, (C,) S, H x D_head]."""
    return y.transpose(-3, -2).flatten(-2)


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
                # Its own memory again, where no gradient asks for what was there: of many steps that is the cache.
                x = F.silu(gate) * value if torch.is_grad_enabled() else F.silu(gate, inplace=True).mul_(value)
            case "geglu":
                gate, value = x.chunk(2, dim=-1)
                x = F.gelu(gate, approximate="tanh") * value
            case "gelu":
                x = F.gelu(x)
            case "gelu_tanh":
                x = F.gelu(x, approximate="tanh")
            case "relu":
                x = F.relu(x)
        return self.down(x)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: "Transformer.Config", layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = norm_of(config)
        self.attention = Attention(config)
        self.feed_forward_norm = norm_of(config)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, table: Table | None, view: View) -> Tensor:
        x = _plus(x, drop(self, self.attention(self.attention_norm(x), table, view, self.layer), self.dropout))
        return _plus(x, drop(self, self.feed_forward(self.feed_forward_norm(x)), self.dropout))


def _plus(x: Tensor, made: Tensor) -> Tensor:
    """The sum, in the memory of what was just made where that may be."""
    return x + made if torch.is_grad_enabled() or made.dtype != x.dtype else made.add_(x)
