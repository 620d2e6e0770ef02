"""Residual quantisers side by side: of parts of the features, or of meaning and of sound.

Shapes: B batch, T frames, D dim, K codebooks.
"""

from dataclasses import KW_ONLY, dataclass, field, replace

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.quantize import Quantized, Quantizer, ResidualVQ, check_books

__all__ = ["GroupedResidualVQ", "SplitResidualVQ"]


class GroupedResidualVQ(Quantizer):
    """The features in equal parts, each with a residual quantiser of its own (HiFi-Codec, arXiv:2305.02765 §3.2).

    Codebooks are numbered layer by layer: those of all groups that quantise first, come first.

    :param groups: parts of the features.
    :param layer: the quantiser of each part; its ``num_codebooks`` count for each.
    """

    @dataclass(frozen=True)
    class Config(Quantizer.Config):
        groups: int = 2
        layer: ResidualVQ.Config = field(default_factory=lambda: ResidualVQ.Config(1024, 2))

        def __post_init__(self) -> None:
            if self.groups < 1:
                raise ConfigError(f"GroupedResidualVQ has {self.groups} groups. Give at least 1.")
            if self.layer.dropout:
                raise ConfigError("GroupedResidualVQ has a layer with dropout. Set it to 0: its parts go together.")

        @property
        def num_codes(self) -> int:
            return self.layer.codebook_size

        @property
        def num_books(self) -> int:
            return self.groups * self.layer.num_codebooks

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        if dim % config.groups:
            raise ConfigError(f"Features of {dim} values have no {config.groups} equal groups. Choose a divisor.")
        self.config = config
        self.parts = nn.ModuleList(ResidualVQ(config.layer, dim // config.groups) for _ in range(config.groups))

    def _split(self, x: Tensor) -> list[tuple[ResidualVQ, Tensor]]:
        return list(zip(self.parts, x.chunk(self.config.groups, dim=-1), strict=True))  # type: ignore[arg-type]

    def encode(self, x: Tensor, num_codebooks: int | None = None) -> Tensor:
        codes = torch.stack([part.encode(piece) for part, piece in self._split(x)], dim=2)
        return codes.flatten(1, 2)[:, :num_codebooks]

    def decode(self, codes: Tensor) -> Tensor:
        made = []
        for g, part in enumerate(self.parts):
            mine = codes[:, g :: self.config.groups]
            assert isinstance(part, ResidualVQ)
            if mine.shape[1]:
                made.append(part.decode(mine))
            else:  # a group of which nothing is known
                made.append(torch.zeros_like(made[0]))
        return torch.cat(made, dim=-1)

    def forward(self, x: Tensor) -> Quantized:
        parts = [part(piece) for part, piece in self._split(x)]
        return Quantized(
            torch.cat([p.values for p in parts], dim=-1),
            torch.stack([p.codes for p in parts], dim=2).flatten(1, 2),
            torch.cat([p.first for p in parts], dim=-1),
            torch.stack([p.commitment for p in parts]).mean(0),
            [used for p in parts for used in p.usage],
        )

    @torch.no_grad()
    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        for part, piece in self._split(x):
            part.fit(piece, seed=seed)


class SplitResidualVQ(Quantizer):
    """A quantiser for meaning beside a residual one for sound; their outputs add up (Mimi, arXiv:2410.00037 §3.3.3).

    Both see the same features, so the sound need not be a residue of what a teacher shapes.

    :param num_semantic: codebooks of the first; the rest of ``num_codebooks`` are of the second.
    :param project: see ``ResidualVQ``.
    :param dropout: of the second, whose number of codebooks then varies.
    """

    @dataclass(frozen=True)
    class Config(Quantizer.Config):
        codebook_size: int = 2048
        num_codebooks: int = 8
        _: KW_ONLY
        num_semantic: int = 1
        project: int | None = 256
        dropout: float = 0.0
        decay: float = 0.99
        dead_below: float = 0.05

        def __post_init__(self) -> None:
            check_books("SplitResidualVQ", self.codebook_size, self.num_codebooks)
            if not 0 < self.num_semantic < self.num_codebooks:
                raise ConfigError(
                    f"SplitResidualVQ has {self.num_semantic} semantic codebooks of {self.num_codebooks}. "
                    f"Give 1 to {self.num_codebooks - 1}."
                )

        def tiny(self) -> "SplitResidualVQ.Config":
            return replace(
                self,
                codebook_size=min(self.codebook_size, 16),
                project=None if self.project is None else min(self.project, 8),
            )

        @property
        def num_codes(self) -> int:
            return self.codebook_size

        @property
        def num_books(self) -> int:
            return self.num_codebooks

        def part(self, num_codebooks: int, dropout: float) -> ResidualVQ.Config:
            """One of the two quantisers."""
            return ResidualVQ.Config(
                self.codebook_size,
                num_codebooks,
                project=self.project,
                dropout=dropout,
                decay=self.decay,
                dead_below=self.dead_below,
            )

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config = config
        self.semantic = ResidualVQ(config.part(config.num_semantic, 0.0), dim)
        self.acoustic = ResidualVQ(config.part(config.num_codebooks - config.num_semantic, config.dropout), dim)

    def encode(self, x: Tensor, num_codebooks: int | None = None) -> Tensor:
        count, first = num_codebooks or self.config.num_codebooks, self.config.num_semantic
        codes = self.semantic.encode(x, min(count, first))
        return codes if count <= first else torch.cat([codes, self.acoustic.encode(x, count - first)], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        first = self.config.num_semantic
        made = self.semantic.decode(codes[:, :first])
        return made if codes.shape[1] <= first else made + self.acoustic.decode(codes[:, first:])

    def forward(self, x: Tensor) -> Quantized:
        a, b = self.semantic(x), self.acoustic(x)
        share = self.config.num_semantic / self.config.num_codebooks
        return Quantized(
            a.values + b.values,
            torch.cat([a.codes, b.codes], dim=1),
            a.first,
            share * a.commitment + (1 - share) * b.commitment,
            [*a.usage, *b.usage],
        )

    @torch.no_grad()
    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        self.semantic.fit(x, seed=seed)
        self.acoustic.fit(x, seed=seed + self.config.num_semantic)
