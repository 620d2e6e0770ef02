"""Pairs from real speech: an utterance against itself played backwards, or with its words in another order."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lalia.audio import Audio
from lalia.data import Utterance, Word
from lalia.errors import DataError, LaliaError
from lalia.evaluation.folders import file_name, make_folder
from lalia.evaluation.pairs import Pair, save_pairs
from lalia.evaluation.splicing import reordered_words, reversed_audio

__all__ = ["TASKS", "LeftOut", "make_speech_pairs"]

PAUSE_DEPTH = 20.0
"""Where words run into one another, their exchange leaves transitions that no mouth makes. Below this depth (dB)
there is hardly a transition to break, and what a model dislikes is the order."""


@dataclass(frozen=True)
class Task:
    """What a pair asks for, and the names of its members: what is the same in two tasks has one name."""

    meaning: str
    positive: str
    negative: str


TASKS: Mapping[str, Task] = {
    "reversed": Task("the utterance against itself played backwards; neither is spliced", "as-it-is", "reversed"),
    "reordered": Task(
        "the words in their order against the same words in another, both spliced between all words",
        "spliced",
        "reordered",
    ),
    "rephrased": Task(
        f"the same, spliced only where the sound is {PAUSE_DEPTH:g} dB below the speech: in pauses and closures",
        "spliced-at-pauses",
        "rephrased",
    ),
    "spliced": Task(
        "control: the untouched utterance against its spliced self in order; 50 % means that splicing costs nothing",
        "as-it-is",
        "spliced",
    ),
}
"""What can be asked of real speech, by name."""


@dataclass(frozen=True)
class LeftOut:
    """An utterance of which no pair of a task could be made, and why."""

    task: str
    id: str
    reason: str


def make_speech_pairs(
    utterances: Iterable[Utterance],
    folder: str | Path,
    *,
    words: Callable[[Utterance, Audio], tuple[Word, ...]],
    tasks: Iterable[str] = tuple(TASKS),
    seed: int = 0,
) -> tuple[list[Pair], list[LeftOut]]:
    """Write the recordings of pairs as 16-bit FLAC, mono, and ``pairs.jsonl`` beside them.

    :param folder: it is made where it does not exist.
    :param words: the words of an utterance with their times.
    :param tasks: names out of `TASKS`.
    :param seed: of the orders.
    :returns: the pairs in the order of the utterances, and what was left out.
    :raises DataError: a task that does not exist.
    :raises OutputError: the folder cannot be written.
    """
    wanted = tuple(tasks)
    if unknown := sorted(set(wanted) - set(TASKS)):
        raise DataError(f"There is no task {unknown[0]!r}. Choose from {', '.join(TASKS)}.")
    target = make_folder(folder)
    pairs, left_out = [], []
    for u in utterances:
        audio: Audio | None = None
        for task in wanted:
            try:
                if audio is None:
                    audio = u.load()
                positive, negative = _members(task, u, audio, words, seed)
            except LaliaError as error:
                left_out.append(LeftOut(task, u.id, str(error)))
                continue
            names = (TASKS[task].positive, TASKS[task].negative)
            files = [target / f"{file_name(u.id)}.{name}.flac" for name in names]
            for file, member in zip(files, (positive, negative), strict=True):
                member.save(file)
            pairs.append(Pair(task, u.id, files[0], files[1]))
    if not pairs:
        reason = left_out[0].reason if left_out else "There are no utterances."
        raise DataError(f"No pair could be made: {reason}")
    save_pairs(pairs, target / "pairs.jsonl")
    return pairs, left_out


def _members(
    task: str, u: Utterance, audio: Audio, words: Callable[[Utterance, Audio], tuple[Word, ...]], seed: int
) -> tuple[Audio, Audio]:
    match task:
        case "reversed":
            return audio, reversed_audio(audio)
        case "reordered":
            return reordered_words(audio, words(u, audio), seed=seed, key=u.id)
        case "rephrased":
            return reordered_words(audio, words(u, audio), seed=seed, key=u.id, depth=PAUSE_DEPTH)
        case _:
            return audio, reordered_words(audio, words(u, audio), seed=seed, key=u.id)[0]
