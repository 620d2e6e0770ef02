"""Sampling: from logits to codes, each row with its own seed.

The random number of a row depends on its seed and on how many it drew before, never on the batch it
is in, so that a batch of eight gives the same as eight batches of one.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.errors import ConfigError

__all__ = ["Sampler", "Sampling", "sample", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Sampling(Configuration):
    """How one stream is sampled. The filters apply in the order of the fields, after the temperature.

    :param temperature: 0 takes the most likely code.
    :param top_k: keep the k most likely; 0 keeps all.
    :param top_p: keep the smallest set whose probability reaches p (nucleus, arXiv:1904.09751).
    :param min_p: keep what is at least this share of the most likely (arXiv:2407.01082).
    :param repetition_window: repetition-aware sampling (VALL-E 2, arXiv:2406.05370 §4.2): look at this many
        codes back (0 turns it off) ...
    :param repetition_ratio: ... and if the sampled code makes up more than this share of them, sample again
        from the distribution without filters.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_window: int = 0
    repetition_ratio: float = 0.1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0.0, 100.0),
            ("top_k", 0, 10**9),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("repetition_window", 0, 10**6),
            ("repetition_ratio", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"Sampling has {name} {value}. Give a value from {low} to {high:g}.")


@dataclass(frozen=True)
class Sampler(Configuration):
    """How a model is sampled.

    :param streams: settings of single streams; the others take ``default``.
    :param banned: for a stream, ranges ``(first, last + 1)`` of ids that must not come.
    :param seed: of the first row; row b takes ``seed + b`` unless ``generate`` is given seeds.
    """

    default: Sampling = field(default_factory=Sampling)
    _: KW_ONLY
    streams: Mapping[str, Sampling] = field(default_factory=dict)
    banned: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    seed: int = 0

    def of(self, stream: str) -> Sampling:
        return self.streams.get(stream, self.default)

    def ban(self, **ranges: tuple[tuple[int, int], ...]) -> "Sampler":
        """A copy that bans more ids."""
        merged = {s: (*self.banned.get(s, ()), *r) for s, r in ranges.items()}
        return replace(self, banned={**self.banned, **merged})


def uniform(seeds: Tensor, draws: Tensor) -> Tensor:
    """A number in [0, 1) for each row from its seed and its draw count [n] (SplitMix64, Steele et al. 2014)."""
    x = seeds * -0x61C8864680B583EB + draws * -0x4B47D0C5A1A6A5E3
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ _right(x, shift)) * factor
    x = x ^ _right(x, 31)
    return _right(x, 11).double() * 2.0**-53


def _right(x: Tensor, bits: int) -> Tensor:
    # A logical shift: torch has signed 64-bit integers only.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def sample(logits: Tensor, settings: Sampling, draw: Tensor, recent: Tensor | None = None) -> Tensor:
    """One id per row.

    :param logits: [n, V]; banned ids at -inf.
    :param draw: [n, 2] uniform numbers; the second is used only to sample again.
    :param recent: [n, W] ids before, -1 where there are fewer, for repetition-aware sampling.
    :returns: [n].
    """
    logits = logits.float()
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / settings.temperature
    picked = _inverse(_filter(logits, settings), draw[:, 0])
    if recent is not None and settings.repetition_window:
        share = (recent == picked[:, None]).sum(dim=-1) / settings.repetition_window
        picked = torch.where(share > settings.repetition_ratio, _inverse(logits, draw[:, 1]), picked)
    return picked


def _filter(logits: Tensor, settings: Sampling) -> Tensor:
    if 0 < settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p < 1.0:
        ordered, index = logits.sort(dim=-1, descending=True)
        p = ordered.softmax(dim=-1)
        # The code that crosses p stays, and so there is always one.
        drop = p.cumsum(dim=-1) - p >= max(settings.top_p, 1e-9)
        logits = logits.masked_fill(torch.zeros_like(drop).scatter(-1, index, drop), -torch.inf)
    if settings.min_p > 0.0:
        floor = logits.max(dim=-1, keepdim=True).values + torch.log(torch.tensor(settings.min_p))
        logits = logits.masked_fill(logits < floor, -torch.inf)
    return logits


def _inverse(logits: Tensor, u: Tensor) -> Tensor:
    """The id at quantile ``u`` of softmax(logits)."""
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the real total, which rounding leaves a hair off 1; then no u lies beyond the last id.
    return torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
