"""The SpeechLM: streams on a layout, into a backbone, out through heads.

Shapes: B batch, K codebooks, T frames, S LM steps, D dim.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.layouts import Flat, Grid, Layout, Vocabulary
from lalia.lm.generation import generate
from lalia.lm.head import CellHead, Head
from lalia.lm.heads import Linear
from lalia.lm.hf import HF, take_rows
from lalia.lm.inputs import Lookup, Project, Table
from lalia.lm.sampling import Sampler
from lalia.lm.weighing import Weight, apart
from lalia.lm.wiring import Wiring
from lalia.nn.dual_tower import DualTower
from lalia.nn.masks import Mask
from lalia.nn.transformer import Transformer
from lalia.streaming import State
from lalia.streams import Streams, StreamSpec, TokenSequence

__all__ = ["SpeechLM", "log_prob_of"]

_PRETRAINED = "text"
"""The stream to which a continued text LM's own vocabulary belongs."""


class SpeechLM(Configurable, nn.Module):
    """An autoregressive model over any streams.

    The input at a step is the sum (or mean) of the embeddings of the cells at that step; the hidden state
    after it predicts the cells of the next. A learned start vector comes before the first step.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """What a SpeechLM is made of.

        :param layout: which cells share a step.
        :param backbone: ``Transformer.Config`` or ``HF.Config``.
        :param inputs: how each stream enters; a stream of the layout without one is predicted but not heard.
        :param heads: how each stream is predicted; a stream without one is given, never generated. The stream of an
            aligned head (CTC) has no place in the layout.
        :param towers: the stream that each channel of a ``DualTower`` hears and predicts, in order.
        :param upsample: steps of the backbone for each step of the layout, for aligned heads: speech has more units
            than the text that they are found along has tokens.
        """

        _: KW_ONLY
        layout: Layout
        backbone: Transformer.Config | HF.Config | DualTower.Config
        inputs: Mapping[str, Lookup | Project.Config]
        heads: Mapping[str, Head.Config]
        combine: Literal["sum", "mean"] = "sum"
        towers: tuple[str, ...] = ()
        upsample: int = 1
        sampler: Sampler = field(default_factory=Sampler)

        def tiny(self) -> "SpeechLM.Config":
            # A tiny text is bytes, several to a token: six steps of each are about three times the units. With
            # many more, nothing but blanks is learned for long.
            small: SpeechLM.Config = super().tiny()
            return replace(small, upsample=min(self.upsample, 6))

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        """Build every part.

        :param specs: of the streams of the layout; the layout adds those of its markers.
        :raises ConfigError: an input or a head names a stream that is not there or of the wrong kind.
        """
        super().__init__()
        self.config, self.layout = config, config.layout
        self.specs = config.layout.all_specs(specs)
        self.ends = config.layout.ends(specs)
        """The streams that close with an end token."""
        aligned = {s: specs[s] for s, h in config.heads.items() if h.aligned and s in specs}
        self.wiring = Wiring(config.inputs, config.heads, {**self.specs, **aligned})
        self.aligned = _check_steps(config)
        """Whether its heads are aligned with the steps rather than predict the next ones."""
        self.backbone: Transformer | HF | DualTower = config.backbone.build()
        _check_sight(self.backbone.sight.mask, self.aligned)
        dim = self.backbone.dim
        self.start = nn.Parameter(torch.zeros(dim))
        self.tables = nn.ModuleDict()
        self.inputs = nn.ModuleDict(
            {
                _key(s): c.build(self.wiring.continuous(s), dim)
                for s, c in config.inputs.items()
                if isinstance(c, Project.Config) and c.tied_to is None
            }
        )
        self.absent = nn.ParameterDict(
            {
                s: nn.Parameter(0.02 * torch.randn(self.wiring.discrete(s).num_codebooks, dim))
                for s, c in config.inputs.items()
                if isinstance(c, Lookup) and c.absent
            }
        )
        """What enters for a codebook that has no code at a step [K, D]."""
        self.heads = nn.ModuleDict()
        for name, streams in self.wiring.tables().items():
            self._build_table(name, streams, dim)
        for stream, head in config.heads.items():
            if not isinstance(head, Linear.Config):
                self.heads[stream] = head.build(
                    stream=stream, specs=self.wiring.specs, dim=dim, closed=stream in self.ends
                )
        # In the layout's order, as built; a mapping in a file may be in any.
        self.heads = nn.ModuleDict({s: self.heads[s] for s in self.wiring.specs if s in self.heads})
        if isinstance(self.backbone, HF):
            self._take_text_vocabulary(self.backbone)

    def head(self, stream: str) -> Head:
        """The head that predicts a stream."""
        head = self.heads[stream]
        assert isinstance(head, Head)
        return head

    def input(self, stream: str) -> Project:
        """What a stream of features enters through."""
        project = self.inputs[_key(stream)]
        assert isinstance(project, Project)
        return project

    def without_start(self, text: TokenSequence) -> TokenSequence:
        """A text that a dialogue begins with [B, 1, T], from its second token on where its first is the one that the
        language model begins with anyway.
        """
        start = getattr(self.backbone, "start_id", None)
        begins = start is not None and text.num_tokens and bool((text.values[:, 0, 0] == start).all())
        return text.cut(1) if begins else text

    def cell_head(self, stream: str) -> CellHead:
        """The head of a stream whose cells can have weights.

        :raises ConfigError: its loss is not one of cells.
        """
        head = self.heads[stream]
        if not isinstance(head, CellHead):
            raise ConfigError(
                f"{type(head).__name__} has no loss for each cell of {stream!r}. Give the stream one weight, a number."
            )
        return head

    def linear(self, stream: str) -> Linear:
        """The head of a stream that is predicted from a table."""
        head = self.heads[stream]
        assert isinstance(head, Linear)
        return head

    def hidden_of(self, stream: str, hidden: Tensor) -> Tensor:
        """What a stream is predicted from: its channel of [B, C, ..., D], or all of it where there is one."""
        towers = self.config.towers
        return hidden[:, towers.index(stream)] if stream in towers else hidden[:, 0] if towers else hidden

    # -- training ------------------------------------------------------------------------------

    def embed(self, grid: Grid) -> Tensor:
        """The input of every step [B, S, D]; with towers, of every channel [B, C, S, D]."""
        towers = self.config.towers
        if towers:
            return torch.stack([self._embed(grid, (stream,)) for stream in towers], dim=1)
        return self._embed(grid, tuple(self.config.inputs))

    def _embed(self, grid: Grid, streams: Sequence[str]) -> Tensor:
        total: Tensor | None = None
        count: Tensor | None = None
        for stream in streams:
            # A flat stream of one codebook is absent only in padding, which nothing looks at.
            whole = isinstance(self.layout, Flat) and grid.positions[stream].shape[1] == 1
            present = None if whole else grid.present(stream)
            if (owner := self.wiring.map_of(stream)) is not None:
                x = self.inputs[_key(owner)](grid.values[stream])
                x = x if present is None else x * present[:, 0, :, None]
            else:
                x = self.tables[self.wiring.table_of(stream)](self.wiring.rows_of(stream), grid.values[stream], present)
            if present is not None and stream in self.absent:
                rows = self.absent[stream]
                x = x + (~present).transpose(1, 2).to(rows.dtype) @ rows
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
            ``first``; [B, S, D] with a state later on. With towers, [B, C, ...] of these; of aligned heads, the hidden
            states of the steps themselves, ``upsample`` of them for each, [B, S * upsample, D].
        """
        if self.aligned:
            x = self.embed(grid).to(self.start.dtype).repeat_interleave(self.config.upsample, dim=-2)
            return self._through(x, grid.lengths * self.config.upsample, state)
        if not first:
            assert state is not None, "steps that do not begin at 0 need the state of those before"
            return self.backbone(self.embed(grid).to(self.start.dtype), grid.lengths, state)
        channels = (len(self.config.towers),) if self.config.towers else ()
        x = self.start.expand(len(grid), *channels, 1, -1)
        steps = grid.num_steps - (state is None)
        if steps < 0:
            return x[..., :0, :]
        if steps:
            x = torch.cat([x, self.embed(grid.steps(0, steps)).to(x.dtype)], dim=-2)
        return self._through(x, grid.lengths + (state is not None), state, grid)

    def _through(self, x: Tensor, lengths: Tensor, state: State | None, grid: Grid | None = None) -> Tensor:
        """The backbone from the first step on, told what its mask asks for."""
        sight = self.backbone.sight
        # Causality alone keeps padding at the end from the steps that count.
        known = lengths if state is not None or sight.ends_late else None
        prefix = self._given(grid) + 1 if grid is not None and sight.mask == "prefix" else None
        return self.backbone(x, known, state, prefix=prefix)

    def _given(self, grid: Grid) -> Tensor:
        """How many steps of each row [B] come before the first in which something is predicted."""
        predicted = torch.stack([grid.present(s).any(dim=1) for s in self.heads]).any(dim=0)
        steps = torch.arange(grid.num_steps, device=predicted.device)
        last = grid.lengths.to(predicted.device)
        return torch.minimum(torch.where(predicted, steps, grid.num_steps).amin(dim=1), last)

    def nll(self, grid: Grid) -> dict[str, Tensor]:
        """Negative log-likelihood of every cell of every predicted stream [B, K, S] in nats; 0 where absent."""
        hidden = self(grid)
        return {stream: self.head(stream).nll(self.hidden_of(stream, hidden), grid) for stream in self.heads}

    @property
    def terms(self) -> tuple[str, ...]:
        """The loss terms of all heads."""
        return tuple(term for stream in self.heads for term in self.head(stream).terms)

    def counts(
        self, grid: Grid, streams: Streams | None = None, cells: Mapping[str, Weight] | None = None
    ) -> dict[str, float]:
        """What each term of ``losses`` is to be divided by; parameters as there."""
        counts: dict[str, float] = {}
        for s in self.heads:
            weight = (cells or {}).get(s)
            known = (grid, streams or {})
            counts |= self.head(s).counts(*known) if weight is None else self.cell_head(s).counts(*known, weight)
        return counts

    def losses(
        self, grid: Grid, streams: Streams | None = None, cells: Mapping[str, Weight] | None = None
    ) -> dict[str, Tensor]:
        """The sum of every loss term of every head.

        :param streams: those that have no cells in the grid (of aligned heads).
        :param cells: weights of the cells of streams, where they differ.
        """
        hidden = self(grid)
        losses: dict[str, Tensor] = {}
        for s in self.heads:
            weight = (cells or {}).get(s)
            known = (self.hidden_of(s, hidden), grid, streams or {})
            losses |= self.head(s).losses(*known) if weight is None else self.cell_head(s).losses(*known, weight)
        return losses

    def loss(
        self, grid: Grid, weights: Mapping[str, float | Weight] | None = None, streams: Streams | None = None
    ) -> dict[str, Tensor]:
        """The mean of every loss term, and their weighted sum as ``total``."""
        terms, cells = apart(weights or {})
        counts = self.counts(grid, streams, cells)
        losses = {t: x / (counts[t] or 1.0) for t, x in self.losses(grid, streams, cells).items()}
        total = torch.stack([terms.get(s, 1.0) * x for s, x in losses.items()]).sum()
        return {**losses, "total": total}

    def pack(self, streams: Streams) -> Grid:
        """Streams on the LM's steps, on the model's device."""
        return self.layout.pack(streams, self.specs).to(self.start.device)

    @torch.inference_mode()
    def log_prob(self, streams: Streams) -> dict[str, Tensor]:
        """Log-probability of every token of every predicted stream.

        :returns: [B, K, T + 1] in nats; entry ``lengths[b]`` of codebook 0 is the end's, and 0 stands past it.
            [B, K, T] where the stream does not end.
        """
        grid = self.pack(streams)
        return log_prob_of(grid, self.nll(grid))

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
        hidden_of: str | None = None,
        state: State | None = None,
    ) -> Iterator[Streams]:
        """Continue ``known``; see ``lalia.lm.generation.generate``."""
        return generate(
            self,
            known,
            sampler=sampler or self.config.sampler,
            complete=complete,
            limits=limits,
            max_steps=max_steps,
            seeds=seeds,
            batch_size=batch_size,
            hidden_of=hidden_of,
            state=state,
        )

    # -- building ------------------------------------------------------------------------------

    def _embedding(self, table: str) -> nn.Parameter:
        found = self.tables[table]
        assert isinstance(found, Table)
        assert isinstance(found.embedding, nn.Embedding)
        assert isinstance(found.embedding.weight, nn.Parameter)
        return found.embedding.weight

    def _build_table(self, name: str, streams: Sequence[str], dim: int) -> None:
        """A table and the heads of its streams."""
        kinds = {s: self.wiring.discrete(s) for s in streams}
        keeps_text = isinstance(self.backbone, HF) and self.backbone.text_embedding is not None
        vocabulary = Vocabulary(kinds, first=_PRETRAINED if keeps_text else None)
        embedding: nn.Parameter | None = None
        if self.wiring.embedded(name):
            self.tables[name] = Table(vocabulary, dim)
            embedding = self._embedding(name)
        joint, shared = len(streams) > 1, None
        for stream, config in self.wiring.linear().items():
            if self.wiring.table_of(stream) == name:
                kind = self.wiring.discrete(stream)
                head = config.build(
                    stream=stream,
                    rows_of=self.wiring.rows_of(stream),
                    vocabulary=vocabulary,
                    joint=joint,
                    dim=dim,
                    weight=embedding if config.tied else shared,
                    num_ids=[kind.predicted_ids(k, closed=stream in self.ends) for k in range(kind.num_codebooks)],
                )
                self.heads[stream] = head
                # One softmax over all rows has one output matrix, whichever stream the target is of.
                shared = head.weight if joint else None

    def _take_text_vocabulary(self, backbone: HF) -> None:
        """Move the text LM's own rows into the table of the text stream; new rows start like them."""
        embedding, head = backbone.text_embedding, backbone.text_head
        backbone.text_embedding = backbone.text_head = None
        if embedding is None or _PRETRAINED not in self.specs:
            return
        count = self.wiring.discrete(_PRETRAINED).codebook_size
        name = self.wiring.table_of(_PRETRAINED)
        if head is not None and backbone.config.pretrained and _PRETRAINED in self.wiring.linear():
            if self.wiring.linear()[_PRETRAINED].tied:
                raise ConfigError(
                    f"{backbone.config.name!r} has an output matrix of its own, which a tied head for {_PRETRAINED!r} "
                    "would lose. Set tied=False."
                )
        entered = self._embedding(name) if name in self.tables else None
        if entered is not None:
            take_rows(entered, embedding, count)
        if _PRETRAINED in self.wiring.linear() and self.linear(_PRETRAINED).weight is not entered:
            take_rows(self.linear(_PRETRAINED).weight, embedding if head is None else head, count)
        if backbone.start_id is not None and backbone.start_id < len(embedding):
            with torch.no_grad():
                self.start.copy_(embedding[backbone.start_id])


