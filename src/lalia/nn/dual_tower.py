"""Two channels through one tower that look at each other: dGSLM's network (arXiv:2203.16502 §3.3).

Shapes: B batch, 2 channels, S steps, D dim, H heads.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, Self

from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.kernels import rotate
from lalia.nn.kv import KVState, View
from lalia.nn.layers import Attention, Block, FeedForward, Table, drop, look, merge_heads, norm_of
from lalia.nn.packed import Linear
from lalia.nn.transformer import Transformer

__all__ = ["DualTower"]


class CrossAttention(nn.Module):
    """Each channel looks at the other: step t of one at steps 0 .. t of the other."""

    def __init__(self, config: "DualTower.Config") -> None:
        super().__init__()
        self.head_dim, self.num_kv_heads = config.size_of_head, config.kv_heads
        self.dropout = config.attention_dropout
        width = config.num_heads * self.head_dim
        self.q = Linear(config.dim, width, bias=config.bias or config.qkv_bias)
        self.kv = Linear(config.dim, 2 * self.num_kv_heads * self.head_dim, bias=config.bias or config.qkv_bias)
        self.out = Linear(width, config.dim, bias=config.bias)

    def forward(self, x: Tensor, other: Tensor, table: Table | None, view: View, layer: int) -> Tensor:
        """:param other: what is looked at in each channel, [B, 2, S, D]; ``x``, from where, likewise."""
        q = self.q(x).unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)
        k, v = self.kv(other).unflatten(-1, (2, -1, self.head_dim)).permute(3, 0, 1, 4, 2, 5)
        if table is not None:
            q, k = rotate(q, *table), rotate(k, *table)
        # Keys and values stay where they are, also in the state; the queries change sides, and come back.
        dropout = self.dropout if self.training else 0.0
        return self.out(merge_heads(look(q.flip(1), k, v, view, layer, dropout=dropout).flip(1)))


class CrossBlock(nn.Module):
    """Pre-norm self-attention, cross-attention to the other channel, and feed-forward.

    As in fairseq's ``speech_dlm``, what is looked at is the other channel after its self-attention, not
    normalised; only the channel that looks is.
    """

    def __init__(self, config: "DualTower.Config", layer: int, cross_layer: int) -> None:
        super().__init__()
        self.layer, self.cross_layer = layer, cross_layer
        self.attention_norm = norm_of(config)
        self.attention = Attention(config)
        self.cross_attention_norm = norm_of(config)
        self.cross_attention = CrossAttention(config)
        self.feed_forward_norm = norm_of(config)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, table: Table | None, view: View) -> Tensor:
        x = x + drop(self, self.attention(self.attention_norm(x), table, view, self.layer), self.dropout)
        seen = self.cross_attention(self.cross_attention_norm(x), x, table, view, self.cross_layer)
        x = x + drop(self, seen, self.dropout)
        return x + drop(self, self.feed_forward(self.feed_forward_norm(x)), self.dropout)


class DualTower(Transformer):
    """A Transformer over two channels with the same weights for both: [B, 2, S, D] to [B, 2, S, D].

    It treats them alike: when they change places, so do their hidden states. The upper layers have a
    cross-attention to the other channel. Its KV state has the keys and values of self-attention, then those of
    cross-attention, each [B, 2 x H_kv, capacity, D_head].
    """

    @dataclass(frozen=True)
    class Config(Transformer.Config):
        """The shape of a dual tower; the defaults are dGSLM's.

        :param cross_layers: how many of the layers, the upper ones, look at the other channel.
        """

        _: KW_ONLY
        num_layers: int = 6
        num_heads: int = 8
        dim: int = 512
        ffn_dim: int | None = 2048
        cross_layers: int = 4
        positions: Literal["rope", "learned", "sinusoidal", "none"] = "sinusoidal"
        norm: Literal["rms", "layer"] = "layer"
        activation: Literal["swiglu", "geglu", "gelu", "gelu_tanh", "relu"] = "relu"
        bias: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.cross_layers <= self.num_layers:
                raise ConfigError(
                    f"DualTower has {self.num_layers} layers, and {self.cross_layers} of them look at the other "
                    "channel. Make cross_layers at most num_layers."
                )
            if self.mask == "pair":
                raise ConfigError("DualTower has the mask 'pair', but its channels do not share steps. Set 'causal'.")

        def tiny(self) -> Self:
            # Fewer layers look at the other channel first, so that there are never more of them than layers.
            return Transformer.Config.tiny(replace(self, cross_layers=min(self.cross_layers, 2, self.num_layers)))

    config: Config

    def _layer(self, index: int) -> nn.Module:
        c = self.config
        above = index - (c.num_layers - c.cross_layers)
        return Block(c, index) if above < 0 else CrossBlock(c, index, c.num_layers + above)

    def init_state(self, batch_size: int, capacity: int = 256) -> KVState:
        c = self.config
        return self._init_state(batch_size, capacity, c.num_layers + c.cross_layers, 2 * c.kv_heads)
