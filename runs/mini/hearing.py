"""Teach Whisper to hear sound as short as it is, and how people ask: ``hearing.py train|average|evaluate``.

Whisper knows its sound padded to 30 s, which costs several times what the sound itself would, and without the padding
it goes in circles. Two kinds of lessons end that. Of speech without a text, cut off anywhere as a draft hears it, and
of noise: the decoder's states and its distribution are to be those that Whisper itself has after all the padding. Of
speech with a text, which synthesizers read out in many voices: the text, as it was written.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.cli.console import tell
from lalia.data import discover
from lalia.encoders.recognizer import Recognizer
from lalia.encoders.transcripts import most_tokens, read
from lalia.errors import LaliaError
from lalia.evaluation.text import WhisperEnglish, word_edits
from lalia.files import atomic_write

RATE = 16000
SILENCE = (0.2, 1.0)
"""Seconds behind the longest sound of a batch while it is trained, and what is given a sound afterwards."""
GIVEN = 0.5
FRAME = 320
LONGEST = 16.0
NOISES, SHARED = 0.06, 16
"""How many of the pieces without text are without speech; and of how many sounds with a text one is cut up, too."""
TAUGHT_AT_ONCE = 32
MINUTES, TEACHING = 25.0, 0.5
"""How long it takes in all, and the part of a training's time, at most, until the learning begins."""
ENCODER_RATE, DECODER_RATE, WARM_UP, SAVE_EVERY = 1e-4, 2e-5, 60, 60.0
SMOOTHING = 0.05


@dataclass(frozen=True)
class Lesson:
    """A sound [N] and the tokens [S] that it is, from the prompt to the end; ``states`` [S, D] of a teacher, if any."""

    sound: Tensor
    ids: Tensor
    states: Tensor | None = None


