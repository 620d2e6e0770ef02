"""The depth Transformer: one frame's codes, one after the other (RQ-Transformer, arXiv:2203.01941; Moshi,
arXiv:2410.00037 §3.4.1).

Shapes: n frames, K steps of a frame (its codebooks), D dim, H heads. Inside, steps come first: [K, n, D], so that
weights of their own per step are one batched product.
"""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.nn.kernels import RMSNorm, attend, rotate
from lalia.nn.layers import INIT_STD, Table, drop
from lalia.nn.packed import PackedWeight
from lalia.nn.positions import angles
from lalia.streaming import State

__all__ = ["DepthState", "DepthTransformer", "StepLinear"]


class StepLinear(nn.Module):
    """Linear maps without bias, one for each step, or for several: ``weight`` [W, D_out, D_in].

    :param num_weights: W.
    :param schedule: which of the weights each step has; one after the other when not given. With one weight, all
        steps have it.
    """

    def __init__(self, num_weights: int, in_dim: int, out_dim: int, schedule: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_weights, out_dim, in_dim))
        self.schedule = schedule
        self._packed = [PackedWeight() for _ in range(num_weights)]
        self._all_packed = PackedWeight()
        nn.init.normal_(self.weight, std=INIT_STD)

    def which(self, step: int) -> int:
        """The number of the weight that a step has."""
        return 0 if len(self._packed) == 1 else step if self.schedule is None else self.schedule[step]

    def forward(self, x: Tensor) -> Tensor:
        """[S, n, D_in] to [S, n, D_out], for the first S steps."""
        steps = len(x)
        if len(self._packed) == 1:
            return self.step(x, 0)
        weight: Tensor = self.weight
        if self.schedule is not None:
            weight = weight[torch.tensor(self.schedule[:steps], device=x.device)]
        elif steps < len(self._packed):
            # Not where it is all: the gradient of a slice is written once more.
            weight = weight[:steps]
        return torch.bmm(x, weight.transpose(1, 2).to(x.dtype))

    def step(self, x: Tensor, step: int) -> Tensor:
        """[..., D_in] to [..., D_out], for one step."""
        which = self.which(step)
        return self._packed[which].linear(x, self.weight, part=which)

    def spread(self, x: Tensor) -> Tensor:
        """What each of the weights makes of one and the same x: [n, D_in] to [n, W, D_out]."""
        # One product for all of them.
        return self._all_packed.linear(x, self.weight.flatten(0, 1)).unflatten(-1, self.weight.shape[:2])


@dataclass
class DepthState(State):
    """The steps of a frame so far.

    :param kept: keys, then values, of each layer [n, 2 x H, K, D_head].
    :param context: what the frame's context gives to each step [n, W, D]; None before the first.
    :param step: how many steps these are.
    """

    kept: list[Tensor]
    context: Tensor | None = None
    step: int = 0


