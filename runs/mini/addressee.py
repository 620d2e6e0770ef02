"""Teach mini who is spoken to: ``addressee.py near|speak|train|evaluate``.

``near`` fits how far away a voice sounds to people who read aloud, in rooms that are made up: of one who is talked
with, and of another who is farther from the microphone.

``train`` learns from texts, as they are typed: what is said to a machine are requests, by the grammars of
``requests.yaml`` and ``asides.yaml``, and questions of an LM; what is not are the asides of the latter, prose, and
replies. ``evaluate`` measures with others, which ``speak`` has read out in voices in which mini hears nothing while it
trains, with the questions of ``lalia eval``, and with real people who read aloud. No sound is learned from: of real
people there are none who ask, and they would be told from synthesizers.
"""

import argparse
import math
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from asking import requests
from safetensors.torch import save_file
from speak import HELD_OUT, prose
from torch import Tensor
from torch.nn import functional as F

from lalia import load
from lalia.audio import Audio
from lalia.cli.console import tell
from lalia.data import discover
from lalia.data.synthesis import Flite, Kokoro, Synthesizer, synthesize_corpus
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks import questions
from lalia.files import atomic_write
from lalia.realtime.addressee import WEIGHTS, Learned, Utterance, measure_distance
from lalia.tokenizers import SoftText

RATE = 16_000
PENALTY = 0.03
"""On the squares of what is learned."""
PROSE = 24
"""Sentences of prose to measure with: the last ones that would be read out."""


def fill(key: str, count: int, seed: int) -> Iterator[str]:
    """Lines of the frames of that name in ``asides.yaml`` that differ, each frame in turn."""
    grammar = yaml.safe_load(Path(__file__).with_name("asides.yaml").read_text("utf-8"))
    slots = {name: [word.strip() for word in words.split(",")] for name, words in grammar["slots"].items()}
    frames, draw, seen = grammar[key].splitlines(), random.Random(seed), set[str]()
    for i in range(20 * count):
        line = re.sub(r"{(\w+)}", lambda found: draw.choice(slots[found[1]]), frames[i % len(frames)])
        line = line[0].upper() + line[1:]
        if line not in seen and len(seen) < count:
            seen.add(line)
            yield line


def speak(given: argparse.Namespace) -> None:
    """Have what is measured with read out; call it again to go on."""
    home = given.work / "materials" / "kokoro"
    kokoro, flite = Kokoro(home / "timed.onnx", home / "voices.npz"), Flite()
    apart = {"aside": list(fill("held out", 160, seed=1)), "asked": list(fill("asked", 40, seed=1))}
    apart["prose"] = list(prose(given.work / "materials"))[-PROSE:]
    jobs: list[tuple[Path, Synthesizer, Sequence[str], list[str]]] = []
    for kind in ("asked", "prose", "aside"):
        jobs.append((given.work / "apart" / f"{kind}-flite", flite, flite.voices, apart[kind][::2]))
        jobs.append((given.work / "apart" / f"{kind}-kokoro", kokoro, HELD_OUT, apart[kind][1::2]))
    for folder, engine, voices, texts in jobs:
        folder.parent.mkdir(parents=True, exist_ok=True)
        done = synthesize_corpus(texts, engine, voices, folder, speeds=(0.9, 1.0, 1.0, 1.1), seed=3, sample_rate=16_000)
        tell(f"{folder}: {done.done} utterances, {60 * done.hours:.1f} min")


# -- how far away it sounds ------------------------------------------------------------------------


