"""Teach Whisper's encoder to hear sound as short as it is: ``hearing.py train|evaluate``; call it again to go on.

Whisper knows its sound padded to 30 s, which costs several times what the sound itself would, and without the padding
it goes in circles. Here only the encoder learns: with a little silence behind the sound, the decoder's states and its
distribution are to be those that it has after all the padding. The teacher is Whisper itself, so no text is needed.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.cli.console import tell
from lalia.encoders.recognizer import Recognizer
from lalia.encoders.transcripts import most_tokens, read
from lalia.errors import AudioError, LaliaError
from lalia.evaluation.text import WhisperEnglish, word_edits
from lalia.files import atomic_write

RATE = 16000
SILENCE = (0.2, 1.0)
"""Seconds behind a sound while it is trained, and what is given it afterwards."""
GIVEN = 0.5
NEW, OLD = 2, 4
"""Sounds of an update: those that the teacher has yet to hear, and those that it knows."""
WARM_UP, RATE_OF_LEARNING, SAVE_EVERY = 15, 5e-5, 90.0


@dataclass(frozen=True)
class Lesson:
    """A sound [N], and what the teacher thinks at each token of it: ids [S] and states [S, D]."""

    sound: Tensor
    ids: Tensor
    states: Tensor


def halves(folder: Path) -> tuple[list[Path], list[Path]]:
    """The recordings of LibriSpeech to learn from, and those to measure with; no speaker is in both."""
    files = sorted(folder.glob("*.flac"))
    speakers = sorted({file.name.split("-")[0] for file in files})
    random.Random(0).shuffle(speakers)
    kept = set(speakers[: len(speakers) // 2])
    return [f for f in files if f.name.split("-")[0] in kept], [f for f in files if f.name.split("-")[0] not in kept]


def sounds(files: Sequence[Path], seed: int) -> Iterator[Tensor]:
    """Recordings, most cut off somewhere as a draft hears them, a few from the middle; and some without speech."""
    chance = random.Random(seed)
    while True:
        if chance.random() < 0.06:
            n = round(chance.uniform(0.3, 6) * RATE)
            noise = torch.randn(n, generator=torch.Generator().manual_seed(chance.randrange(1 << 30)))
            yield noise * chance.choice((0.0, 1e-4, 1e-3, 1e-2))
            continue
        try:
            x = Audio.load(chance.choice(files), sample_rate=RATE, mono=True).samples[0, 0]
        except AudioError:
            continue  # one that is being written
        start = round(chance.uniform(0, max(len(x) - 2 * RATE, 0))) if chance.random() < 0.25 else 0
        stop = len(x) if chance.random() < 0.4 else start + round(chance.uniform(1, 10) * RATE)
        yield x[start : min(stop, start + 12 * RATE)]


@torch.inference_mode()
def teach(teacher: Recognizer, batch: Sequence[Tensor]) -> list[Lesson]:
    """What Whisper makes of sounds with all their padding."""
    heard = [teacher.listen(x) for x in batch]
    read_off = read(teacher, heard, [most_tokens(len(x), RATE) for x in batch])
    lessons = []
    for x, sound, transcript in zip(batch, heard, read_off, strict=True):
        # What comes after a circle is not to be learned.
        ids = torch.tensor([[*teacher.rules.prompt, *transcript.ids]])
        net = teacher.net
        states = net.step(ids, net.remember([sound]), net.init_state(1))
        lessons.append(Lesson(x, ids[0].clone(), states[0].clone()))
    return lessons


def loss_of(student: Recognizer, lesson: Lesson, silence: int) -> tuple[Tensor, Tensor]:
    """How far the student's states are from the teacher's, and its distributions."""
    net = student.net
    memory = net.remember([student.listen(lesson.sound, silence=silence)])
    states = net.step(lesson.ids[None], memory, net.init_state(1, capacity=len(lesson.ids)))[0]
    far = (states - lesson.states).square().sum() / lesson.states.square().sum()
    wanted, made = (F.log_softmax(net.logits(x), -1) for x in (lesson.states, states))
    return far, F.kl_div(made, wanted, log_target=True, reduction="sum") / len(states)


def train(given: argparse.Namespace) -> None:
    """Learn until the time is over."""
    torch.set_num_threads(1)
    files = [*halves(given.librispeech)[0], *sorted(given.prose.glob("*.flac"))]
    teacher, student = (Recognizer.Config(given.recognizer).build() for _ in range(2))
    done = load(student, given.output)
    encoder = student.net.encoder
    encoder.requires_grad_(True)
    encoder.embed_positions.requires_grad_(False)
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE_OF_LEARNING, betas=(0.9, 0.98), weight_decay=0.0)
    chance, source, known = random.Random(done), sounds(files, seed=done), []
    start = saved = time.monotonic()
    limit, shown = 60 * given.minutes, []
    update = 0
    while (passed := time.monotonic() - start) < limit:
        new = teach(teacher, [next(source) for _ in range(NEW)])
        batch = [*new, *chance.sample(known, min(OLD, len(known)))]
        known += new
        for group in optimizer.param_groups:
            group["lr"] = RATE_OF_LEARNING * min((update + 1) / WARM_UP, 1) * max(1 - passed / limit, 0.05)
        for lesson in batch:
            far, apart = loss_of(student, lesson, round(chance.uniform(*SILENCE) * RATE))
            ((far + apart) / len(batch)).backward()
            shown.append((float(far.detach()), float(apart.detach())))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        update += 1
        if update % 10 == 0:
            far, apart = (sum(x) / len(shown) for x in zip(*shown, strict=True))
            tell(f"{passed / 60:5.1f} min  update {done + update}: states {far:.4f}, KL {apart:.4f}")
            shown = []
        if time.monotonic() - saved > SAVE_EVERY or time.monotonic() - start >= limit:
            save(student, given.output, done + update)
            saved = time.monotonic()


def save(student: Recognizer, path: Path, updates: int) -> None:
    """Write what the encoder learned, in half precision, as ``SoftText.load_weights`` takes it."""
    tensors = {n: p.detach().half().contiguous() for n, p in student.net.encoder.named_parameters()}
    # The positions are sinusoids, of which nothing is learned.
    del tensors["embed_positions.weight"]
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"updates": str(updates)})


@torch.no_grad()
def load(student: Recognizer, path: Path) -> int:
    """Go on from what was saved, if it was; how many updates that had."""
    if not path.exists():
        return 0
    parameters = dict(student.net.encoder.named_parameters())
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            parameters[name].copy_(file.get_tensor(name))
        return int((file.metadata() or {}).get("updates", 0))


@torch.inference_mode()
def evaluate(given: argparse.Namespace) -> None:
    """How far short sounds are from padded ones, before and after.

    Where the reading of the padded sound is the one that leaves out what was said, that counts as a difference too.
    """
    torch.set_num_threads(1)
    teacher, before, after = (Recognizer.Config(given.recognizer).build() for _ in range(3))
    load(after, given.output)
    normal, chance, silence = WhisperEnglish(), random.Random(1), round(GIVEN * RATE)
    sums = {"before": [0.0] * 4, "after": [0.0] * 4}
    words, files = 0, halves(given.librispeech)[1][: given.recordings]
    for file in files:
        x = Audio.load(file, sample_rate=RATE, mono=True).samples[0, 0]
        x = x[: round(chance.uniform(3, 12) * RATE)]
        (lesson,) = teach(teacher, [x])
        wanted = normal(teacher.spell(lesson.ids[len(teacher.rules.prompt) :].tolist()))
        words += len(wanted.split())
        for name, recognizer in (("before", before), ("after", after)):
            (made,) = read(recognizer, [recognizer.listen(x, silence=silence)], [most_tokens(len(x), RATE)])
            differ = word_edits(wanted, normal(recognizer.spell(made.ids))).errors
            new = (*loss_of(recognizer, lesson, silence), differ, made.looped)
            sums[name] = [a + float(b) for a, b in zip(sums[name], new, strict=True)]
    for name, (far, apart, differ, loops) in sums.items():
        tell(
            f"{name}: states {far / len(files):.4f}, KL {apart / len(files):.4f}; "
            f"{100 * differ / words:.2f} % of {words} words differ, {loops:.0f} loops"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "evaluate"))
    parser.add_argument("--recognizer", default="whisper-tiny.en")
    parser.add_argument("--librispeech", type=Path, required=True, help="a folder of FLAC files, SPEAKER-*.flac")
    parser.add_argument("--prose", type=Path, help="a folder of FLAC files of synthetic speech")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--recordings", type=int, default=100, help="to evaluate with")
    parser.add_argument("-o", "--output", type=Path, required=True, help="what was learned, as safetensors")
    given = parser.parse_args()
    {"train": train, "evaluate": evaluate}[given.what](given)


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