def split(folder: Path) -> tuple[list[Path], list[Path]]:
    """The recordings of LibriSpeech to learn from, and those to measure with; no speaker is in both."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".opus"))
    speakers = sorted({file.name.split("-")[0] for file in files})
    random.Random(0).shuffle(speakers)
    kept = set(speakers[: len(speakers) * 4 // 5])
    return [f for f in files if f.name.split("-")[0] in kept], [f for f in files if f.name.split("-")[0] not in kept]


def load(path: Path) -> Tensor:
    """The samples [N] of a recording."""
    return Audio.load(path, sample_rate=RATE, mono=True).samples[0, 0]


def pieces(sounds: Sequence[Tensor], count: int, seed: int) -> Iterator[Tensor]:
    """Of each recording ``count`` pieces, most cut off somewhere as a draft hears them; and some without speech."""
    chance = random.Random(seed)
    for x in sounds:
        for _ in range(count):
            start = round(chance.uniform(0, max(len(x) - 2 * RATE, 0))) if chance.random() < 0.25 else 0
            stop = len(x) if chance.random() < 0.4 else start + round(chance.uniform(1, 10) * RATE)
            yield x[start : min(stop, start + round(LONGEST * RATE))]
            if chance.random() < NOISES:
                n = round(chance.uniform(0.3, 6) * RATE)
                noise = torch.randn(n, generator=torch.Generator().manual_seed(chance.randrange(1 << 30)))
                yield noise * chance.choice((0.0, 1e-4, 1e-3, 1e-2, 1e-1))


@torch.inference_mode()
def teach(teacher: Recognizer, batch: Sequence[Tensor]) -> list[Lesson]:
    """What Whisper makes of sounds with all their padding."""
    net, prompt = teacher.net, [*teacher.rules.prompt]
    device = teacher.forbidden.device
    heard = [teacher.listen(x.to(device)) for x in batch]
    lessons = []
    for x, sound, made in zip(
        batch, heard, read(teacher, heard, [most_tokens(len(x), RATE) for x in batch]), strict=True
    ):
        # What comes after a circle is not to be learned.
        ids = torch.tensor([*prompt, *made.ids, *([] if made.looped else [teacher.rules.end])], device=device)
        states = net.step(ids[None], net.remember([sound]), net.init_state(1, capacity=len(ids)))[0]
        lessons.append(Lesson(x, ids.cpu(), states.half().cpu().clone()))
    return lessons


def told(recognizer: Recognizer, folder: Path) -> list[Lesson]:
    """What is read out in a folder with a manifest."""
    rules, lessons = recognizer.rules, []
    for utterance in discover([folder]):
        if utterance.text and utterance.duration <= LONGEST:
            ids = [*rules.prompt, *recognizer.tokens(utterance.text), rules.end]
            lessons.append(Lesson(load(utterance.path), torch.tensor(ids)))
    return lessons


class Room:
    """What sounds go through before they are heard: other speeds, rooms, noise and loudness."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.chance, self.draw = random.Random(seed), torch.Generator(device).manual_seed(seed)

    def __call__(self, x: Tensor, *, faster: bool) -> Tensor:
        """Samples [B, N] to samples [B, N'].

        :param faster: the speed may change, and the pitch with it.
        """
        if faster and self.chance.random() < 0.4:
            x = F.interpolate(x[:, None], scale_factor=self.chance.uniform(0.87, 1.15), mode="linear")[:, 0]
        # Of a size with small factors: there is a plan for each, and it takes long to make.
        size = -(-x.shape[1] // RATE) * RATE
        x = self._noise(self._echo(F.pad(x, (0, size - x.shape[1]))))
        loudest = x.abs().amax(-1, keepdim=True).clamp(min=1e-3)
        return x * 10 ** self._uniform(x, -1.2, 0.0) / loudest

    def _uniform(self, x: Tensor, low: float, high: float) -> Tensor:
        """[B, 1]."""
        return low + (high - low) * torch.rand(len(x), 1, generator=self.draw, device=x.device)

    def _echo(self, x: Tensor) -> Tensor:
        """Three in ten are in a room that answers for 0.05 to 0.5 s."""
        after = torch.arange(1, RATE // 2, device=x.device) / RATE
        answer = torch.randn(len(x), len(after), generator=self.draw, device=x.device)
        answer = answer * torch.exp(-6.9 * after / self._uniform(x, 0.05, 0.5)) * self._uniform(x, 0.02, 0.2)
        answer = answer * (self._uniform(x, 0, 1) < 0.3)
        n = x.shape[1] + RATE
        made = torch.fft.rfft(x, n) * torch.fft.rfft(F.pad(answer, (1, 0)), n)
        return x + torch.fft.irfft(made, n)[:, : x.shape[1]]

    def _noise(self, x: Tensor) -> Tensor:
        """Half have noise of 5 to 35 dB less, whose spectrum falls by up to 6 dB an octave."""
        shape = torch.fft.rfft(torch.randn(x.shape, generator=self.draw, device=x.device))
        fall = torch.arange(1, shape.shape[1] + 1, device=x.device) ** self._uniform(x, 0, 1)
        noise = torch.fft.irfft(shape / fall, x.shape[1])
        level = [a.square().mean(-1, keepdim=True).sqrt() for a in (x, noise)]
        much = 10 ** (-self._uniform(x, 5, 35) / 20) * (self._uniform(x, 0, 1) < 0.5)
        return x + noise * much * level[0] / level[1].clamp(min=1e-9)


@dataclass(frozen=True)
class Batch:
    """Lessons of one kind: sounds [B, N], tokens [B, S] of which ``mask`` [B, S] count, and a teacher's states."""

    sounds: Tensor
    ids: Tensor
    mask: Tensor
    states: Tensor | None

    @classmethod
    def of(cls, lessons: Sequence[Lesson], device: torch.device) -> "Batch":
        """All of them, with what is missing at their ends."""
        sounds, ids = (_together(parts) for parts in ([x.sound for x in lessons], [x.ids for x in lessons]))
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(x.ids)] for x in lessons])
        states = (
            _together([x.states for x in lessons if x.states is not None]) if lessons[0].states is not None else None
        )
        made = (sounds, ids, mask, *(() if states is None else (states,)))
        sounds, ids, mask, *rest = (x.to(device, non_blocking=True) for x in made)
        return cls(sounds, ids, mask, rest[0].float() if rest else None)


