"""pGSLM's metrics of prosody (Kharitonov et al., arXiv:2109.03264, section 4), as its scorer has them.

Of prompts with several sampled continuations each, of one prosodic stream: log-F0 less the speaker's mean, or
durations in frames, a value for each run of units. The formulas are those of
``examples/textless_nlp/pgslm/eval/cont_metrics.py`` of fairseq at 3d262bb. There, units and the other stream are those
of the recording ("teacher-forced"), so that a sample has a value for each that the recording has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lalia.errors import DataError
from lalia.evaluation.statistics import Estimate, bootstrap

__all__ = ["Sampled", "consistency", "correctness", "expressiveness"]

_RESAMPLES = 2000


@dataclass(frozen=True)
class Sampled:
    """A recording's values, and what a model says in their place.

    :param prefix: [P] of the prompt, as recorded.
    :param target: [T] of what follows, as recorded.
    :param samples: [S, T] of what follows, sampled.
    """

    prefix: np.ndarray
    target: np.ndarray
    samples: np.ndarray

    def __post_init__(self) -> None:
        for name, dims in (("prefix", 1), ("target", 1), ("samples", 2)):
            value = np.asarray(getattr(self, name), np.float64)
            if value.ndim != dims or not value.size:
                raise DataError(f"A prompt has a {name} of shape {value.shape}. Give {dims} dimensions, none empty.")
            if not np.isfinite(value).all():
                raise DataError(f"A prompt has a {name} that is not finite. Leave it out, or mend the pitch.")
            object.__setattr__(self, name, value)
        if self.samples.shape[1] != len(self.target):
            raise DataError(
                f"A sample has {self.samples.shape[1]} values, and the recording {len(self.target)}. Give as many."
            )


def _some(prompts: Sequence[Sampled]) -> None:
    if not prompts:
        raise DataError("There are no prompts. Give at least one.")


def correctness(prompts: Sequence[Sampled], *, seed: int = 0) -> Estimate:
    """minMAE: of each prompt the least sum of absolute errors among its samples; their sum over all values.

    It falls with the number of samples; pGSLM takes 20.

    :returns: with its bootstrap interval over prompts; lower is better.
    :raises DataError: there are no prompts.
    """
    _some(prompts)
    least = [float(np.abs(p.samples - p.target).sum(1).min()) for p in prompts]
    sizes = [float(len(p.target)) for p in prompts]
    return bootstrap(lambda e, n: e.sum(1) / n.sum(1), least, sizes, seed=seed, resamples=_RESAMPLES)


def expressiveness(prompts: Sequence[Sampled], *, seed: int = 0) -> Estimate:
    """The standard deviation of all sampled values together, sqrt(E[x^2] - E[x]^2).

    The values of a prompt weigh the same however often it is sampled. It is no better for being higher: that of
    recorded speech is what to compare it with (``expressiveness`` of prompts whose samples are the target).

    :raises DataError: there are no prompts.
    """
    _some(prompts)
    sizes = [float(len(p.target)) for p in prompts]
    first = [float(p.samples.sum() / len(p.samples)) for p in prompts]
    second = [float((p.samples**2).sum() / len(p.samples)) for p in prompts]

    def deviation(n: np.ndarray, x: np.ndarray, squares: np.ndarray) -> np.ndarray:
        total = n.sum(1)
        # Rounding may leave values that are all the same just below zero.
        return np.sqrt(np.maximum(squares.sum(1) / total - (x.sum(1) / total) ** 2, 0.0))

    return bootstrap(deviation, sizes, first, second, seed=seed, resamples=_RESAMPLES)


def consistency(prompts: Sequence[Sampled], *, voiced: bool, seed: int = 0) -> Estimate:
    """Pearson's correlation of the mean of the prompt with the mean of what follows, over all samples of all prompts.

    pGSLM takes recordings of 300 frames and more here. A sample (or a prompt) of which nothing is voiced has no mean,
    and is left out; the scorer of pGSLM stops there.

    :param voiced: only values other than zero have a part in a mean, as in those of F0, where unvoiced is 0.
    :returns: NaN where there are fewer than two different means; ``n`` is of the prompts that have a part.
    :raises DataError: there are no prompts.
    """
    _some(prompts)
    sums = [s for p in prompts if (s := _sums(p, voiced)) is not None]
    columns = list(zip(*sums, strict=True)) if sums else [()] * 6

    def pearson(*drawn: np.ndarray) -> np.ndarray:
        n, x, y, xx, yy, xy = (d.sum(1) for d in drawn)
        spread = np.maximum(n * xx - x * x, 0.0), np.maximum(n * yy - y * y, 0.0)
        # What rounding leaves of values that are all the same is no spread.
        flat = (spread[0] <= 1e-12 * n * xx) | (spread[1] <= 1e-12 * n * yy)
        return np.where(flat, np.nan, (n * xy - x * y) / np.sqrt(spread[0] * spread[1]))

    return bootstrap(pearson, *columns, seed=seed, resamples=_RESAMPLES)


def _sums(prompt: Sampled, voiced: bool) -> tuple[float, ...] | None:
    """How many samples have both means, and the sums from which their correlation is made."""
    before = _mean(prompt.prefix, voiced)
    after = np.array([_mean(row, voiced) for row in prompt.samples])
    after = after[np.isfinite(after)]
    if not np.isfinite(before) or not len(after):
        return None
    n = float(len(after))
    return n, n * before, float(after.sum()), n * before**2, float((after**2).sum()), before * float(after.sum())


def _mean(values: np.ndarray, voiced: bool) -> float:
    counted = values[values != 0] if voiced else values
    return float(counted.mean()) if len(counted) else np.nan
