"""Depth: the codebooks of a step one after the other, by a small Transformer of their own (RQ-Transformer, Moshi).

Shapes: n steps, K codebooks, V ids, D dim of the LM, E dim of the depth Transformer.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.layouts import Grid
from lalia.lm.head import Ask, CellHead, Head, discrete
from lalia.nn.depth import DepthState, DepthTransformer
from lalia.nn.packed import PackedWeight
from lalia.streams import Discrete, StreamSpec

__all__ = ["Depth"]


class Depth(CellHead):
    """A depth Transformer over the codes that stand in one step (arXiv:2410.00037 §3.4.1).

    With delays these are of different frames. A code that is not there, before a delay has passed, enters as an
    embedding of its own.
    """

    @dataclass(frozen=True)
    class Config(Head.Config):
        """
        :param network: the depth Transformer.
        :param first: a stream whose code of the same step enters first: Moshi's text.
        """

        network: DepthTransformer.Config = field(default_factory=DepthTransformer.Config)
        _: KW_ONLY
        first: str | None = None

        @property
        def needs(self) -> tuple[str, ...]:
            return () if self.first is None else (self.first,)

    def __init__(self, config: Config, *, stream: str, specs: Mapping[str, StreamSpec], dim: int, closed: bool) -> None:
        super().__init__()
        kind = discrete(specs, stream, "Depth")
        self.config, self.stream, self.terms = config, stream, (stream,)
        self.num_codebooks, self.absent = kind.num_codebooks, kind.num_ids
        self.num_ids = [kind.predicted_ids(k, closed=closed) for k in range(kind.num_codebooks)]
        self.network: DepthTransformer = config.network.build(in_dim=dim, num_steps=kind.num_codebooks)
        width = self.network.dim
        # The last codebook's codes enter nowhere.
        self.codes = nn.Parameter(torch.empty(max(kind.num_codebooks - 1, 0), kind.num_ids + 1, width))
        self.out = nn.Parameter(torch.empty(kind.num_codebooks, kind.num_ids, width))
        nn.init.normal_(self.codes, std=0.02)
        nn.init.normal_(self.out, std=0.02)
        self.first: nn.Embedding | None = None
        if config.first is not None:
            beside = specs[config.first].kind
            assert isinstance(beside, Discrete)
            self.first = nn.Embedding(beside.num_ids + 1, width)
            nn.init.normal_(self.first.weight, std=0.02)
        self._packed = [PackedWeight() for _ in range(kind.num_codebooks)]

    def nll(self, hidden: Tensor, grid: Grid) -> Tensor:
        present, values = grid.present(self.stream), grid.values[self.stream]
        b, s = present.any(dim=1).nonzero(as_tuple=True)
        there, ids = present[b, :, s], values[b, :, s]
        entered = torch.where(there, ids, self.absent)[:, :-1]
        embedded = self.codes[torch.arange(entered.shape[1], device=ids.device), entered]
        first = None
        if self.first is not None and self.config.first is not None:
            beside = grid.present(self.config.first)[b, 0, s]
            code = torch.where(beside, grid.values[self.config.first][b, 0, s], self.first.num_embeddings - 1)
            first = self.first(code)
        states = self.network(hidden[b, s], embedded.to(hidden.dtype), first)
        out = torch.zeros(present.shape, device=hidden.device)
        for k in range(self.num_codebooks):
            rows = there[:, k].nonzero()[:, 0]
            logits = F.linear(states[rows, k], self._matrix(k).to(states.dtype)).float()
            loss = F.cross_entropy(logits, ids[rows, k], reduction="none")
            out = out.index_put((b[rows], torch.full_like(rows, k), s[rows]), loss)
        return out

    def _matrix(self, codebook: int) -> Tensor:
        return self.out[codebook, : self.num_ids[codebook]]

    def draw(self, ask: Ask) -> list[int]:
        rows = tuple(row.index for row in ask.rows)
        state: DepthState | None = ask.scratch.get("state")
        if state is None or ask.scratch["rows"] != rows or state.step > ask.codebook:
            state = ask.scratch["state"] = self.network.init_state(len(rows))
            ask.scratch["rows"] = rows
        hidden = ask.hidden
        # Usually one step; more, where codes before this one are known or not there.
        while state.step <= ask.codebook:
            hidden = self.network.step(ask.hidden, self._before(ask, state.step), state)
        return ask.pick(self._packed[ask.codebook].linear(hidden, self._matrix(ask.codebook).to(hidden.dtype)))

    def _before(self, ask: Ask, step: int) -> Tensor | None:
        """What enters a step beside the context: the code before, or the stream that comes first [n, E]."""
        if step == 0:
            if self.first is None or self.config.first is None:
                return None
            stream, codebook, absent = self.config.first, 0, self.first.num_embeddings - 1
            table = self.first.weight
        else:
            stream, codebook, absent, table = self.stream, step - 1, self.absent, self.codes[step - 1]
        ids = []
        for laid in ask.laid:
            found = (x.value for x in laid if x.cell.stream == stream and x.cell.codebook == codebook)
            value = next(found, absent)
            assert isinstance(value, int)
            ids.append(value)
        return F.embedding(torch.tensor(ids, device=table.device), table)
