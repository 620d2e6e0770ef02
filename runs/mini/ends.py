"""How well the ends of turns are told from pauses: ``ends.py FOLDER...``, with recordings that ``speak.py`` made.

Each recording is heard whole, and cut off behind a word at 30 to 70 % of it, at a comma if there is one; silence
follows. The judge is asked as a session asks it. What fits the recordings of the folders is printed, and how ``Ends``
fares, on these and on the questions of ``lalia eval``, whose voices and texts are others.
"""

import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median, quantiles

import torch
from torch import Tensor

from lalia import load
from lalia.audio import Audio
from lalia.cli.console import tell
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks import questions
from lalia.realtime import Activity
from lalia.realtime.ends import Eagerness, Ends, SmartTurn, Words
from lalia.tokenizers import SoftText

RATE = 16_000
FLOOR = 5e-4
"""The noise of a quiet room, -66 dBFS."""
PAUSES = (0.6, 1.0, 1.5, 2.5)
"""Seconds that somebody may think within a turn."""
MOST = 200
"""Recordings of a folder."""


@dataclass(frozen=True)
class Asked:
    """What was asked of a judge: of a whole turn or of a part, and what sound and draft say."""

    whole: bool
    sound: float
    draft: str


def turns(folder: Path, chance: random.Random) -> Iterator[tuple[Tensor, bool]]:
    """Each recording whole, and a part of it, where the phones say that a word ends."""
    lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
    for line in chance.sample(lines, min(MOST, len(lines))):
        told = json.loads(line)
        samples = Audio.load(folder / told["path"], sample_rate=RATE, mono=True).samples[0, 0]
        within = [p for p in told["phones"] if 0.3 < p[1] / told["duration"] < 0.7]
        found = [p[1] for p in within if p[0] == ","] or [p[1] for p in within if p[0] == " "]
        yield samples[: round(told["phones"][-1][2] * RATE)], True
        if found:
            yield samples[: round(chance.choice(found) * RATE)], False


def bundled(chance: random.Random) -> Iterator[tuple[Tensor, bool]]:
    """The questions of ``lalia eval``, and a part of each, cut off where it is quietest."""
    for question in questions():
        samples = question.load().to(RATE).samples[0, 0]
        power = samples.unfold(0, 480, 160).square().mean(-1)
        loud = (power > power.max() * 10**-3.5).nonzero()[:, 0].tolist()
        yield samples[: loud[-1] * 160 + 480], True
        middle = loud[0] + round(chance.uniform(0.3, 0.7) * (loud[-1] - loud[0]))
        quietest = middle - 12 + int(power[middle - 12 : middle + 13].argmin())
        yield samples[: quietest * 160 + 240], False


def ask(samples: Tensor, sound: SmartTurn, ears: SoftText, after: float) -> tuple[float, str]:
    """What sound and draft say when it has been quiet for a moment."""
    turn = torch.cat([torch.zeros(RATE // 2), samples, torch.zeros(2 * RATE)])
    turn = turn + FLOOR * torch.randn(len(turn), generator=torch.Generator().manual_seed(0))
    activity, heard = Activity(), 0
    for piece in turn.split(activity.detector.frame):
        list(activity.push(piece))
        heard += len(piece)
        if heard > RATE // 2 + len(samples) and activity.quiet >= after:
            break
    turn = turn[RATE // 4 : heard]
    return sound(turn), ears.hear(Audio(turn[None, None], RATE))[0].text


def fit(asked: Sequence[Asked], words: Words) -> tuple[float, float]:
    """The power of the odds of the sound, and what is added to the logarithm of all, of the least cross entropy."""
    rows = torch.tensor([[_log_odds(a.sound), _log_odds(words(a.draft)), float(a.whole)] for a in asked])
    weights = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100)
    balance = torch.where(rows[:, 2] > 0, 0.5 / rows[:, 2].mean(), 0.5 / (1 - rows[:, 2].mean()))

    def loss() -> Tensor:
        optimizer.zero_grad()
        made = weights[0] * rows[:, 0] + rows[:, 1] + weights[1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(made, rows[:, 2], balance)
        value.backward()
        return value

    optimizer.step(loss)
    power, bias = weights.tolist()
    return power, bias


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-3), 1 - 1e-3)
    return math.log(p / (1 - p))


def area(ends: Ends, asked: Sequence[Asked], which: str) -> float:
    """Under the ROC curve."""
    says = {"sound": lambda a: a.sound, "words": lambda a: Words()(a.draft)}.get(which, partial(probability, ends))
    whole, cut = ([says(a) for a in asked if a.whole is kind] for kind in (True, False))
    return fmean((a > b) + 0.5 * (a == b) for a in whole for b in cut)


def probability(ends: Ends, a: Asked) -> float:
    """What both say together."""
    return ends.combine(a.sound, ends.words(a.draft) if ends.words else None)


def report(name: str, asked: Sequence[Asked]) -> None:
    """Print how ``Ends`` fares."""
    ends = Ends(words=Words())
    areas = ", ".join(f"{which} {area(ends, asked, which):.3f}" for which in ("sound", "words", "both"))
    tell(f"{name}: {sum(a.whole for a in asked)} whole, {sum(not a.whole for a in asked)} cut off; area {areas}")
    for whole in (True, False):
        said = [probability(ends, a) for a in asked if a.whole is whole]
        tell(f"  {'whole' if whole else 'cut off'}: deciles of the probability {_list(quantiles(said, n=10))}")
    eager: tuple[Eagerness, ...] = ("high", "medium", "low")
    for eagerness in eager:
        ends = Ends(Ends.Config(eagerness=eagerness), words=Words())
        waits = [ends.seconds(probability(ends, a)) for a in asked if a.whole]
        ended = [ends.seconds(probability(ends, a)) for a in asked if not a.whole]
        rates = ", ".join(f"{p} s {100 * fmean(e <= p for e in ended):.0f} %" for p in PAUSES)
        tell(
            f"  {eagerness}: a whole turn waits {fmean(waits):.2f} s (median {median(waits):.2f}, one in ten "
            f"{quantiles(waits, n=10)[-1]:.2f}); pauses that end a turn: {rates}"
        )
    tell("  silence of 0.5 s: all wait 0.50 s; pauses that end a turn: 100 %")


def _list(values: Sequence[float]) -> str:
    return " ".join(f"{v:.2f}" for v in values)


def main(folders: Sequence[str]) -> None:
    """Ask, fit and print."""
    sound, ears, after = SmartTurn(), load("mini").tokenizer("question"), Ends.Config().ask
    assert isinstance(ears, SoftText)
    found = {Path(folder).name: turns(Path(folder), random.Random(0)) for folder in folders}
    found["questions of lalia eval"] = bundled(random.Random(0))
    all_of: dict[str, list[Asked]] = {}
    for name, sounds in found.items():
        all_of[name] = [Asked(whole, *ask(samples, sound, ears, after)) for samples, whole in sounds]
    if folders:
        power, bias = fit([a for name, asked in list(all_of.items())[:-1] for a in asked], Words())
        tell(f"least cross entropy: odds of the sound to the power of {power:.2f}, bias {bias:.2f}")
    for name, asked in all_of.items():
        report(name, asked)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main(sys.argv[1:])
    except LaliaError as error:
        sys.exit(f"error: {error}")
