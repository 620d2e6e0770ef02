"""Inputs: how each stream enters the LM.

Shapes: B batch, K codebooks, S LM steps, D dim.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configurable, Configuration
from lalia.errors import ConfigError
from lalia.layouts import Vocabulary
from lalia.nn.compact import CompactEmbedding, RowsOf
from lalia.streams import Continuous

__all__ = ["Lookup", "Project", "Table"]


@dataclass(frozen=True)
class Lookup(Configuration):
    """Codes enter by a table of embeddings, summed over codebooks.

    :param table: streams that name the same table share one vocabulary, and their heads predict over all of
        it (joint softmax); by default each stream has its own.
    :param tied_to: read the rows of that stream (two channels of one tokenizer).
    :param absent: a codebook that has no code at a step, as before a delay has passed, enters by an embedding of its
        own (Moshi's code 2048) rather than not at all.
    """

    table: str | None = None
    _: KW_ONLY
    tied_to: str | None = None
    absent: bool = False


class Table(nn.Module):
    """Embeddings of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, dim: int) -> None:
        super().__init__()
        embedding = nn.Embedding(vocabulary.size, dim)
        nn.init.normal_(embedding.weight, std=0.02)
        self.embedding: nn.Embedding | CompactEmbedding = embedding
        self._vocabulary = vocabulary
        self._offsets: dict[tuple[str, torch.device], Tensor] = {}

    def compact(self, rows_of: RowsOf) -> None:
        assert isinstance(self.embedding, nn.Embedding)
        assert isinstance(self.embedding.weight, nn.Parameter)
        rows = rows_of(self.embedding.weight)
        if rows is not None:
            self.embedding = CompactEmbedding(rows)

    def forward(self, stream: str, ids: Tensor, present: Tensor | None) -> Tensor:
        """The sum of the embeddings of a frame's codes.

        :param ids: [B, K, S].
        :param present: [B, K, S], or None where every cell counts.
        :returns: [B, S, D].
        """
        first = self._vocabulary.rows(stream, 0).start
        if ids.shape[1] == 1:
            x = self.embedding(ids[:, 0] + first if first else ids[:, 0])
            return x if present is None else x * present[:, 0, :, None]
        x = self.embedding(ids + self._first_rows(stream, ids.device))
        return (x if present is None else x * present[..., None]).sum(dim=1)

    def _first_rows(self, stream: str, device: torch.device) -> Tensor:
        """The first row of each codebook [K, 1]."""
        # Not a buffer: it is made of the vocabulary, also where a module is built without memory first.
        if (stream, device) not in self._offsets:
            # Made outside inference mode, because training may use it later.
            with torch.inference_mode(False):
                self._offsets[stream, device] = self._vocabulary.offsets(stream).to(device)[:, None]
        return self._offsets[stream, device]


class Project(Configurable, nn.Module):
    """Features enter through a linear map, or through two with a non-linearity between (LLaMA-Omni, Mini-Omni)."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """How features are projected.

        :param hidden: size between two linear maps; a single map when not given.
        :param activation: between the two; with ``swiglu`` the first map has a gate beside it (arXiv:2002.05202).
        :param norm: normalise the features first.
        :param identity: begin with features as they are (of an LM's own width): one map, which changes nothing yet.
        :param tied_to: enter by the map of that stream, whose settings then count.
        :raises ConfigError: an identity with a hidden size.
        """

        _: KW_ONLY
        hidden: int | None = None
        activation: Literal["relu", "gelu", "silu", "swiglu"] = "relu"
        norm: bool = False
        identity: bool = False
        tied_to: str | None = None

        def __post_init__(self) -> None:
            if self.identity and self.hidden is not None:
                raise ConfigError(f"Project begins as the identity and has {self.hidden} hidden. Leave that out.")

        def tiny(self) -> "Project.Config":
            return replace(self, hidden=self.hidden and 32)

    def __init__(self, config: Config, kind: Continuous, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(kind.dim) if config.norm else nn.Identity()
        self.activation = config.activation
        gated = config.hidden is not None and config.activation == "swiglu"
        self.first = nn.Linear(kind.dim, (config.hidden or dim) * (2 if gated else 1))
        self.second = nn.Linear(config.hidden, dim) if config.hidden else None
        if config.identity:
            if kind.dim != dim:
                raise ConfigError(
                    f"Features of {kind.dim} values cannot enter an LM of width {dim} as they are. Unset identity."
                )
            nn.init.eye_(self.first.weight)
            nn.init.zeros_(self.first.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[B, S, D_in] to [B, S, D]."""
        x = self.first(self.norm(features.to(self.first.weight.dtype)))
        if self.second is None:
            return x
        match self.activation:
            case "relu":
                x = F.relu(x)
            case "gelu":
                x = F.gelu(x)
            case "silu":
                x = F.silu(x)
            case "swiglu":
                gate, value = x.chunk(2, dim=-1)
                x = F.silu(gate) * value
        return self.second(x)