def _together(rows: Sequence[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def batches(lessons: Sequence[Lesson], seconds: float, seed: int) -> Iterator[list[Lesson]]:
    """Lessons of one kind and about the same length, as long as ``seconds`` together; without end."""
    chance = random.Random(seed)
    while True:
        made: list[list[Lesson]] = []
        for kind in (True, False):
            rows = [x for x in lessons if (x.states is None) is kind]
            made.append([])
            for lesson in sorted(rows, key=lambda lesson: len(lesson.sound) * chance.uniform(0.9, 1.1)):
                if (len(made[-1]) + 1) * len(lesson.sound) > seconds * RATE and made[-1]:
                    made.append([])
                made[-1].append(lesson)
        chance.shuffle(made)
        yield from (batch for batch in made if batch)


def loss_of(student: Recognizer, batch: Batch, sounds: Tensor, silence: int) -> dict[str, Tensor]:
    """How far the states are from a teacher's (relative) and its distributions (nats), or the text (nats)."""
    net = student.net
    size = -(-(sounds.shape[1] + silence) // FRAME) * FRAME
    heard = net.encoder(student.mel(F.pad(sounds, (0, size - sounds.shape[1]))))
    states = net.step(batch.ids, net.remember(list(heard)), net.init_state(len(heard), capacity=batch.ids.shape[1]))
    if batch.states is None:
        counts = batch.mask[:, 1:].clone()
        counts[:, : len(student.rules.prompt) - 1] = False
        made, wanted = net.logits(states[:, :-1][counts]).float(), batch.ids[:, 1:][counts]
        return {"text": F.cross_entropy(made, wanted, label_smoothing=SMOOTHING)}
    made, teacher = states[batch.mask], batch.states[batch.mask]
    log_p, log_q = (F.log_softmax(net.logits(x).float(), -1) for x in (teacher, made))
    return {
        "states": (made - teacher).square().sum() / teacher.square().sum(),
        "KL": F.kl_div(log_q, log_p, log_target=True, reduction="batchmean"),
    }


def train(given: argparse.Namespace) -> None:
    """Learn until the time is over; what has had its time is done."""
    before = minutes_of(given.output)
    minutes = MINUTES - before if given.minutes is None else given.minutes
    if minutes <= 0:
        tell(f"{given.output}: learned in {before:.0f} min")
        return
    device = torch.device(given.device)
    teacher, student = (Recognizer.Config(given.recognizer).build().to(device) for _ in range(2))
    seed = load_into(student, given.output)
    learned = {name: p for name, p in student.learnable() if given.decoder or name.startswith("encoder.")}
    for parameter in learned.values():
        parameter.requires_grad_(True)
    groups = [
        {"params": [p for n, p in learned.items() if n.startswith(part)], "peak": rate}
        for part, rate in (("encoder.", ENCODER_RATE), ("decoder.", DECODER_RATE))
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.98), weight_decay=0.01)
    start = saved = time.monotonic()
    lessons = [lesson for folder in given.spoken for lesson in told(student, folder)]
    tell(f"{len(lessons)} sounds with a text, {sum(len(x.sound) for x in lessons) / RATE / 60:.0f} min")
    sounds = [*(load(f) for f in split(given.librispeech)[0]), *(x.sound for x in lessons[::SHARED])]
    mute = list(pieces(sounds, given.pieces, seed))
    room, chance, shown = Room(seed, device), random.Random(seed), dict[str, list[float]]()
    limit = 60 * minutes
    # Where there is no time for all of them, they are of all speakers.
    chance.shuffle(mute)
    taught = len(lessons)
    for i in range(0, len(mute), TAUGHT_AT_ONCE):
        lessons += teach(teacher, mute[i : i + TAUGHT_AT_ONCE])
        if time.monotonic() - start > TEACHING * limit:
            break
    tell(f"{len(lessons) - taught} of {len(mute)} pieces taught, {(time.monotonic() - start) / 60:.1f} min")
    del teacher
    for update, batch in enumerate(batches(lessons, given.seconds, seed), 1):
        passed = time.monotonic() - start
        rate = min(update / WARM_UP, 1) * max(0.5 + 0.5 * math.cos(math.pi * min(passed / limit, 1)), 0.02)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        together = Batch.of(batch, device)
        heard = room(together.sounds, faster=together.states is None)
        with torch.autocast(device.type, torch.bfloat16):
            losses = loss_of(student, together, heard, round(chance.uniform(*SILENCE) * RATE))
        sum(losses.values(), torch.zeros((), device=device)).backward()
        torch.nn.utils.clip_grad_norm_(learned.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if update % 10 == 0:
            for name, loss in losses.items():
                shown.setdefault(name, []).append(float(loss.detach()))
        if update % 50 == 0:
            means = ", ".join(f"{name} {sum(x) / len(x):.4f}" for name, x in shown.items())
            tell(f"{passed / 60:5.1f} min  update {seed + update}: {means}")
            shown = {}
        if time.monotonic() - saved > SAVE_EVERY:
            save(learned, given.output, seed + update, before + passed / 60)
            saved = time.monotonic()
        if time.monotonic() - start > limit:
            break
    save(learned, given.output, seed + update, before + minutes)


def average(given: argparse.Namespace) -> None:
    """The mean of what was learned by several trainings from one beginning (arXiv:2203.05482).

    An encoder that learned alone keeps more of how Whisper hears read speech, and one that learned with its decoder
    hears questions better; their mean is as good as the better at either. A part that one did not learn is the others'.
    """
    learned = [load_file(path) for path in given.of]
    names = sorted({name for tensors in learned for name in tensors})
    found = {name: torch.stack([t[name].float() for t in learned if name in t]).mean(0) for name in names}
    save(found, given.output, 0)


def save(learned: Mapping[str, Tensor], path: Path, updates: int, minutes: float = 0.0) -> None:
    """Write what was learned, in half precision, as ``SoftText.load_weights`` takes it."""
    tensors = {name: p.detach().half().cpu().contiguous() for name, p in learned.items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"updates": str(updates), "minutes": f"{minutes:.2f}"})


def minutes_of(path: Path) -> float:
    """How long what was saved has learned."""
    if not path.exists():
        return 0.0
    with safe_open(path, framework="pt") as file:
        return float((file.metadata() or {}).get("minutes", 0.0))


@torch.no_grad()
def load_into(student: Recognizer, path: Path) -> int:
    """Go on from what was saved, if it was; how many updates that had."""
    if not path.exists():
        return 0
    parameters = dict(student.learnable())
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            parameters[name].copy_(file.get_tensor(name))
        return int((file.metadata() or {}).get("updates", 0))


@torch.inference_mode()
def evaluate(given: argparse.Namespace) -> None:
    """How many words are wrong, before (with and without the padding) and after.

    Of recordings without a text, the words that Whisper itself reads with the padding count as right.
    """
    torch.set_num_threads(1)
    before, after = (Recognizer.Config(given.recognizer).build() for _ in range(2))
    load_into(after, given.output)
    normal, chance, silence = WhisperEnglish(), random.Random(1), round(GIVEN * RATE)
    told_of: dict[str, list[tuple[Tensor, str | None]]] = {}
    for folder in given.spoken:
        told_of[folder.name] = [(load(u.path), u.text) for u in discover([folder])][: given.recordings]
    if given.librispeech:
        sounds = [load(file) for file in split(given.librispeech)[1][: given.recordings]]
        told_of["pieces"] = [(x[: round(chance.uniform(3, 12) * RATE)], None) for x in sounds]
    for kind, items in told_of.items():
        words, exact, sums = 0, [0] * 3, [[0, 0] for _ in range(3)]
        for x, text in items:
            most = [most_tokens(len(x), RATE)]
            made = [
                read(recognizer, [recognizer.listen(x, silence=much)], most)[0]
                for recognizer, much in ((before, None), (before, silence), (after, silence))
            ]
            wanted = normal(before.spell(made[0].ids) if text is None else text)
            words += len(wanted.split())
            for i, one in enumerate(made):
                errors = word_edits(wanted, normal(before.spell(one.ids))).errors
                sums[i] = [sums[i][0] + errors, sums[i][1] + one.looped]
                exact[i] += not errors
        for i, name in enumerate(("padded", "short, before", "short, after")):
            tell(
                f"{kind}, {name}: {100 * sums[i][0] / words:.2f} % of {words} words differ, "
                f"{exact[i]} of {len(items)} without one, {sums[i][1]} loops"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "average", "evaluate"))
    parser.add_argument("--recognizer", default="whisper-tiny.en")
    parser.add_argument("--librispeech", type=Path, help="a folder of recordings without texts, SPEAKER-*.flac")
    parser.add_argument("--spoken", type=Path, action="append", default=[], help="recordings with texts in a manifest")
    parser.add_argument("--minutes", type=float, help=f"of work, at most; without, what is left of {MINUTES:g} in all")
    parser.add_argument("--seconds", type=float, default=40.0, help="of sound in an update")
    parser.add_argument("--pieces", type=int, default=3, help="of each recording without a text")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--decoder", action="store_true", help="the decoder learns too, more slowly")
    parser.add_argument("--recordings", type=int, default=100, help="of each kind, to evaluate with")
    parser.add_argument("--of", type=Path, action="append", default=[], help="what to average")
    parser.add_argument("-o", "--output", type=Path, required=True, help="what was learned, as safetensors")
    given = parser.parse_args()
    {"train": train, "average": average, "evaluate": evaluate}[given.what](given)


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
