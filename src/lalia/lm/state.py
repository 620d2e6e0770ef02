"""State: in which state of the dialogue the model is, read off its hidden states (Freeze-Omni, VITA, Flow-Omni)."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.layouts import Grid
from lalia.lm.head import Ask, Head, discrete
from lalia.streams import Streams, StreamSpec

__all__ = ["State"]


class State(Head):
    """A softmax over named states, each with a weight in the loss: some are rare and matter most.

    :raises ConfigError: there are not as many labels as codes.
    """

    @dataclass(frozen=True)
    class Config(Head.Config):
        """
        :param labels: what the codes of the stream mean, in order.
        :param weights: of each label in the loss; 1 where not given.
        """

        labels: tuple[str, ...]
        _: KW_ONLY
        weights: Mapping[str, float] | None = None

    def __init__(self, config: Config, *, stream: str, specs: Mapping[str, StreamSpec], dim: int, closed: bool) -> None:
        super().__init__()
        kind = discrete(specs, stream, "State")
        if len(config.labels) != kind.codebook_size or kind.num_codebooks > 1:
            raise ConfigError(
                f"State names {len(config.labels)} labels, but stream {stream!r} has {kind.num_codebooks} x "
                f"{kind.codebook_size} codes. Name each code of one codebook."
            )
        self.config, self.stream, self.terms = config, stream, (stream,)
        self.out = nn.Linear(dim, kind.predicted_ids(0, closed=closed))
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        named = config.weights or {}
        self._weights = [named.get(label, 1.0) for label in config.labels]
        self._weights += [1.0] * (self.out.out_features - len(self._weights))

    def counts(self, grid: Grid, streams: Streams) -> dict[str, float]:
        return {self.stream: float(grid.num_cells(self.stream))}

    def losses(self, hidden: Tensor, grid: Grid, streams: Streams) -> dict[str, Tensor]:
        weight = torch.tensor(self._weights, device=hidden.device)[grid.values[self.stream]]
        return {self.stream: (weight * self.nll(hidden, grid)).sum()}

    def nll(self, hidden: Tensor, grid: Grid) -> Tensor:
        present = grid.present(self.stream)[:, 0]
        out = torch.zeros(present.shape, device=hidden.device)
        logits = self.out(hidden[present]).float()
        out[present] = F.cross_entropy(logits, grid.values[self.stream][:, 0][present], reduction="none")
        return out[:, None]

    def draw(self, ask: Ask) -> list[int]:
        return ask.pick(self.out(ask.hidden))
