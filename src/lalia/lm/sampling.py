"""Sampling: from logits to codes, each row with its own seed.

The random number of a row depends on its seed and on how many it drew before, never on the batch it
is in, so that a batch of eight gives the same as eight batches of one.
"""

import math
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

    Where the model chooses between streams, their codes are drawn together, with the settings on which the
    streams agree, and with ``default`` where they do not.

    :param streams: settings of single streams; the others take ``default``.
    :param banned: for a stream, ranges ``(first, last + 1)`` of ids that must not come.
    :param seed: of the first row; row b takes ``seed + b`` unless ``generate`` is given seeds.
    """

    default: Sampling = field(default_factory=Sampling)
    _: KW_ONLY
    streams: Mapping[str, Sampling] = field(default_factory=dict)
    banned: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    seed: int = 0

    def of(self, *streams: str) -> Sampling:
        """The settings of streams whose codes are drawn together."""
        wanted = [self.streams.get(s, self.default) for s in streams]
        return wanted[0] if all(w == wanted[0] for w in wanted) else self.default

    def ban(self, **ranges: tuple[tuple[int, int], ...]) -> "Sampler":
        """A copy that bans more ids."""
        merged = {s: (*self.banned.get(s, ()), *r) for s, r in ranges.items()}
        return replace(self, banned={**self.banned, **merged})


def uniform(seed: int, draw: int) -> float:
    """A number in [0, 1) from a seed and a draw count, both from 0 (SplitMix64, Steele et al. 2014)."""
    word = (1 << 64) - 1
    # Two odd strides, so that the draws of one seed are not those of the next.
    x = (seed * 0x9E3779B97F4A7C15 + (draw + 1) * 0xB4B82F3A5E595A1D) & word
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
    return ((x ^ (x >> 31)) >> 11) * 2.0**-53


def sample(logits: Tensor, settings: Sampling, draw: Tensor | None, recent: Tensor | None = None) -> Tensor:
    """One id per row.

    :param logits: [n, V]; banned ids at -inf.
    :param draw: [n, 2] uniform numbers, float64; the second is used only to sample again. None at temperature 0.
    :param recent: [n, W] ids before, -1 where there are fewer, for repetition-aware sampling.
    :returns: [n].
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    assert draw is not None
    logits = logits.float()
    if settings.temperature != 1:
        logits = logits / settings.temperature
    picked = _inverse(_filter(logits, settings), draw[:, 0])
    if recent is not None and settings.repetition_window:
        share = (recent == picked[:, None]).sum(dim=-1) / settings.repetition_window
        picked = torch.where(share > settings.repetition_ratio, _inverse(logits, draw[:, 1]), picked)
    return picked


def _filter(logits: Tensor, settings: Sampling) -> Tensor:
    if 0 < settings.top_k < logits.shape[-1]:
        # Which of them is the least is all that is asked: unsorted it is found in half the time.
        least = logits.topk(settings.top_k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        p = ordered.softmax(dim=-1)
        # The code that crosses p stays, and so there is always one.
        drop = p.cumsum(dim=-1) - p >= settings.top_p
        drop[:, 0] = False
        logits = logits.masked_fill(torch.zeros_like(drop).scatter_(-1, index, drop), -torch.inf)
    if settings.min_p > 0:
        floor = logits.amax(dim=-1, keepdim=True) + math.log(settings.min_p)
        logits = logits.masked_fill(logits < floor, -torch.inf)
    return logits


def _inverse(logits: Tensor, u: Tensor) -> Tensor:
    """The id at quantile ``u`` of softmax(logits)."""
    cumulative = logits.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    # Scaled by the real total, which rounding leaves a hair off 1; then no u lies beyond the last id.
    return torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
