"""Heads for features: regression of frames (Spectron), and a flow that makes them (Flow-Omni).

Shapes: B batch, S LM steps, D dim, F values of a frame, n frames.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.layouts import Grid
from lalia.lm.head import Ask, Head
from lalia.nn.flow import FlowMLP
from lalia.streams import Continuous, Streams, StreamSpec

__all__ = ["Flow", "Regress"]


class _Features(Head):
    """What both share: frames that exist, and when they stop."""

    @dataclass(frozen=True)
    class Config(Head.Config):
        """
        :param stops: predict at each frame whether it is the last; without it, another stream says, or a limit.
        """

        kind: ClassVar[str] = "features"
        _: KW_ONLY
        stops: bool = True

    def __init__(self, config: Config, *, stream: str, specs: Mapping[str, StreamSpec], dim: int, closed: bool) -> None:
        super().__init__()
        kind = specs[stream].kind
        if not isinstance(kind, Continuous):
            raise ConfigError(f"{type(self).__name__} predicts features, but {stream!r} holds codes. Use Linear.")
        self.config, self.stream, self.width = config, stream, kind.dim
        self.stop = nn.Linear(dim, 1) if config.stops else None
        self.terms = (stream, f"{stream}.stop") if config.stops else (stream,)

    def counts(self, grid: Grid, streams: Streams) -> dict[str, float]:
        return dict.fromkeys(self.terms, float(grid.num_cells(self.stream)))

    def losses(self, hidden: Tensor, grid: Grid, streams: Streams) -> dict[str, Tensor]:
        present = grid.present(self.stream)[:, 0]
        losses = {self.stream: self._loss(hidden, grid, present)}
        if self.stop is not None:
            position = grid.positions[self.stream][:, 0]
            last = position == position.amax(dim=1, keepdim=True)
            logits = self.stop(hidden[present]).float()[:, 0]
            losses[self.terms[1]] = F.binary_cross_entropy_with_logits(logits, last[present].float(), reduction="sum")
        return losses

    @abstractmethod
    def _loss(self, hidden: Tensor, grid: Grid, present: Tensor) -> Tensor:
        """The sum over the frames that are ``present`` [B, S]."""

    @abstractmethod
    def _make(self, ask: Ask) -> Tensor:
        """Frames [n, F]."""

    def draw(self, ask: Ask) -> list[tuple[Tensor, bool]]:
        frames = self._make(ask)
        last = [False] * len(frames) if self.stop is None else (self.stop(ask.hidden)[:, 0] > 0).tolist()
        return list(zip(frames, last, strict=True))


class Regress(_Features):
    """A linear map to the frame, with L1 and L2 losses on values and on differences (arXiv:2305.15255 §3.3).

    Differences over time up to an order, and one over neighbouring values of a frame (mel bands), keep spectra from
    going flat.
    """

    @dataclass(frozen=True)
    class Config(_Features.Config):
        """
        :param deltas: order of the differences over time.
        :param hidden: width of a two-layer network in place of the linear map.
        """

        _: KW_ONLY
        deltas: int = 2
        hidden: int | None = None

        def tiny(self) -> "Regress.Config":
            return Regress.Config(stops=self.stops, deltas=self.deltas, hidden=self.hidden and 32)

    config: Config

    def __init__(self, config: Config, *, stream: str, specs: Mapping[str, StreamSpec], dim: int, closed: bool) -> None:
        super().__init__(config, stream=stream, specs=specs, dim=dim, closed=closed)
        self.out: nn.Module = (
            nn.Linear(dim, self.width)
            if config.hidden is None
            else nn.Sequential(nn.Linear(dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, self.width))
        )

    def _loss(self, hidden: Tensor, grid: Grid, present: Tensor) -> Tensor:
        # Frames side by side, wherever in the row they stand, so that differences are over time.
        position = grid.positions[self.stream][:, 0]
        longest = int(position.max()) + 1 if position.numel() else 0
        if longest <= 0:
            return hidden.sum() * 0.0
        b, s = present.nonzero(as_tuple=True)
        t = position[b, s]
        made = hidden.new_zeros((len(hidden), longest, self.width), dtype=torch.float32)
        made = made.index_put((b, t), self.out(hidden[b, s]).float())
        target = torch.zeros_like(made).index_put((b, t), grid.values[self.stream][b, s].float())
        there = torch.zeros(made.shape[:2], dtype=torch.bool, device=made.device).index_put(
            (b, t), torch.ones_like(t, dtype=torch.bool)
        )
        total = self._distance(made - target, there)
        total = total + self._distance((made - target).diff(dim=2), there)
        error = made - target
        for _ in range(self.config.deltas):
            error, there = error.diff(dim=1), there[:, 1:] & there[:, :-1]
            total = total + self._distance(error, there)
        return total

    @staticmethod
    def _distance(error: Tensor, there: Tensor) -> Tensor:
        """L1 + L2 per value, summed over frames."""
        error = error[there]
        return (error.abs() + error.square()).mean(dim=-1).sum()

    def _make(self, ask: Ask) -> Tensor:
        made: Tensor = self.out(ask.hidden)
        return made


class Flow(_Features):
    """Conditional flow matching of each frame by a small network (arXiv:2412.04917; OT paths of arXiv:2210.02747).

    ``x_t = (1 - (1 - sigma) t) x_0 + t x_1`` with noise x_0 and the frame x_1; the network learns the velocity
    ``x_1 - (1 - sigma) x_0`` given x_t, t and the hidden state, and a frame is made by following it in ``steps``.
    With ``guidance`` g the velocity is (1 + g) v(x, hidden) - g v(x, nothing) (arXiv:2207.12598).
    """

    @dataclass(frozen=True)
    class Config(_Features.Config):
        """
        :param num_layers: residual blocks of the network, ``dim`` wide.
        :param steps: of Euler's method.
        :param guidance: strength of classifier-free guidance; 0 for none.
        :param unconditional: share of the frames that are trained without their condition; 0 without guidance.
        :param repeats: noise levels at which each frame is trained per step.
        """

        _: KW_ONLY
        num_layers: int = 3
        dim: int = 1024
        steps: int = 10
        guidance: float = 0.0
        unconditional: float = 0.1
        sigma: float = 1e-4
        repeats: int = 1

        def tiny(self) -> "Flow.Config":
            return Flow.Config(
                stops=self.stops,
                num_layers=min(self.num_layers, 2),
                dim=64,
                steps=min(self.steps, 4),
                guidance=self.guidance,
                unconditional=self.unconditional,
                repeats=self.repeats,
            )

    config: Config

    def __init__(self, config: Config, *, stream: str, specs: Mapping[str, StreamSpec], dim: int, closed: bool) -> None:
        super().__init__(config, stream=stream, specs=specs, dim=dim, closed=closed)
        self.flow = FlowMLP(self.width, dim, width=config.dim, num_layers=config.num_layers)

    def _loss(self, hidden: Tensor, grid: Grid, present: Tensor) -> Tensor:
        c, again = self.config, self.config.repeats
        condition = hidden[present].repeat(again, 1)
        frame = grid.values[self.stream][present].float().repeat(again, 1)
        t = torch.rand(len(frame), 1, device=frame.device)
        noise = torch.randn_like(frame)
        x = (1 - (1 - c.sigma) * t) * noise + t * frame
        drop = torch.rand(len(frame), device=frame.device) < (c.unconditional if self.training else 0.0)
        velocity = self.flow(x, t, condition, drop)
        error = (velocity.float() - (frame - (1 - c.sigma) * noise)).square().mean(dim=-1)
        return error.sum() / again

    def _make(self, ask: Ask) -> Tensor:
        c = self.config
        x = ask.noise(self.width)
        for i in range(c.steps):
            t = x.new_full((len(x), 1), i / c.steps)
            v = self.flow(x, t, ask.hidden)
            if c.guidance:
                nothing = torch.ones(len(x), dtype=torch.bool, device=x.device)
                v = (1 + c.guidance) * v - c.guidance * self.flow(x, t, ask.hidden, nothing)
            x = x + v / c.steps
        return x
