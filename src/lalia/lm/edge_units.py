"""EdgeUnits: where a clocked stream changes, to what, and for how long it then stays (dGSLM)."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.layouts import ABSENT, Grid
from lalia.lm.head import Ask, CellHead, Head, Row, discrete
from lalia.lm.weighing import Weight
from lalia.nn.packed import Linear
from lalia.streams import Streams, StreamSpec

__all__ = ["EdgeUnits"]


@dataclass
class _Run:
    """The run that a row is in: frames still to come of it, and whether its length is still to be predicted."""

    left: int
    begun: bool


class EdgeUnits(CellHead):
    """Edge-unit prediction with (delayed) duration prediction (arXiv:2203.16502 §3.3).

    Repeats of a unit are not worth predicting: only at an *edge*, a frame whose unit differs from the one before, is
    the unit predicted. How many frames it lasts is regressed (L1) from the same hidden state, or, ``delayed``, from
    the next one, which has heard the unit. In generation a unit is repeated for its duration; then another comes.
    """

    @dataclass(frozen=True)
    class Config(Head.Config):
        """
        :param delayed: predict the duration one frame after the edge.
        """

        _: KW_ONLY
        delayed: bool = True

    def __init__(self, config: Config, *, stream: str, specs: Mapping[str, StreamSpec], dim: int, closed: bool) -> None:
        """
        :raises ConfigError: the stream has several codebooks, or no repeats.
        """
        super().__init__()
        kind = discrete(specs, stream, "EdgeUnits")
        if kind.num_codebooks > 1 or specs[stream].deduplicated:
            raise ConfigError(
                f"EdgeUnits predicts the runs of one codebook, and {stream!r} has {kind.num_codebooks} codebooks"
                f"{' without repeats' if specs[stream].deduplicated else ''}. Use Linear."
            )
        self.config, self.stream, self.terms = config, stream, (stream, f"{stream}.duration")
        self.end = kind.end_id if closed else None
        self.units = Linear(dim, kind.predicted_ids(0, closed=closed), bias=False)
        self.duration = nn.Linear(dim, 1)
        nn.init.normal_(self.units.weight, std=0.02)
        nn.init.normal_(self.duration.weight, std=0.02)
        nn.init.ones_(self.duration.bias)

    def _edges(self, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Where a run begins [B, S]; the frames of each run [B, S], at its edge; and where these are known [B, S]."""
        present, values = grid.present(self.stream)[:, 0], grid.values[self.stream][:, 0]
        before = F.pad(torch.where(present, values, ABSENT)[:, :-1], (1, 0), value=ABSENT)
        edge = present & (values != before)
        # The distance to the next edge, from right to left; what no edge follows was cut and teaches nothing.
        steps = torch.arange(edge.shape[1], device=edge.device).expand_as(edge)
        never = edge.shape[1] + 1
        at = F.pad(torch.where(edge, steps, never)[:, 1:], (0, 1), value=never)
        following = at.flip(1).cummin(dim=1).values.flip(1)
        known = edge & (following < never)
        if self.end is not None:
            known &= values != self.end
        return edge, (following - steps) * known, known

    def cells(self, grid: Grid) -> Tensor:
        """The edges."""
        return self._edges(grid)[0][:, None]

    def counts(self, grid: Grid, streams: Streams, weight: Weight | None = None) -> dict[str, float]:
        _, _, known = self._edges(grid)
        if self.config.delayed:
            known = known[:, :-1]
        return super().counts(grid, streams, weight) | {self.terms[1]: float(known.sum())}

    def losses(self, hidden: Tensor, grid: Grid, streams: Streams, weight: Weight | None = None) -> dict[str, Tensor]:
        _, frames, known = self._edges(grid)
        if self.config.delayed:
            frames, known, seen = frames[:, :-1], known[:, :-1], hidden[:, 1:]
        else:
            seen = hidden
        error = (self.duration(seen[known]).float()[:, 0] - frames[known]).abs()
        return super().losses(hidden, grid, streams, weight) | {self.terms[1]: error.sum()}

    def nll(self, hidden: Tensor, grid: Grid) -> Tensor:
        """That of the unit at each edge; repeats have no choice, and 0."""
        edge, _, _ = self._edges(grid)
        logits = self.units(hidden[edge]).float()
        out = torch.zeros(edge.shape, device=hidden.device)
        out[edge] = F.cross_entropy(logits, grid.values[self.stream][:, 0][edge], reduction="none")
        return out[:, None]

    def draw(self, ask: Ask) -> list[int]:
        durations = self.duration(ask.hidden).float()[:, 0].round().long().clamp(min=1).tolist()
        runs = [self._run(row, d) for row, d in zip(ask.rows, durations, strict=True)]
        current = [row.history.get(self.stream, [ABSENT])[-1] for row in ask.rows]
        # Rows whose unit stays draw too, so that a row's draws depend on its frames and on no other row.
        logits = self.units(ask.hidden)
        same = torch.tensor(current, device=logits.device)
        banned = F.one_hot(same.clamp(min=0), logits.shape[1]).bool() & (same >= 0)[:, None]
        picked = ask.pick(logits.masked_fill(banned, -torch.inf))
        chosen = [new if run.left == 0 else old for run, old, new in zip(runs, current, picked, strict=True)]
        for i, run in enumerate(runs):
            if run.left:
                run.left -= 1
            else:
                run.begun = self.config.delayed
                run.left = 0 if self.config.delayed else durations[i] - 1
        return chosen

    def _run(self, row: Row, duration: int) -> _Run:
        run: _Run | None = row.memory.get(self.stream)
        if run is None:
            # The prompt may stop in the middle of a run.
            history = row.history.get(self.stream, [])
            length = next((i for i, u in enumerate(reversed(history)) if u != history[-1]), len(history))
            run = row.memory[self.stream] = _Run(max(duration - length, 0) if history else 0, False)
        elif run.begun:
            run.begun, run.left = False, duration - 1
        return run
