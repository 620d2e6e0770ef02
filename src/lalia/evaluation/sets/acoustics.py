"""mini-acoustics: a sentence whose second half goes on as the first began, against one that changes how it sounds."""

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.pairs import Pair
from lalia.evaluation.sets.conditions import BACKGROUNDS, ROOMS, background, in_room, levelled, spliced, trimmed
from lalia.evaluation.sets.studio import RATE, Line, Studio
from lalia.evaluation.sets.writing import Writer

__all__ = ["TASKS", "clause_list", "make_acoustics"]

SPEEDS: Mapping[str, float] = {"slow": 0.8, "fast": 1.3}

_CROWD = 6


@dataclass(frozen=True)
class _Half:
    """How a half of a sentence is to sound: who reads it, and one thing that may change."""

    voice: str
    condition: str

    @property
    def speed(self) -> float:
        return SPEEDS.get(self.condition, 1.0)


@dataclass(frozen=True)
class _Unit:
    """Two pairs: a sentence, and two conditions that are each once in front."""

    task: str
    number: int
    sentence: int
    halves: tuple[_Half, _Half]


TASKS: Mapping[str, str] = {
    "speaker": "another speaker of the same gender goes on",
    "gender": "a speaker of another gender goes on",
    "rate": "the same speaker goes on faster or slower",
    "background": "something else is heard behind the voice",
    "room": "the same speaker goes on in another room",
}
"""What the negative of each task changes in the middle."""


@cache
def clause_list() -> tuple[tuple[str, str], ...]:
    """Sentences in two halves, parted at a comma."""
    lines = Path(__file__).with_name("clauses.txt").read_text(encoding="utf-8").splitlines()
    return tuple((a, b) for a, _, b in (line.partition("|") for line in lines))


def make_acoustics(studio: Studio, writer: Writer, size: int, seed: int) -> None:
    """After the consistency tasks of SALMon (Maimon et al., arXiv:2409.07437, section 3), of one synthesizer's voices.

    A member is two recordings of half a sentence each, joined in the pause at the comma. Both members have the same
    first half, and in both the second half is a recording of its own: with the same condition in the positive, with
    another in the negative. Every unordered two of conditions is asked in both orders with the same words and voice,
    so positives and negatives are the same halves in other company: neither is longer or louder on the whole, and no
    half says whether it is right. One trace is left in ``rate``: of the lengths that a sentence can have, what keeps
    its rate has the longest and the shortest, and a judge who puts length and loudness together is right in 75 %.

    :param size: pairs of each task, an even number.
    :raises ConfigError: an odd number.
    """
    if size < 2 or size % 2:
        raise ConfigError(f"mini-acoustics was asked for {size} pairs of each task. Ask for an even number, 2 or more.")
    units: list[_Unit] = []
    for task in TASKS:
        twos = list(_conditions(task, studio))
        if twos:
            units += _units(task, twos, size // 2, seed)
        else:
            writer.left_out[task] = f"of the voices {', '.join(studio.voices)} no two are fit for it"
    clauses = clause_list()
    crowd_lines = [Line(text, v) for i in range(_CROWD) for text in clauses[i] for v in studio.voices]
    own = (Line(text, h.voice, h.speed) for u in units for h in u.halves for text in clauses[u.sentence])
    studio.prepare([*crowd_lines, *own])
    crowd = [trimmed(studio.say(*line)) for line in crowd_lines]
    for u in units:
        _write(studio, writer, u, seed, crowd)


def _conditions(task: str, studio: Studio) -> Iterator[tuple[_Half, _Half]]:
    """Unordered twos of conditions, of which the halves of a negative have one each."""
    voices, gender = studio.voices, studio.gender
    match task:
        case "speaker" | "gender":
            for a, b in combinations(voices, 2):
                known = gender(a) is not None and gender(b) is not None
                if known and (gender(a) == gender(b)) == (task == "speaker"):
                    yield _Half(a, a), _Half(b, b)
        case _:
            names = {"rate": tuple(SPEEDS), "background": BACKGROUNDS, "room": tuple(ROOMS)}[task]
            for a, b in combinations(names, 2):
                for voice in voices:
                    yield _Half(voice, a), _Half(voice, b)


def _units(task: str, twos: Sequence[tuple[_Half, _Half]], n: int, seed: int) -> Iterator[_Unit]:
    """Each two of conditions as often as the others, with sentences in turn."""
    draw = random.Random(f"{seed}:{task}")
    order, sentences = list(twos), list(range(len(clause_list())))
    draw.shuffle(order)
    draw.shuffle(sentences)
    for i in range(n):
        # Where all have had their turn, they meet other sentences.
        turn, place = divmod(i, len(order))
        yield _Unit(task, i, sentences[(i + turn) % len(sentences)], order[place])


def _write(studio: Studio, writer: Writer, unit: _Unit, seed: int, crowd: Sequence[Audio]) -> None:
    """A pair for each order of the two conditions."""
    clauses = clause_list()[unit.sentence]

    @cache
    def half(side: int, how: _Half) -> Audio:
        speech = levelled(trimmed(studio.say(clauses[side], how.voice, how.speed)))
        match unit.task:
            case "background":
                # Behind each half there is another stretch of it.
                key = f"{seed}:{unit.number}:{side}:{how.condition}"
                return background(speech, how.condition, crowd, zlib.crc32(key.encode()))
            case "room":
                return in_room(speech, how.condition)
            case _:
                return speech

    for here, there in (unit.halves, unit.halves[::-1]):
        name = f"{unit.number:03d}-{here.condition}"
        first = half(0, here)
        writer.pairs.append(
            Pair(
                unit.task,
                name,
                writer.save(f"{unit.task}.{name}.goes-on", spliced(first, half(1, here))),
                writer.save(f"{unit.task}.{name}.changes", spliced(first, half(1, there))),
                voice=here.voice,
                kind=" and ".join(h.condition for h in unit.halves),
                split=first.samples.shape[-1] / RATE,
                prompt_text=clauses[0],
                positive_text=clauses[1],
                negative_text=clauses[1],
                group=f"{unit.number:03d}",
            )
        )
