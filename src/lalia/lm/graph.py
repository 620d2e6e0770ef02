"""Language models in a row: the hidden states of one are a stream of the next.

``NAME.hidden`` is the stream of the hidden states from which LM ``NAME`` predicts the cells of its first head: one
frame for each token of that stream, and one for its end.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lalia.layouts import Grid
from lalia.lm.model import SpeechLM
from lalia.streams import Continuous, Streams, StreamSpec, TokenSequence

__all__ = ["HIDDEN_SUFFIX", "Graph", "hidden_spec"]

HIDDEN_SUFFIX = ".hidden"


def hidden_spec(dim: int) -> StreamSpec:
    """What a stream of hidden states holds."""
    return StreamSpec(kind=Continuous(dim), frame_rate=None)


class Graph:
    """The language models of a recipe, by name, in the order in which they run."""

    def __init__(self, lms: Mapping[str, SpeechLM]) -> None:
        self.lms = dict(lms)

    def feeders(self, name: str) -> list[str]:
        """The LMs whose hidden states an LM reads, directly or through others, in the order in which they run."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for stream in self.lms[waiting.pop()].layout.streams:
                source = stream.removesuffix(HIDDEN_SUFFIX)
                if source != stream and source in self.lms and source not in found:
                    found.add(source)
                    waiting.append(source)
        return [n for n in self.lms if n in found]

    def streams(self, name: str) -> tuple[str, ...]:
        """The streams that must be there to train an LM: its own and those of its feeders, hidden states aside."""
        hidden = {n + HIDDEN_SUFFIX for n in self.lms}
        out: dict[str, None] = {}
        for n in (*self.feeders(name), name):
            lm = self.lms[n]
            own = (s for s in lm.wiring.specs if s not in lm.layout.markers)
            out |= dict.fromkeys(s for s in own if s not in hidden)
        return tuple(out)

    def source(self, name: str) -> str:
        """The stream whose cells an LM's hidden states are of."""
        return next(iter(self.lms[name].heads))

    def grids(self, name: str, streams: Streams) -> dict[str, Grid]:
        """The grids of an LM and of its feeders, with zeros where hidden states will be."""
        grids: dict[str, Grid] = {}
        known = dict(streams)
        for n in (*self.feeders(name), name):
            lm = self.lms[n]
            grids[n] = grid = lm.layout.pack({s: known[s] for s in lm.layout.streams if s in known}, lm.specs)
            if n != name:
                cells = (grid.positions[self.source(n)][:, 0] >= 0).sum(dim=1)
                zeros = torch.zeros(len(cells), int(cells.max()), lm.backbone.dim)
                known[n + HIDDEN_SUFFIX] = TokenSequence(zeros, cells)
        return grids

    def fill(self, name: str, grids: Mapping[str, Grid]) -> Grid:
        """The grid of an LM with the hidden states of its feeders in place.

        Gradients reach a feeder where it is trained, and cost nothing where it is frozen.
        """
        filled: dict[str, Grid] = {}
        hidden: dict[str, Tensor] = {}
        for n in (*self.feeders(name), name):
            grid = grids[n]
            values = dict(grid.values)
            for stream in grid.positions:
                source = stream.removesuffix(HIDDEN_SUFFIX)
                if source in hidden and source != stream:
                    at = grid.positions[stream][:, 0].clamp(min=0)
                    frames = hidden[source]
                    values[stream] = frames.gather(1, at[..., None].expand(-1, -1, frames.shape[-1]))
            filled[n] = grid = Grid(grid.positions, values, grid.lengths)
            if n != name:
                hidden[n] = self.hidden(n, grid)
        return filled[name]

    def hidden(self, name: str, grid: Grid) -> Tensor:
        """The hidden states of an LM on a grid [B, T, D], of the cells of its source in order; zeros past the last."""
        lm, stream = self.lms[name], self.source(name)
        states = lm.hidden_of(stream, lm(grid))
        position = grid.positions[stream][:, 0]
        b, s = (position >= 0).nonzero(as_tuple=True)
        longest = int(position.max()) + 1 if position.numel() else 0
        out = states.new_zeros((len(states), max(longest, 0), states.shape[-1]))
        return out.index_put((b, position[b, s]), states[b, s])
