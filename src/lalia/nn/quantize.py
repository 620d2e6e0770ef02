"""Quantisers: features to codes and back, one or several codebooks, trained by what chooses their codes.

Shapes: B batch, T frames, D dim, K codebooks. Codes are [B, K, T]. The first codebooks alone are always a valid,
coarser description: ``decode`` takes any number of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.nn.codebook import Codebook, Usage

__all__ = ["Quantized", "Quantizer", "ResidualVQ", "check_books"]


@dataclass
class Quantized:
    """What a quantiser makes of features in training.

    :param values: [B, T, D], with the gradient passed straight through (arXiv:1308.3432).
    :param codes: [B, K, T].
    :param first: [B, T, D] of the first codebook alone, with its gradient: what a teacher may shape.
    :param commitment: [B] mean squared distance of what is quantised from its code, averaged over codebooks.
    :param usage: of each codebook, for ``update``.
    """

    values: Tensor
    codes: Tensor
    first: Tensor
    commitment: Tensor
    usage: list[Usage]


class Quantizer(Configurable, nn.Module, ABC):
    """The base of every quantiser; ``config.build(dim)`` makes one for features of ``dim`` values."""

    @dataclass(frozen=True)
    class Config(Configurable.Config, ABC):
        @property
        @abstractmethod
        def num_codes(self) -> int:
            """Codes of each codebook."""

        @property
        @abstractmethod
        def num_books(self) -> int:
            """K."""

    @abstractmethod
    def encode(self, x: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Features [B, T, D] to codes [B, K, T] of the first ``num_codebooks``."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, k, T] of the first k codebooks to features [B, T, D]."""

    @abstractmethod
    def forward(self, x: Tensor) -> Quantized:
        """Features [B, T, D] quantised, for training."""

    @property
    def codebooks(self) -> list[Codebook]:
        """Those that learn by counting, in the order of ``Quantized.usage``."""
        return [m for m in self.modules() if isinstance(m, Codebook)]

    def update(self, usage: Sequence[Usage]) -> None:
        """Let the codebooks follow what was used, summed over the batch and over ranks."""
        for codebook, used in zip(self.codebooks, usage, strict=True):
            codebook.update(used)

    @torch.no_grad()
    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        """Start the codebooks from data: features [B, T, D]; see ``Codebook.fit``."""


def check_books(name: str, codebook_size: int, num_codebooks: int) -> None:
    """Refuse codebooks that hold nothing.

    :raises ConfigError: names what has them.
    """
    if codebook_size < 2 or num_codebooks < 1:
        raise ConfigError(
            f"{name} has {num_codebooks} codebooks of {codebook_size} codes. Give at least 1 of at least 2."
        )


