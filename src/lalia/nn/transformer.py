"""The Transformer, with a preallocated KV state that is a value.

Shapes: B batch, S steps, D dim, H heads. The defaults are Llama's (RoPE, RMSNorm, SwiGLU, grouped
queries); the fields cover the older published models (learned or sinusoidal positions, LayerNorm,
ReLU or GELU) and the other text models of today (windows, normalised queries, stretched RoPE).
"""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.nn.branches import Branches, BranchView
from lalia.nn.kernels import whole_turn
from lalia.nn.kv import KVState, KVView, RowsView, View
from lalia.nn.layers import INIT_STD, Block, Table, norm_of
from lalia.nn.masks import Mask, Sight
from lalia.nn.positions import RopeScaling, angles, sinusoids
from lalia.streaming import RowStates

__all__ = ["KVState", "Transformer"]

_LONGEST_TABLE = 1 << 15
"""Positions of which the angles are kept; those of later ones are computed as they come."""


class Transformer(Configurable, nn.Module):
    """A Transformer of one stack of layers, causal or with another mask: [B, S, D] to [B, S, D]."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """The shape of a Transformer.

        :param ffn_dim: hidden size of the feed-forward layers; 8/3 of dim rounded up to 64 when not given.
        :param num_kv_heads: heads of keys and values (grouped-query attention); all when not given.
        :param context: most steps that the model is meant for; a bound only for learned positions.
        :param mask: which steps see which; see ``lalia.nn.masks.Mask``. The two steps of a pair have one position.
        :param block_size: steps of a block, with the mask ``block``.
        :param window: a step sees only this many steps, itself the last: a state then keeps no more of them.
        :param positions: sinusoidal ones have the scale of embeddings at the start of training, as they have
            in fairseq, which scales both up.
        :param rope_scaling: how RoPE is stretched to longer sequences.
        :param qk_norm: RMSNorm of each head's queries and keys (Qwen3).
        :param final_norm: normalise what comes out of the last layer.
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
        mask: Mask = "causal"
        block_size: int = 1
        window: int | None = None
        positions: Literal["rope", "learned", "sinusoidal", "none"] = "rope"
        rope_theta: float = 10000.0
        rope_scaling: RopeScaling | None = None
        norm: Literal["rms", "layer"] = "rms"
        norm_eps: float = 1e-5
        final_norm: bool = True
        activation: Literal["swiglu", "geglu", "gelu", "gelu_tanh", "relu"] = "swiglu"
        bias: bool = False
        qkv_bias: bool = False
        qk_norm: bool = False
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

            if self.block_size < 1 or (self.window is not None and self.window < 1):
                raise ConfigError(
                    f"Transformer has blocks of {self.block_size} steps and a window of {self.window}. Give at least 1."
                )

        def tiny(self) -> Self:
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
        def sight(self) -> Sight:
            return Sight(self.mask, self.block_size, self.window)

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
        self.layers = nn.ModuleList(self._layer(i) for i in range(config.num_layers))
        self.norm = norm_of(config) if config.final_norm else nn.Identity()
        self.position_embedding = nn.Embedding(config.context, config.dim) if config.positions == "learned" else None
        self._table: Table | None = None
        self.reset_parameters()

    @property
    def sight(self) -> Sight:
        """What its steps see."""
        return self.config.sight

    def _layer(self, index: int) -> nn.Module:
        return Block(self.config, index)

    def reset_parameters(self) -> None:
        """Normal(0, 0.02), with the matrices that end a residual branch scaled by 1/sqrt(2 layers) (GPT-2)."""
        for name, p in self.named_parameters():
            if p.ndim < 2:
                continue
            last = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
            nn.init.normal_(p, std=INIT_STD / math.sqrt(2 * self.config.num_layers) if last else INIT_STD)

    def init_state(self, batch_size: int, capacity: int = 256) -> KVState:
        """An empty KV state with room for ``capacity`` steps; it grows when they are used up, up to a window.

        A step takes 2 x layers x kv heads x head size numbers, all of which are had at once: who asks for the room of
        a conversation never takes more memory.
        """
        return self._init_state(batch_size, capacity, self.config.num_layers, self.config.kv_heads)

    def _init_state(self, batch_size: int, capacity: int, num_layers: int, num_heads: int) -> KVState:
        p, window = next(self.parameters()), self.config.window
        capacity = capacity if window is None else min(capacity, window)
        shape = (batch_size, num_heads, capacity, self.config.size_of_head)
        # Written here, as zeros that the system hands out take their memory only when they are used.
        return KVState(
            [p.new_empty(shape).zero_() for _ in range(num_layers)],
            [p.new_empty(shape).zero_() for _ in range(num_layers)],
            torch.zeros(batch_size, dtype=torch.long),
            window,
        )

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        state: KVState | RowStates | None = None,
        *,
        prefix: Tensor | None = None,
        branches: Branches | None = None,
    ) -> Tensor:
        """Hidden states of the steps.

        :param x: [B, S, D].
        :param lengths: [B] valid steps of x. Rows with a state move on by their own length; without one, they
            matter only to masks by which a step sees later ones.
        :param state: keys and values so far, updated in place, of all rows or of each by itself; None for a whole
            sequence.
        :param prefix: [B] first steps of each row that all its steps see, with the mask ``prefix``.
        :param branches: the rows that x [1, N, D] is made of, of whole sequences; with the mask ``causal``, and no row
            longer than the window.
        :returns: [B, S, D].
        :raises ConfigError: more steps than there are learned positions; or a state, and steps that see what
            comes after this pass.
        """
        view, moved = (
            self._view(x, lengths, state, prefix) if branches is None else (BranchView(branches, x.device), None)
        )
        x, table = self._place(x, view, view.stop if moved is None else int(moved.max()))
        for layer in self.layers:
            x = layer(x, table, view)
        if state is not None and moved is not None:
            # Steps past a row's length were computed on padding; the row's next steps overwrite them.
            _move(state, moved)
        return self.norm(x)

    def _view(
        self, x: Tensor, lengths: Tensor | None, state: KVState | RowStates | None, prefix: Tensor | None
    ) -> tuple[View, Tensor | None]:
        """What the steps of x [B, ..., S, D] see, and where the rows of a state will stand after them."""
        steps, sight = x.shape[-2], self.config.sight
        if state is None:
            return View(sight, steps, x.device, lengths=lengths, prefix=prefix), None
        view: View
        if isinstance(state, RowStates):
            position = torch.cat([row.position for row in state.rows])
            view = RowsView(sight, steps, state, lengths=lengths, prefix=prefix)
        else:
            position = state.position
            view = KVView(sight, steps, state, lengths=lengths, prefix=prefix)
        return view, position + (steps if lengths is None else lengths.to(position))

    def _place(self, x: Tensor, view: View, last: int) -> tuple[Tensor, Table | None]:
        """Tell x [B, (C,) S, D] where its steps are: it with what is added, and RoPE's table if it is that.

        :param last: the steps of the longest row without padding.
        """
        at, stop = view.at, view.stop
        if self.config.mask == "pair":
            at, stop, last = at // 2, (stop + 1) // 2, (last + 1) // 2

        def beside(added: Tensor) -> Tensor:
            # Positions of rows, [B or 1, S, ...], are alike for all channels.
            return added[:, None] if at.ndim > 1 and x.ndim > 3 else added

        match self.config.positions:
            case "rope":
                cos, sin = self._angles(at, stop)
                if x.shape[-2] == 1 and x.device.type == "cpu" and not torch.is_grad_enabled():
                    cos, sin = whole_turn(cos, sin)
                cos, sin = beside(cos), beside(sin)
                return x, (cos, sin) if at.ndim == 1 else (cos.unsqueeze(-3), sin.unsqueeze(-3))
            case "sinusoidal":
                return x + beside(INIT_STD * sinusoids(at, self.dim)).to(x.dtype), None
            case "learned":
                assert self.position_embedding is not None
                if last > self.config.context:
                    raise ConfigError(
                        f"The model has {self.config.context} learned positions, but the sequence has {last} steps. "
                        "Shorten it."
                    )
                # Padding may lie beyond the last position.
                return x + beside(self.position_embedding(at.clamp(max=self.config.context - 1))), None
            case "none":
                return x, None

    def _angles(self, at: Tensor, stop: int) -> Table:
        """cos and sin of the positions ``at``, which are below ``stop``."""
        c = self.config
        if stop > _LONGEST_TABLE:
            return angles(at, c.size_of_head, c.rope_theta, c.rope_scaling)
        # A table, not a state: it holds nothing of any input. Grown by doubling, made anew on another device.
        if self._table is None or len(self._table[0]) < stop or self._table[0].device != at.device:
            size = max(256, 1 << (stop - 1).bit_length())
            # Made outside inference mode, because training may use the same table later.
            with torch.inference_mode(False), torch.no_grad():
                every = torch.arange(size, device=at.device)
                self._table = angles(every, c.size_of_head, c.rope_theta, c.rope_scaling)
        cos, sin = self._table
        return cos[at], sin[at]


def _move(state: KVState | RowStates, position: Tensor) -> None:
    """Where the rows [B] stand now."""
    if isinstance(state, KVState):
        state.position = position
        return
    for row, at in zip(state.rows, position.split(1), strict=True):
        row.position = at
