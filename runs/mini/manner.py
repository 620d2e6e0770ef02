"""How speech is said as a rule: ``manner.py FOLDER`` prints the norms of ``lalia.tokenizers.manner``.

FOLDER has recordings named SPEAKER-... .flac, LibriSpeech's (Panayotov et al. 2015) for example. Of each, the first and
the last phrase between pauses are measured, cut out as a turn of a conversation would be, and mini writes down what is
said. Half the mean square of the difference between the two is the variance within a speaker.
"""

import math
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean, pvariance

import torch

from lalia import load
from lalia.audio import Audio
from lalia.cli.console import tell
from lalia.encoders.delivery import MEASURES, Delivery, DeliveryMeter
from lalia.errors import DataError, LaliaError

RATE, FRAME = 16000, 640
PAUSE, AROUND = 6, 5
"""Frames without speech that end a phrase, and those of silence that are left around it."""
SHORTEST, LONGEST = 1.0, 6.0
"""Seconds."""
SURE = -0.4
"""The least mean log-probability of words that are taken as they are written."""


def phrases(audio: Audio) -> list[Audio]:
    """What is said between pauses, within 25 dB of the loudest."""
    power = audio.samples[0, 0, : audio.samples.shape[-1] // FRAME * FRAME].view(-1, FRAME).square().mean(-1)
    level = 10 * (power + 1e-12).log10()
    spoken = (level > level.quantile(0.95) - 25).nonzero()[:, 0].tolist()
    starts = [t for i, t in enumerate(spoken) if i == 0 or t - spoken[i - 1] > PAUSE]
    stops = [t for i, t in enumerate(spoken) if i + 1 == len(spoken) or spoken[i + 1] - t > PAUSE]
    found = [
        (max(a - AROUND, 0) * FRAME / RATE, (b - a + 2 * AROUND) * FRAME / RATE)
        for a, b in zip(starts, stops, strict=True)
    ]
    return [audio.cut(start, seconds) for start, seconds in found if SHORTEST <= seconds <= LONGEST]


def pace(said: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """The seconds of a phrase, and of each letter more, of least squares on the logarithm of the time."""
    tried = ((a / 50, b / 1000) for a in range(40) for b in range(30, 100))
    return min(tried, key=lambda ab: sum((math.log(ab[0] + ab[1] * n) - t) ** 2 for n, t in said))


def norms(folder: Path) -> None:
    """
    :raises DataError: there is too little speech.
    :raises LaliaError: a recording cannot be read, or mini cannot be had.
    """
    mini, meter = load("mini"), DeliveryMeter()
    ears, letters = mini.tokenizer("question"), mini.tokenizer("letters")
    pairs: list[list[tuple[int, Delivery]]] = []
    for file in sorted(folder.glob("*.flac")):
        found = phrases(Audio.load(file, mono=True, sample_rate=RATE))
        pairs.append([])
        for phrase in found[:1] + found[1:][-1:]:
            (said,), (words,) = meter.measure(phrase), ears.hear(phrase)
            spelled = letters.decode(letters.encode(words.text))[0] if words.confidence > SURE else ""
            pairs[-1].append((sum(c.isalpha() for c in spelled), said))
    begin, letter = pace([(n, d.rate) for n, d in chain(*pairs) if n and not math.isnan(d.rate)])
    tell(f"seconds: {begin:.2f} and {letter:.3f} a letter")
    for name in MEASURES:
        usual = [
            [math.log(begin + letter * n) - d.rate if n else math.nan for n, d in pair]
            if name == "rate"
            else [getattr(d, name) for _, d in pair]
            for pair in pairs
            if len(pair) == 2
        ]
        usual = [pair for pair in usual if not any(map(math.isnan, pair))]
        if not usual:
            raise DataError(f"{folder} has no two phrases of one speaker with a {name}. Give more recordings.")
        values = list(chain(*usual))
        within = fmean((a - b) ** 2 for a, b in usual) / 2
        between = max(pvariance(values) - within, 0.0)
        tell(f"{name}: mean {fmean(values):.3f}, between {between**0.5:.3f}, within {within**0.5:.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: manner.py FOLDER")
    torch.set_num_threads(1)
    try:
        norms(Path(sys.argv[1]))
    except LaliaError as error:
        sys.exit(f"error: {error}")