class ResidualVQ(Quantizer):
    """Each codebook quantises what the ones before it left over (SoundStream, arXiv:2107.03312 §III-C).

    :param codebook_size: codes of each codebook.
    :param num_codebooks: K.
    :param project: width of the space in which all codebooks lie, between two linear maps (Mimi); the features' own
        when None.
    :param codebook_dim: each codebook in a small space of its own, between linear maps of its own (Improved RVQGAN,
        arXiv:2306.06546 §3.2).
    :param normalize: compare directions only (the same).
    :param dropout: share of the rows that are quantised by a random number of codebooks only (SoundStream §III-C).
    :param decay: of the running averages; ``dead_below``: see ``Codebook``.
    """

    @dataclass(frozen=True)
    class Config(Quantizer.Config):
        codebook_size: int = 1024
        num_codebooks: int = 8
        _: KW_ONLY
        project: int | None = None
        codebook_dim: int | None = None
        normalize: bool = False
        dropout: float = 0.0
        decay: float = 0.99
        dead_below: float = 0.05

        def __post_init__(self) -> None:
            check_books("ResidualVQ", self.codebook_size, self.num_codebooks)

        def tiny(self) -> "ResidualVQ.Config":
            return replace(
                self,
                codebook_size=min(self.codebook_size, 16),
                project=None if self.project is None else min(self.project, 8),
                codebook_dim=None if self.codebook_dim is None else min(self.codebook_dim, 4),
            )

        @property
        def num_codes(self) -> int:
            return self.codebook_size

        @property
        def num_books(self) -> int:
            return self.num_codebooks

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config = config
        inner = config.project or dim
        width = config.codebook_dim or inner
        self.before = nn.Linear(dim, inner, bias=False) if config.project else nn.Identity()
        self.after = nn.Linear(inner, dim, bias=False) if config.project else nn.Identity()
        self.layers = nn.ModuleList(
            Codebook(
                config.codebook_size,
                width,
                normalize=config.normalize,
                decay=config.decay,
                dead_below=config.dead_below,
            )
            for _ in range(config.num_codebooks)
        )
        each = range(config.num_codebooks if config.codebook_dim else 0)
        self.into = nn.ModuleList(nn.Linear(inner, width) for _ in each)
        self.out = nn.ModuleList(nn.Linear(width, inner) for _ in each)

    def _seen(self, x: Tensor, k: int) -> Tensor:
        """What codebook ``k`` looks at."""
        seen: Tensor = self.into[k](x) if self.into else x
        return F.normalize(seen, dim=-1) if self.config.normalize else seen

    def _spoken(self, vectors: Tensor, k: int) -> Tensor:
        return self.out[k](vectors) if self.out else vectors  # type: ignore[no-any-return]

    @property
    def _books(self) -> list[Codebook]:
        return list(self.layers)  # type: ignore[arg-type]

    def encode(self, x: Tensor, num_codebooks: int | None = None) -> Tensor:
        left, codes = self.before(x), []
        for k, book in enumerate(self._books[:num_codebooks]):
            codes.append(book.assign(self._seen(left, k)))
            left = left - self._spoken(book.lookup(codes[-1]), k)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        parts = [self._spoken(book.lookup(c), k) for k, (book, c) in enumerate(zip(self._books, codes.unbind(1)))]  # noqa: B905  fewer codes than books
        return self.after(torch.stack(parts).sum(0))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Quantized:
        x = self.before(x)
        kept = self._kept(len(x), x.device)
        left, total, first = x, torch.zeros_like(x), x
        codes, usage = [], []
        commitment = torch.zeros(len(x), device=x.device)
        for k, book in enumerate(self._books):
            seen = self._seen(left, k)
            codes.append(book.assign(seen))
            vectors = book.lookup(codes[-1]).to(seen.dtype)
            used = k < kept
            commitment = commitment + used * (seen - vectors).square().float().flatten(1).mean(1)
            usage.append(book.usage(seen[used], codes[-1][used]) if bool(used.any()) else Usage.nothing(book))
            # With maps of its own, each codebook is passed through by itself; without, the sum is, once: otherwise
            # the gradient would be counted K times.
            spoken = self._spoken(seen + (vectors - seen).detach(), k) if self.out else vectors
            total = total + used[:, None, None] * spoken
            left = left - (spoken if self.out else spoken.detach())
            if k == 0:
                first = spoken if self.out else x + (spoken - x).detach()
        values = total if self.out else x + (total - x).detach()
        return Quantized(
            self.after(values), torch.stack(codes, dim=1), self.after(first), commitment / kept.clamp(min=1), usage
        )

    def _kept(self, rows: int, device: torch.device) -> Tensor:
        """How many codebooks each row [B] is quantised by."""
        books = self.config.num_codebooks
        kept = torch.full((rows,), books, device=device)
        if not self.training or not self.config.dropout:
            return kept
        drops = torch.rand(rows, device=device) < self.config.dropout
        return torch.where(drops, torch.randint(1, books + 1, (rows,), device=device), kept)

    @torch.no_grad()
    def fit(self, x: Tensor, *, seed: int = 0) -> None:
        left = self.before(x)
        for k, book in enumerate(self._books):
            seen = self._seen(left, k)
            book.fit(seen.reshape(-1, book.dim), seed=seed + k)
            left = left - self._spoken(book.lookup(book.assign(seen)), k)