def log_prob_of(grid: Grid, nll: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is known of the cells of a grid [B, K, S], in the order of the tokens, as ``SpeechLM.log_prob`` gives it."""
    out = {}
    for stream, of_cells in nll.items():
        position = grid.positions[stream]
        b, k, s = (position >= 0).nonzero(as_tuple=True)
        longest = int(position.max()) + 1 if position.numel() else 0
        out[stream] = of_cells.new_zeros((*position.shape[:2], longest))
        out[stream][b, k, position[b, k, s]] = -of_cells[b, k, s]
    return out


def _key(stream: str) -> str:
    """A stream's name as that of a module, which has no dots."""
    return stream.replace(".", "/")


def _check_sight(mask: Mask, aligned: bool) -> None:
    """:raises ConfigError: steps see what they are to predict; or a prefix where nothing is predicted after it."""
    if mask in ("block", "full") and not aligned:
        raise ConfigError(f"With the mask {mask!r} a step sees the steps that it predicts. Use it with CTC heads only.")
    if mask == "prefix" and aligned:
        raise ConfigError("The mask 'prefix' shows what comes before the first prediction. Use 'full' with CTC heads.")


def _check_steps(config: SpeechLM.Config) -> bool:
    """Whether the heads are aligned.

    :raises ConfigError: some are and some are not, or towers and streams do not fit.
    """
    aligned = {h.aligned for h in config.heads.values()}
    if len(aligned) > 1:
        raise ConfigError("Some heads of the LM are aligned with its steps and some predict the next. Use two LMs.")
    if config.upsample < 1 or (config.upsample > 1 and aligned != {True}):
        raise ConfigError(f"The LM has upsample {config.upsample}. Give 1, or more with CTC heads only.")
    if bool(config.towers) != isinstance(config.backbone, DualTower.Config):
        raise ConfigError("A DualTower needs towers=, the stream of each channel, and other backbones have none.")
    for stream in config.towers:
        if stream not in config.inputs:
            raise ConfigError(f"Tower {stream!r} has no input. Give the stream one, or name another.")
    return aligned == {True}