class DepthBlock(nn.Module):
    """Pre-norm attention and SwiGLU; the norms are alike for all steps."""

    def __init__(self, config: "DepthTransformer.Config", num_weights: int) -> None:
        super().__init__()
        dim, schedule = config.dim, config.schedule
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.attention_norm = RMSNorm(dim, eps=config.norm_eps)
        self.qkv = StepLinear(num_weights, dim, 3 * dim, schedule)
        self.out = StepLinear(num_weights, dim, dim, schedule)
        self.feed_forward_norm = RMSNorm(dim, eps=config.norm_eps)
        self.up = StepLinear(num_weights, dim, 2 * config.hidden, schedule)
        self.down = StepLinear(num_weights, config.hidden, dim, schedule)

    def forward(self, x: Tensor, table: Table | None) -> Tensor:
        """The first S steps of frames, [S, n, D] to [S, n, D]."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 1, 3, 0, 4)
        if table is not None:
            q, k = rotate(q, *table), rotate(k, *table)
        y = attend(q, k, v, causal=len(x) > 1)
        x = x + drop(self, self.out(y.permute(2, 0, 1, 3).flatten(-2)), self.dropout)
        gate, value = self.up(self.feed_forward_norm(x)).chunk(2, dim=-1)
        return x + drop(self, self.down(F.silu(gate) * value), self.dropout)

    def step(self, x: Tensor, table: Table | None, step: int, kept: Tensor) -> Tensor:
        """One step of frames, [n, D] to [n, D]; without dropout.

        :param kept: keys and values of the steps [n, 2 x H, K, D_head], to which those of this one are added.
        """
        n, heads = len(x), self.num_heads
        qkv = self.qkv.step(self.attention_norm(x), step).view(n, 3 * heads, 1, -1)
        if table is not None:
            qkv = torch.cat([rotate(qkv.narrow(1, 0, 2 * heads), *table), qkv.narrow(1, 2 * heads, heads)], dim=1)
        kept.narrow(2, step, 1).copy_(qkv.narrow(1, heads, 2 * heads))
        seen = kept.narrow(2, 0, step + 1).to(qkv.dtype)
        y = attend(qkv.narrow(1, 0, heads), seen.narrow(1, 0, heads), seen.narrow(1, heads, heads))
        x = x + self.out.step(y.reshape(n, -1), step)
        gate, value = self.up.step(self.feed_forward_norm(x), step).chunk(2, dim=-1)
        return x + self.down.step(F.silu(gate) * value, step)


class DepthTransformer(Configurable, nn.Module):
    """A causal Transformer over the K codebooks of a frame, given what a language model says of the frame.

    Step k has seen the context and the codes of the codebooks before k, and its hidden state predicts code k. It
    is given the codes as embeddings: which tables and output matrices there are is the caller's.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """The shape of a depth Transformer; the defaults are Moshi's.

        :param ffn_dim: hidden size of the SwiGLU layers; 8/3 of dim rounded up to 64 when not given (2816 in Moshi).
        :param weights_per_step: every matrix once for each step (Kyutai's ``multi_linear`` and
            ``weights_per_step``); otherwise all steps share them, and need positions.
        :param schedule: with ``weights_per_step``, which weights each of the K steps has, such as
            (0, 1, 2, 3, 4, 4, 4, 4); each its own when not given.
        :param final_norm: an RMSNorm at the end; Moshi has none.
        """

        _: KW_ONLY
        num_layers: int = 6
        num_heads: int = 16
        dim: int = 1024
        ffn_dim: int | None = None
        weights_per_step: bool = True
        schedule: tuple[int, ...] | None = None
        positions: Literal["none", "learned", "rope"] = "none"
        rope_theta: float = 10000.0
        norm_eps: float = 1e-8
        final_norm: bool = False
        dropout: float = 0.0

        def __post_init__(self) -> None:
            if self.dim % self.num_heads:
                raise ConfigError(
                    f"DepthTransformer has dim {self.dim} and {self.num_heads} heads. Make dim a multiple of num_heads."
                )
            if self.schedule is not None and not self.weights_per_step:
                raise ConfigError(
                    "DepthTransformer has a schedule of weights, but one weight for all steps. "
                    "Set weights_per_step=True, or leave the schedule out."
                )

        def tiny(self) -> Self:
            heads = 4 if self.num_heads % 4 == 0 else self.num_heads
            return replace(
                self, num_layers=min(self.num_layers, 2), num_heads=heads, dim=16 * heads, ffn_dim=32 * heads
            )

        @property
        def hidden(self) -> int:
            return self.ffn_dim or -(-8 * self.dim // 3 // 64) * 64

        def num_weights(self, num_steps: int) -> int:
            """How many weights there are of each matrix."""
            if not self.weights_per_step:
                return 1
            return num_steps if self.schedule is None else max(self.schedule) + 1

    def __init__(self, config: Config, *, in_dim: int, num_steps: int) -> None:
        """Make the network.

        :param in_dim: D_in of the context, such as the hidden state of a language model.
        :param num_steps: K.
        :raises ConfigError: the schedule is not of K steps.
        """
        super().__init__()
        if config.schedule is not None and (len(config.schedule) != num_steps or min(config.schedule) < 0):
            raise ConfigError(
                f"The schedule {config.schedule} of a DepthTransformer is for {len(config.schedule)} steps, but there "
                f"are {num_steps}. Give each step the number of its weights."
            )
        self.config, self.dim, self.in_dim, self.num_steps = config, config.dim, in_dim, num_steps
        num_weights = config.num_weights(num_steps)
        self.input = StepLinear(num_weights, in_dim, config.dim, config.schedule)
        self.layers = nn.ModuleList(DepthBlock(config, num_weights) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.position_embedding = nn.Embedding(num_steps, config.dim) if config.positions == "learned" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02), with the matrices that end a residual branch scaled by 1/sqrt(2 layers) (GPT-2)."""
        for name, p in self.named_parameters():
            if p.ndim > 1:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=INIT_STD / math.sqrt(2 * self.config.num_layers) if last else INIT_STD)

    def init_state(self, batch_size: int) -> DepthState:
        """The state before the first step of ``batch_size`` frames."""
        heads = self.config.num_heads
        shape = (batch_size, 2 * heads, self.num_steps, self.dim // heads)
        return DepthState([self.input.weight.new_empty(shape) for _ in self.layers])

    def forward(self, context: Tensor, codes: Tensor, first: Tensor | None = None) -> Tensor:
        """Hidden states of the steps of whole frames, their codes given (teacher forcing).

        :param context: [n, D_in].
        :param codes: embeddings of the codes of codebooks 0 .. S-2, [n, S-1, D]; S is K, or less for the first
            steps alone.
        :param first: what enters the first step beside the context, [n, D]: in Moshi the embedding of the text token.
        :returns: [n, S, D].
        :raises ConfigError: more steps than K.
        """
        steps = codes.shape[1] + 1
        self._check(steps)
        before = F.pad(codes, (0, 0, 1, 0)) if first is None else torch.cat([first[:, None], codes], dim=1)
        spread = self.input.spread(context)
        if spread.shape[1] == 1 or self.config.schedule is None:
            spread = spread[:, :steps]
        else:
            spread = spread[:, list(self.config.schedule[:steps])]
        x, table = self._place((spread + before).transpose(0, 1).contiguous(), 0)
        for layer in self.layers:
            x = layer(x, table)
        return self.norm(x).transpose(0, 1)

    def step(self, context: Tensor, before: Tensor | None, state: DepthState) -> Tensor:
        """The hidden state of the next step of each frame.

        :param context: [n, D_in], the same for every step of a frame.
        :param before: the embedding of the code of the step before, [n, D]; of what enters the first step, or None.
        :param state: the steps so far, updated in place.
        :returns: [n, D].
        :raises ConfigError: the frame has K steps already.
        """
        self._check(state.step + 1)
        if state.context is None:
            state.context = self.input.spread(context)
        x = state.context[:, self.input.which(state.step)]
        x, table = self._place((x if before is None else x + before)[None], state.step)
        x = x[0]
        for layer, kept in zip(self.layers, state.kept, strict=True):
            assert isinstance(layer, DepthBlock)
            x = layer.step(x, table, state.step, kept)
        state.step += 1
        return self.norm(x)

    def _place(self, x: Tensor, first: int) -> tuple[Tensor, Table | None]:
        """Tell steps [S, n, D] from step ``first`` on where they are: them with what is added, and RoPE's table."""
        match self.config.positions:
            case "rope":
                at = torch.arange(first, first + len(x), device=x.device)
                return x, angles(at, self.dim // self.config.num_heads, self.config.rope_theta)
            case "learned":
                assert self.position_embedding is not None
                return x + self.position_embedding.weight[first : first + len(x), None], None
            case "none":
                return x, None

    def _check(self, steps: int) -> None:
        if steps > self.num_steps:
            raise ConfigError(
                f"A frame of this DepthTransformer has {self.num_steps} steps, not {steps}. "
                "Begin each frame with a fresh state and its first code."
            )