def in_room(x: Tensor, answer: float, direct: float, level: float, noise: float, draw: torch.Generator) -> Tensor:
    """Speech [N] at 16 kHz as it is heard.

    :param answer: seconds in which the echo of the room falls by 60 dB.
    :param direct: dB of the sound that comes straight over what comes from the walls.
    :param level: of the speech, and ``noise`` of the rest, in dBFS.
    """
    after = torch.arange(1, round(answer * RATE)) / RATE
    tail = torch.randn(len(after), generator=draw) * torch.exp(-6.9 * after / answer) * (after > 0.003)
    tail = tail / tail.square().sum().sqrt() * 10 ** (-direct / 20)
    answers, x = torch.cat([torch.ones(1), tail]), F.pad(x, (RATE // 4, RATE // 3))
    n = len(x) + len(answers)
    x = torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(answers, n), n)[: len(x)]
    power = x.unfold(0, 320, 160).square().mean(-1)
    x = x * 10 ** (level / 20) / power[power > power.max() / 100].mean().sqrt()
    made = torch.fft.rfft(torch.randn(len(x), generator=draw))
    made = torch.fft.irfft(made / torch.arange(1, len(made) + 1) ** 0.5, len(x))
    return x + made / made.square().mean().sqrt() * 10 ** (noise / 20)


def near(given: argparse.Namespace) -> None:
    """Fit the measures of half of the people, and tell how the others fare."""
    chance, draw = random.Random(0), torch.Generator().manual_seed(0)
    rows: list[list[list[float]]] = [[], []]
    for i, file in enumerate(sorted(given.librispeech.glob("*.flac"))):
        x = Audio.load(file, mono=True, sample_rate=RATE).samples[0, 0]
        size = round(chance.uniform(1.5, 5) * RATE)
        x = x[(start := chance.randrange(max(1, len(x) - size))) : start + size]
        usual, noise = chance.uniform(-32, -18), chance.uniform(-72, -50)
        close = chance.uniform(0.15, 0.6), chance.uniform(3, 15), usual + chance.uniform(-4, 4)
        far = chance.uniform(0.3, 0.9), chance.uniform(-8, 2), usual - chance.uniform(6, 22)
        for is_near, room in ((1.0, close), (0.0, far)):
            found = measure_distance(in_room(x, *room, noise, draw))
            assert found is not None
            decay = 0.0 if math.isnan(found.decay) else found.decay - 2.4
            measures = [1.0, min(found.level - found.noise, 40) - 40, decay, min(found.level - usual + 6, 0)]
            rows[i % 2].append([*measures, is_near])
    learn, test = (torch.tensor(part) for part in rows)
    for count, name in ((3, "alone"), (4, "beside one who was talked with")):
        scale = torch.tensor([1.0, 0.1, 1.0, 0.2])[:count]
        weights = torch.zeros(count, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=200)

        def loss(count: int = count, scale: Tensor = scale, weights: Tensor = weights) -> Tensor:
            weights.grad = None
            made = F.binary_cross_entropy_with_logits(learn[:, :count] * scale @ weights, learn[:, -1])
            value = made + 0.005 * weights.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        fitted = weights.detach() * scale
        says = test[:, :count] @ fitted
        tell(f"{name}: {[round(w, 3) for w in fitted.tolist()]}; {rates(says, test[:, -1] > 0, 0.0)}")


def rates(says: Tensor, wanted: Tensor, threshold: float) -> str:
    """How often who was meant is answered, and who was not."""
    yes, no = says[wanted], says[~wanted]
    area = ((yes[:, None] > no).float() + 0.5 * (yes[:, None] == no).float()).mean()
    kept, taken = (100 * float((x >= threshold).float().mean()) for x in (yes, no))
    return f"area {area:.3f}, of {len(yes)} answers {kept:.1f} %, of {len(no)} others {taken:.1f} %"


# -- by what it says -------------------------------------------------------------------------------


def open_learned(weights: Path | None) -> tuple[Learned, SoftText]:
    """The judge, with mini's LM, and mini's ears."""
    model = load("mini")
    ears, talk = model.tokenizer("question"), model.recipe.talk
    assert isinstance(ears, SoftText)
    assert talk is not None
    lm: Any = model.lms[talk.lm]
    return Learned(ears.spelling, lm.backbone.model, weights=weights), ears


def train(given: argparse.Namespace) -> None:
    """Fit the linear map (logistic regression), and tell how it fares with texts."""
    learned, _ = open_learned(None)
    materials, draw = given.work / "materials", random.Random(0)
    asked = (materials / "questions.txt").read_text("utf-8").splitlines()
    replies = (materials / "replies.txt").read_text("utf-8").replace(". ", ".\n").splitlines()
    yes = [*requests(900, seed=1), *fill("to it", 900, seed=0), *draw.sample(asked, min(150, len(asked)))]
    no = [*fill("frames", 1400, seed=0), *draw.sample(list(prose(materials))[:-PROSE], 700)]
    no += draw.sample(replies, min(80, len(replies)))
    texts = dict.fromkeys(yes, 1.0) | dict.fromkeys(no, 0.0)
    x, y = torch.stack([learned.features(text) for text in texts]), torch.tensor([*texts.values()])
    mean, scale = x.mean(0), x.std(0) + 1e-4
    made = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([made], max_iter=100)

    def loss() -> Tensor:
        made.grad = None
        says = (x - mean) / scale @ made[:-1] + made[-1]
        fit = F.binary_cross_entropy_with_logits(says, y, pos_weight=(1 - y.mean()) / y.mean())
        value = fit + PENALTY * made[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    weight = made.detach()[:-1] / scale
    bias = made.detach()[-1] - mean @ weight
    with atomic_write(given.weights) as temporary:
        save_file({"weight": weight, "bias": bias}, temporary)
    tell(f"{given.weights}: learned from {int(y.sum())} queries and {int((1 - y).sum())} others")
    says = [
        torch.stack([learned.features(text) for text in texts]) @ weight + bias
        for texts in (
            [*fill("asked", 100, seed=1), *fill("last asked", 100, seed=1)],
            [*fill("held out", 80, seed=1), *fill("last held out", 60, seed=1)],
        )
    ]
    wanted = torch.cat([torch.ones(len(says[0])), torch.zeros(len(says[1]))]) > 0
    tell(f"texts of other frames: {rates(torch.cat(says), wanted, 0.0)}")


def evaluate(given: argparse.Namespace) -> None:
    """How often it answers what was read out, as mini's ears understand it."""
    learned, ears = open_learned(given.weights)
    spoken: dict[str, tuple[bool, list[Audio]]] = {
        "questions of lalia eval": (True, [question.load() for question in questions()])
    }
    for folder in sorted((given.work / "apart").iterdir()):
        if (folder / "manifest.jsonl").exists():
            spoken[folder.name] = (folder.name.startswith("asked"), [u.load() for u in discover([folder])])
    chance = random.Random(0)
    if given.librispeech:
        files = sorted(given.librispeech.glob("*.flac"))[::3]
        read = [Audio.load(file, mono=True, sample_rate=RATE) for file in files]
        spoken["people who read aloud"] = (False, [x.cut(0.0, chance.uniform(2, 7)) for x in read])
    says, wanted, dropped = list[float](), list[bool](), 0
    for name, (answer, sounds) in spoken.items():
        heard = [ears.hear(sound.mono().to(RATE))[0] for sound in sounds]
        # What is not understood is not answered anyhow.
        clear = [(sound, words.text) for sound, words in zip(sounds, heard, strict=True) if words.understood]
        scores = [learned(Utterance(sound.samples[0, 0], text)).score for sound, text in clear]
        dropped += len(sounds) - len(clear)
        taken = sum(score >= learned.threshold for score in scores)
        tell(f"{name}: answers {taken} of {len(scores)}{'' if answer else ', should answer none'}")
        says, wanted = says + scores, wanted + [answer] * len(scores)
    tell(f"all: {rates(torch.tensor(says), torch.tensor(wanted), learned.threshold)}; {dropped} not understood")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("near", "speak", "train", "evaluate"))
    parser.add_argument("--work", type=Path, help="where mini.sh worked")
    parser.add_argument("--librispeech", type=Path, help="a folder of recordings, SPEAKER-*.flac")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="what was learned")
    given = parser.parse_args()
    torch.set_num_threads(1)
    {"near": near, "speak": speak, "train": train, "evaluate": evaluate}[given.what](given)


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
