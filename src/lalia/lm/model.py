"""The SpeechLM: streams on a layout, into a backbone, out through heads.

Shapes: B batch, K codebooks, T frames, S LM steps, D dim.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.layouts import Grid, Layout, Vocabulary
from lalia.lm.heads import Linear
from lalia.lm.hf import HF
from lalia.lm.inputs import Lookup, Project, Table
from lalia.lm.sampling import Sampler
from lalia.nn.transformer import Transformer
from lalia.streaming import State
from lalia.streams import Continuous, Discrete, Streams, StreamSpec

__all__ = ["SpeechLM"]

_PRETRAINED = "text"
"""The stream to which a continued text LM's own vocabulary belongs."""


class SpeechLM(Configurable, nn.Module):
    """An autoregressive model over any streams.

    The input at a step is the sum (or mean) of the embeddings of the cells at that step; the hidden state
    after it predicts the cells of the next. A learned start vector comes before the first step.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param layout: which cells share a step.
        :param backbone: ``Transformer.Config`` or ``HF.Config``.
        :param inputs: how each stream enters; a stream of the layout without one is predicted but not heard.
        :param heads: how each stream is predicted; a stream without one is given, never generated.
        """

        _: KW_ONLY
        layout: Layout
        backbone: Transformer.Config | HF.Config
        inputs: Mapping[str, Lookup | Project.Config]
        heads: Mapping[str, Linear.Config]
        combine: Literal["sum", "mean"] = "sum"
        sampler: Sampler = field(default_factory=Sampler)

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        """
        :param specs: of the streams of the layout; the layout adds those of its markers.
        :raises ConfigError: an input or a head names a stream that is not there or of the wrong kind.
        """
        super().__init__()
        self.config, self.layout = config, config.layout
        self.specs = config.layout.all_specs(specs)
        self._check()
        backbone: Any = config.backbone.build()
        self.backbone: Transformer | HF = backbone
        dim = self.backbone.dim
        self.start = nn.Parameter(torch.zeros(dim))
        self.tables = nn.ModuleDict()
        for name, streams in self._tables().items():
            pretrained = isinstance(backbone, HF) and backbone.text_embedding is not None and _PRETRAINED in streams
            vocabulary = Vocabulary({s: self._discrete(s) for s in streams}, first=_PRETRAINED if pretrained else None)
            self.tables[name] = Table(vocabulary, dim)
        self.inputs = nn.ModuleDict(
            {s: c.build(self._continuous(s), dim) for s, c in config.inputs.items() if isinstance(c, Project.Config)}
        )
        self.heads = nn.ModuleDict()
        for stream, head in config.heads.items():
            table = self._table_of(stream)
            joint = len(self._tables()[table]) > 1
            self.heads[stream] = head.build(stream, self._rows_of(stream), self.tables[table], joint, dim)
        if isinstance(backbone, HF):
            self._take_text_vocabulary(backbone)

    # -- training ------------------------------------------------------------------------------

    def embed(self, grid: Grid) -> Tensor:
        """The input of every step [B, S, D]."""
        total: Tensor | None = None
        count: Tensor | None = None
        alone = len(self.config.inputs) == 1
        for stream in self.config.inputs:
            # A lone single-codebook stream is absent only in padding, which is never looked at.
            whole = alone and grid.positions[stream].shape[1] == 1
            present = None if whole else grid.present(stream)
            if stream in self.inputs:
                x = self.inputs[stream](grid.values[stream])
                if present is not None:
                    x = x * present[:, 0, :, None]
            else:
                table: Table = self.tables[self._table_of(stream)]  # type: ignore[assignment]
                x = table(self._rows_of(stream), grid.values[stream], present)
            total = x if total is None else total + x
            if self.config.combine == "mean" and present is not None:
                n = present.sum(dim=1)[..., None]
                count = n if count is None else count + n
        assert total is not None
        return total if count is None else total / count.clamp(min=1)

    def forward(self, grid: Grid, state: State | None = None, *, first: bool = True) -> Tensor:
        """Hidden states: entry s has seen steps 0 .. s-1 of the grid, and predicts step s.

        :param state: where a session stands; updated in place.
        :param first: whether the grid begins at step 0, so that the start vector comes before it. Without it,
            entry s has seen steps 0 .. s.
        :returns: [B, S, D] offline, where the last step is never an input; [B, S + 1, D] with a state and
            ``first``; [B, S, D] with a state later on.
        """
        lengths = grid.lengths
        if first:
            start = self.start.expand(len(grid), 1, -1)
            x = start if grid.num_steps == 0 else torch.cat([start, self.embed(grid).to(start.dtype)], dim=1)
            lengths = lengths + 1
            if state is None:
                x = x[:, :-1]
        else:
            x = self.embed(grid)
        if state is None:
            return self.backbone(x)
        return self.backbone(x, lengths, state)

    def nll(self, grid: Grid) -> dict[str, Tensor]:
        """Negative log-likelihood of every cell of every predicted stream [B, K, S] in nats; 0 where absent."""
        hidden = self(grid)
        return {stream: head.nll(hidden, grid) for stream, head in self.heads.items()}  # type: ignore[operator]

    def loss(self, grid: Grid, weights: Mapping[str, float] | None = None) -> dict[str, Tensor]:
        """Mean negative log-likelihood per cell of each stream, and their weighted sum as ``total``."""
        losses = {s: nll.sum() / max(grid.num_cells(s), 1) for s, nll in self.nll(grid).items()}
        total = torch.stack([(weights or {}).get(s, 1.0) * x for s, x in losses.items()]).sum()
        return {**losses, "total": total}

    def pack(self, streams: Streams) -> Grid:
        """Streams on the LM's steps, on the model's device."""
        return self.layout.pack(streams, self.specs).to(self.start.device)

    @torch.inference_mode()
    def log_prob(self, streams: Streams) -> dict[str, Tensor]:
        """Log-probability of every token of every predicted stream.

        :returns: [B, K, T + 1] in nats; entry ``lengths[b]`` of codebook 0 is the end's, and 0 stands past it.
        """
        grid = self.pack(streams)
        out = {}
        for stream, nll in self.nll(grid).items():
            position = grid.positions[stream]
            b, k, s = (position >= 0).nonzero(as_tuple=True)
            result = nll.new_zeros((len(grid), position.shape[1], int(position.max()) + 1))
            result[b, k, position[b, k, s]] = -nll[b, k, s]
            out[stream] = result
        return out

    # -- generation ----------------------------------------------------------------------------

    def init_state(self, batch_size: int, capacity: int = 256) -> State:
        """The state before the first step."""
        return self.backbone.init_state(batch_size, capacity)

    def generate(
        self,
        known: Streams | None = None,
        *,
        sampler: Sampler | None = None,
        complete: Sequence[str] = (),
        limits: Mapping[str, int] | None = None,
        max_steps: int | None = None,
        seeds: Sequence[int] | None = None,
        batch_size: int = 1,
    ) -> Iterator[Streams]:
        """Continue ``known``; see ``lalia.lm.generation.generate``."""
        from lalia.lm.generation import generate

        return generate(
            self,
            known,
            sampler=sampler or self.config.sampler,
            complete=complete,
            limits=limits,
            max_steps=max_steps,
            seeds=seeds,
            batch_size=batch_size,
        )

    # -- building ------------------------------------------------------------------------------

    def _rows_of(self, stream: str) -> str:
        lookup = self.config.inputs.get(stream)
        return lookup.tied_to or stream if isinstance(lookup, Lookup) else stream

    def _table_of(self, stream: str) -> str:
        owner = self._rows_of(stream)
        lookup = self.config.inputs.get(owner)
        return (lookup.table if isinstance(lookup, Lookup) else None) or owner

    def _tables(self) -> dict[str, list[str]]:
        """The streams of each table, by table."""
        tables: dict[str, list[str]] = {}
        for stream in self.layout.streams:
            wanted = stream in self.config.heads or isinstance(self.config.inputs.get(stream), Lookup)
            if wanted and self._rows_of(stream) == stream:
                tables.setdefault(self._table_of(stream), []).append(stream)
        return tables

    def _discrete(self, stream: str) -> Discrete:
        kind = self.specs[stream].kind
        if not isinstance(kind, Discrete):
            raise ConfigError(f"Stream {stream!r} holds features, which have no table. Use Project for its input.")
        return kind

    def _continuous(self, stream: str) -> Continuous:
        kind = self.specs[stream].kind
        if not isinstance(kind, Continuous):
            raise ConfigError(f"Stream {stream!r} holds codes, which cannot be projected. Use Lookup for its input.")
        return kind

    def _check(self) -> None:
        c = self.config
        for part, names in (("inputs", c.inputs), ("heads", c.heads)):
            for name in names:
                if name not in self.specs:
                    raise ConfigError(
                        f"The LM's {part} name stream {name!r}, but its layout has {', '.join(self.specs)}. "
                        "Fix the name or the layout."
                    )
        if not c.inputs or not c.heads:
            raise ConfigError("The LM has no inputs or no heads. Give at least one of each.")
        for name, lookup in c.inputs.items():
            if isinstance(lookup, Lookup) and lookup.tied_to is not None:
                if lookup.tied_to not in c.inputs or self._discrete(lookup.tied_to) != self._discrete(name):
                    raise ConfigError(
                        f"Stream {name!r} is tied to {lookup.tied_to!r}, which is not an input of the same kind. Untie it."
                    )

    def _take_text_vocabulary(self, backbone: HF) -> None:
        """Move the text LM's own rows into the table of the text stream; new rows start like them."""
        embedding, head = backbone.text_embedding, backbone.text_head
        backbone.text_embedding = backbone.text_head = None
        if embedding is None or _PRETRAINED not in self.layout.streams:
            return
        table: Table = self.tables[self._table_of(_PRETRAINED)]  # type: ignore[assignment]
        _take(table.embedding.weight, embedding)
        out = self.heads[_PRETRAINED] if _PRETRAINED in self.heads else None
        if isinstance(out, Linear) and out.weight is not table.embedding.weight:
            _take(out.weight, embedding if head is None else head)
        if backbone.start_id is not None and backbone.start_id < len(embedding):
            with torch.no_grad():
                self.start.copy_(embedding[backbone.start_id])


@torch.no_grad()
def _take(weight: Tensor, pretrained: Tensor) -> None:
    n = min(len(weight), len(pretrained))
    weight[:n] = pretrained[:n]
    if len(weight) > n:
        # New rows at the mean of the old, with their spread: they begin as likely as any word.
        mean, std = pretrained.mean(dim=0), pretrained.std(dim=0)
        weight[n:] = mean + std * torch.randn_like(weight[n:])
