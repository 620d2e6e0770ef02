"""State: in which state of the dialogue the model is, read off its hidden states (Freeze-Omni, VITA, Flow-Omni)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.layouts import Grid
from lalia.lm.head import Ask, CellHead, Head, discrete
from lalia.streams import StreamSpec

__all__ = ["State"]


class State(CellHead):
    """A softmax over named states. Some are rare and matter most: a stage can give each a ``Weight`` by its id.

    :raises ConfigError: there are not as many labels as codes.
    """

    @dataclass(frozen=True)
    class Config(Head.Config):
        """
        :param labels: what the codes of the stream mean, in order.
        """

        labels: tuple[str, ...]

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

    def nll(self, hidden: Tensor, grid: Grid) -> Tensor:
        present = grid.present(self.stream)[:, 0]
        out = torch.zeros(present.shape, device=hidden.device)
        logits = self.out(hidden[present]).float()
        out[present] = F.cross_entropy(logits, grid.values[self.stream][:, 0][present], reduction="none")
        return out[:, None]

    def draw(self, ask: Ask) -> list[int]:
        return ask.pick(self.out(ask.hidden))
