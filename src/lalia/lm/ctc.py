"""CTC: a stream found along the hidden states of another (LLaMA-Omni's speech decoder)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lalia.layouts import Grid
from lalia.lm.head import Ask, Head, discrete
from lalia.nn.ctc import collapse, ctc_loss
from lalia.nn.packed import Linear
from lalia.streaming import State
from lalia.streams import Streams, StreamSpec, TokenSequence, pad_batch

__all__ = ["CTC", "CTCState"]


@dataclass
class CTCState(State):
    """The last label of each row [B], blank where nothing came yet."""

    last: Tensor


class CTC(Head):
    """Connectionist temporal classification (Graves et al. 2006) over the steps of the LM (arXiv:2409.06666 §2.4).

    Each step has a label, a code or *blank*; repeats of a label are one, blanks none. The loss is that of the units
    without repeats.
    """

    @dataclass(frozen=True)
    class Config(Head.Config):
        """Nothing to set: the blank is one id after the stream's codes."""

        aligned: ClassVar[bool] = True

    def __init__(self, config: Config, *, stream: str, specs: Mapping[str, StreamSpec], dim: int, closed: bool) -> None:
        super().__init__()
        kind = discrete(specs, stream, "CTC")
        self.config, self.stream, self.terms = config, stream, (stream,)
        self.blank = kind.codebook_size
        self.labels = Linear(dim, self.blank + 1)
        nn.init.normal_(self.labels.weight, std=0.02)
        nn.init.zeros_(self.labels.bias)

    def counts(self, grid: Grid, streams: Streams) -> dict[str, float]:
        return {self.stream: float(streams[self.stream].lengths.sum())}

    def losses(self, hidden: Tensor, grid: Grid, streams: Streams) -> dict[str, Tensor]:
        units = streams[self.stream]
        steps = grid.lengths.to(hidden.device) * (hidden.shape[1] // max(grid.num_steps, 1))
        codes, lengths = units.values[:, 0].to(hidden.device), units.lengths.to(hidden.device)
        return {self.stream: ctc_loss(self.labels(hidden), steps, codes, lengths, self.blank)}

    def draw(self, ask: Ask) -> list[int]:
        raise AssertionError("an aligned stream has no cells to draw")

    def init_state(self, batch_size: int) -> CTCState:
        """Before the first step."""
        return CTCState(torch.full((batch_size,), self.blank))

    def decode(self, hidden: Tensor, lengths: Tensor, state: CTCState | None = None) -> TokenSequence:
        """The likeliest units of steps [B, S, D], without repeats and blanks.

        :param lengths: valid steps of each row.
        :param state: updated in place, so that pieces give what the whole gives.
        :returns: codes [B, 1, T].
        """
        state = state or self.init_state(len(hidden))
        labels = self.labels(hidden).argmax(dim=-1).cpu()
        found = collapse(labels, lengths, state.last, self.blank)
        return pad_batch([TokenSequence(new[None, None], torch.tensor([len(new)])) for new in found])
