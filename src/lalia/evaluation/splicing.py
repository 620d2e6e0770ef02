"""Negatives made from real speech: played backwards, or with its words in another order.

A pair must differ in what it is about and in nothing else. So both members have the same samples and the
same length, and where the negative was spliced the positive is spliced too, at the same places.
"""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import torch

from lalia.audio import Audio
from lalia.data import Word
from lalia.errors import DataError
from lalia.evaluation.energy import mean_power, speech_span

__all__ = ["cut_points", "rejoin", "reordered_words", "reversed_audio", "shuffled"]

_SEARCH = 0.06
_SHORTEST = 0.08
_FADE = 0.005


def reversed_audio(audio: Audio) -> Audio:
    """Row 0, mono, played backwards: the same spectrum and the same length, and no speech sound in its order."""
    row = audio.row(0).mono()
    return Audio(row.samples.flip(-1), row.sample_rate)


def reordered_words(
    audio: Audio, words: Sequence[Word], *, seed: int, key: str = "", depth: float = 0.0
) -> tuple[Audio, Audio]:
    """(positive, negative): the words in their order and in another, both cut and joined at the same places.

    Silence before the first word and after the last stays where it is.

    :param words: with their times.
    :param seed: of the order.
    :param key: with the seed, decides the order; the id of the utterance.
    :param depth: cut only where the sound is this many dB below the level of the speech. 0 cuts between all
        words; at 20 or so pauses and closures are left, so that no word loses its transition to its neighbour.
    :raises DataError: there are no two parts to exchange.
    """
    points = cut_points(audio, words, depth=depth)
    parts = len(points) - 1
    if parts < 2:
        raise DataError(f"{key or 'The recording'} can be cut into {max(parts, 0)} parts only. Leave it out.")
    return rejoin(audio, points, range(parts)), rejoin(audio, points, shuffled(parts, seed, key))


def shuffled(n: int, seed: int, key: str = "") -> tuple[int, ...]:
    """An order of ``n`` things that is not their own, always the same one for a seed and a key."""
    assert n >= 2, "one thing has one order"
    rng = random.Random(f"{seed}:{key}")
    order = list(range(n))
    while order == sorted(order):
        rng.shuffle(order)
    return tuple(order)


def cut_points(audio: Audio, words: Sequence[Word], *, depth: float = 0.0) -> list[int]:
    """Where to cut row 0, in samples, ascending: the onset of speech, a place between every two words, its end.

    Times of words from a recogniser are off by some 20 to 100 ms. Each cut is moved to the quietest place
    (20 ms mean power) between the two words or up to 60 ms into either, and never beyond the middle of one.
    A cut that would leave a part shorter than 80 ms is left out.

    :param depth: leave out cuts that are less than this many dB below the mean power of the speech.
    """
    power = mean_power(audio)
    rate = audio.sample_rate
    first, last = speech_span(power)
    if first == last:
        return []
    quiet_enough = power[first:last].mean() * 10 ** (-depth / 10) if depth > 0 else math.inf
    points = [first]
    for before, after in pairwise(words):
        low = max(before.end - _SEARCH, (before.start + before.end) / 2)
        high = min(after.start + _SEARCH, (after.start + after.end) / 2)
        a, b = round(low * rate), round(high * rate) + 1
        a, b = max(a, points[-1] + round(_SHORTEST * rate)), min(b, last - round(_SHORTEST * rate))
        if a >= b:
            continue
        point = a + int(power[a:b].argmin())
        if power[point] <= quiet_enough:
            points.append(point)
    return [*points, last]


def rejoin(audio: Audio, points: Sequence[int], order: Sequence[int]) -> Audio:
    """Row 0 cut at ``points`` and its parts joined in ``order``; what lies outside the points stays.

    Every part fades in and out (5 ms, raised cosine) before it is placed, and parts do not overlap. An
    overlapping crossfade would give parts in their own order back without a trace, and the traces of
    splicing would then mark the negative; this way the same parts, faded the same, are in both.

    :param order: the parts by number, from 0, each once.
    """
    assert sorted(order) == list(range(len(points) - 1)), "each part is placed once"
    row = audio.row(0).mono()
    x = row.samples[0, 0]
    bounds = [0, *points, len(x)]
    places = [0, *(i + 1 for i in order), len(points)]
    parts = [x[a:b].clone() for a, b in pairwise(bounds)]
    length = round(_FADE * row.sample_rate)
    for i, part in enumerate(parts):
        n = min(length, len(part) // 2)
        ramp = torch.sin(torch.linspace(0, math.pi / 2, n + 2)[1:-1]) ** 2
        if i > 0:
            part[:n] *= ramp
        if i < len(parts) - 1:
            part[len(part) - n :] *= ramp.flip(0)
    return Audio(torch.cat([parts[i] for i in places]), row.sample_rate)
