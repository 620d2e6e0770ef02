"""How many bits a second a stream of codes takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lalia.errors import ConfigError, DataError
from lalia.evaluation.statistics import Estimate, jackknife
from lalia.streams import Discrete, StreamSpec, TokenSequence

__all__ = ["BitRate", "measured_bit_rate", "nominal_bit_rate"]


def nominal_bit_rate(spec: StreamSpec) -> float:
    """Frames a second by the bits of all codebooks, as codecs state theirs.

    Of a stream without repeats it is that with them: what is sent if nothing is known of how often which code comes.

    :raises ConfigError: the stream is continuous, or has no clock.
    """
    if not isinstance(spec.kind, Discrete) or spec.frame_rate is None:
        raise ConfigError(f"A bit rate is that of codes with a clock, but the stream is {spec}. Take another.")
    return spec.frame_rate * spec.kind.num_codebooks * math.log2(spec.kind.codebook_size)


@dataclass(frozen=True)
class BitRate:
    """Bits a second by entropy, with intervals over recordings by the jackknife.

    ZeroSpeech 2019 (arXiv:1904.11469) has N / D times the entropy of symbols: N symbols in D seconds. Here it is a sum
    over codebooks, each coded by itself. Of little data entropies come out too low.

    :param codes: of the codes alone.
    :param with_durations: of codes with their durations, from which the time can be restored; None where each lasts
        one frame.
    :param tokens: N, of one codebook.
    :param seconds: D.
    """

    codes: Estimate
    with_durations: Estimate | None
    tokens: int
    seconds: float


def measured_bit_rate(recordings: Sequence[TokenSequence], seconds: Sequence[float]) -> BitRate:
    """The bit rate of what a tokenizer made of recordings.

    :param recordings: of one row each, as ``encode`` gives them.
    :param seconds: how long each is.
    :raises DataError: there are none, or no codes in them; or their lengths are none.
    """
    if len(recordings) != len(seconds) or not recordings:
        raise DataError(f"There are {len(recordings)} recordings and {len(seconds)} lengths. Give one for each.")
    if not all(0 < s < math.inf for s in seconds):
        raise DataError(f"A recording lasts {min(seconds)} s. Give lengths above 0 s.")
    for r in recordings:
        if not r.discrete or len(r) != 1 or r.values.shape[1] != recordings[0].values.shape[1]:
            raise DataError(
                f"Values of shape {tuple(r.values.shape)} are no codes [1, K, T] of one tokenizer. Give these."
            )
    rows = [r.row(0) for r in recordings]
    if not (tokens := sum(r.num_tokens for r in rows)):
        raise DataError("There are no codes in the recordings. Give some with speech.")
    codebooks = [[r.values[0, k].numpy() for r in rows] for k in range(rows[0].values.shape[1])]
    timed = [r.durations[0].numpy() for r in rows if r.durations is not None]
    if timed and (len(timed) < len(rows) or len(codebooks) > 1):
        raise DataError("Only some recordings have durations, or there are several codebooks. Encode them alike.")
    both = []
    if timed:
        longest = 1 + max((int(d.max()) for d in timed if len(d)), default=0)
        both = [[c.astype(np.int64) * longest + d for c, d in zip(codebooks[0], timed, strict=True)]]
    return BitRate(
        _rate(codebooks, seconds),
        _rate(both, seconds) if both else None,
        tokens,
        math.fsum(seconds),
    )


def _rate(codebooks: Sequence[Sequence[np.ndarray]], seconds: Sequence[float]) -> Estimate:
    """N / D x H, summed over codebooks."""
    tables = []
    for recordings in codebooks:
        symbols, ids = np.unique(np.concatenate(recordings), return_inverse=True)
        rows = np.repeat(np.arange(len(recordings)), [len(r) for r in recordings])
        flat = np.bincount(rows * len(symbols) + ids, minlength=len(recordings) * len(symbols))
        tables.append(flat.reshape(len(recordings), len(symbols)))
    table, length = np.concatenate(tables, axis=1), np.asarray(seconds, np.float64)
    bounds = np.cumsum([0, *(t.shape[1] for t in tables[:-1])])

    def of(counts: np.ndarray, duration: float) -> float:
        if duration <= 0:
            return math.nan  # without the only recording
        # N H = N log N - sum of n log n, for each codebook.
        own = np.add.reduceat(counts * np.log2(np.maximum(counts, 1)), bounds)
        whole = np.add.reduceat(counts, bounds)
        return float((whole * np.log2(np.maximum(whole, 1)) - own).sum()) / duration

    counts, duration = table.sum(0), float(length.sum())
    without = [of(counts - row, duration - s) for row, s in zip(table, length, strict=True)]
    return jackknife(of(counts, duration), without)
