"""The folders of Full-Duplex-Bench, read, written and scored.

A folder of them has one for each sample, ``{ID}/``: ``input.wav`` (the user), ``output.wav`` (the model, on the same
time line), ``output.json`` (its words), and by the task ``pause.json``, ``turn_taking.json`` or ``interrupt.json``
(v1), or ``metadata.json`` with ``clean_input.*`` and ``clean_output.*``, which are without the overlap (v1.5).

NTPP (arXiv:2506.00975) reports how models handle reflective pauses and interruptions; no protocol or scorer of it was
found. The nearest that is published is ``pause_handling`` (its ``takes_turn`` is how often the model does not wait) and
``user_interruption``; figures from them are not NTPP's.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lalia.audio import Audio
from lalia.data import Word
from lalia.errors import ConfigError, DataError
from lalia.evaluation.full_duplex import backchannels, divergence, latency, takes_turn
from lalia.evaluation.intervals import Interval, Speech
from lalia.evaluation.overlap_handling import (
    Behaviour,
    Exchange,
    behaviour_by_words,
    behaviour_shares,
    timing,
)
from lalia.evaluation.statistics import Estimate, mean, share
from lalia.evaluation.timed_words import HearsWords

__all__ = ["TASKS", "Task", "read_event", "read_words", "score_folders", "write_words"]

Task = Literal["pause_handling", "backchannel", "smooth_turn_taking", "user_interruption", "overlap"]
TASKS: tuple[Task, ...] = ("pause_handling", "backchannel", "smooth_turn_taking", "user_interruption", "overlap")
"""Those of v1, and ``overlap`` for all four of v1.5."""

Rating = Callable[[str, str, str], float | None]
"""Rates, from 0 to 5, the reply to an interruption: from the question before it, the interruption, and the reply."""


def read_words(path: str | Path) -> tuple[Word, ...]:
    """The words of ``output.json``; an end that is null is NaN.

    :raises DataError: it is not there, or not what it should be.
    """
    try:
        chunks = json.loads(Path(path).read_text("utf-8"))["chunks"]
        return tuple(Word(str(x["text"]).strip(), *(_number(t) for t in x["timestamp"])) for x in chunks)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Give a recogniser that makes it.") from None
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise DataError(
            f'{path} has no words with times ({error}). Write {{"text": ..., "chunks": [{{"text": ..., '
            '"timestamp": [start, end]}]}.'
        ) from None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def write_words(words: Sequence[Word], path: str | Path) -> None:
    """Write words as ``output.json`` has them."""
    chunks = [
        {"text": w.text, "timestamp": [round(w.start, 4), None if math.isnan(w.end) else round(w.end, 4)]}
        for w in words
    ]
    data = {"text": " ".join(w.text for w in words), "chunks": chunks}
    Path(path).write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", "utf-8")


def read_event(path: str | Path) -> Mapping[str, Any]:
    """The first event of ``pause.json``, ``turn_taking.json`` or ``interrupt.json``; ``timestamp`` is its interval.

    :raises DataError: there is none.
    """
    try:
        event = json.loads(Path(path).read_text("utf-8"))[0]
        start, end = event["timestamp"]
        return {**event, "timestamp": Interval(float(start), float(end))}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. It is part of the data of this task.") from None
    except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
        raise DataError(f'{path} has no event ({error}). Write [{{"timestamp": [start, end]}}].') from None


def score_folders(
    folder: str | Path,
    task: Task,
    *,
    hears: HearsWords | None = None,
    speech: Speech | None = None,
    human: Mapping[str, Sequence[float]] | None = None,
    rate: Rating | None = None,
    judge: Callable[[Exchange, Interval], Behaviour] = behaviour_by_words,
) -> dict[str, Any]:
    """Score what a model said in the samples of one task.

    :param folder: with a folder for each sample.
    :param hears: makes the word files that are missing, and leaves them there.
    :param speech: finds where somebody speaks, for ``backchannel`` and ``overlap``; Silero when not given.
    :param human: when people say something short, by sample (their ``icc_gt_distribution.json``), for the divergence.
    :param rate: rates what is said after an interruption; a language model, upstream.
    :param judge: tells the behaviour of v1.5, where a sample has its clean pair.
    :returns: ``figures`` by name, with their intervals; ``behaviour``, shares of each; ``items`` by sample.
    :raises DataError: a file that is missing or is not what it should be; there is no sample.
    :raises ConfigError: an unknown task.
    """
    if task not in TASKS:
        raise ConfigError(f"There is no task {task!r}. There are {', '.join(TASKS)}.")
    samples = sorted((p.parent for p in Path(folder).glob("*/output.wav")), key=_by_number)
    if not samples:
        raise DataError(f"{folder} has no samples. Each is a folder in it with output.wav.")
    # One detector hears all of them: to load it takes longer than to hear.
    speech_of = cache(lambda: speech or Speech())
    score = {
        "pause_handling": lambda p: {"takes_turn": takes_turn(_words(p, hears))},
        "backchannel": lambda p: _backchannel(p, hears, speech_of(), human),
        "smooth_turn_taking": lambda p: _turn_taking(p, hears),
        "user_interruption": lambda p: _interruption(p, hears, rate),
        "overlap": lambda p: _overlap(p, hears, speech_of(), judge),
    }[task]
    items = [{"id": p.name, **score(p)} for p in samples]
    tags = [x["behaviour"] for x in items if x.get("behaviour") is not None]
    return {"task": task, "figures": _figures(items), "behaviour": behaviour_shares(tags), "items": items}


def _by_number(path: Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdigit() else -1, path.name)


def _words(sample: Path, hears: HearsWords | None, name: str = "output", after: float = 0.0) -> tuple[Word, ...]:
    """The words of a recording; those that are missing are heard, in what comes ``after`` some seconds."""
    path = sample / f"{name}.json"
    if not path.exists() and hears is not None:
        sound = Audio.load(sample / f"{name}.wav", mono=True, check=False)
        heard = hears(sound.cut(after)) if after < sound.seconds else ()
        write_words([Word(w.text, after + w.start, after + w.end) for w in heard], path)
    return read_words(path)


def _turn_taking(sample: Path, hears: HearsWords | None) -> dict[str, Any]:
    words = _words(sample, hears)
    # The event is the change of turns, and begins where the user's turn ends.
    ended = read_event(sample / "turn_taking.json")["timestamp"].start
    return {"takes_turn": takes_turn(words), "latency": latency(words, ended)}


def _interruption(sample: Path, hears: HearsWords | None, rate: Rating | None) -> dict[str, Any]:
    event = read_event(sample / "interrupt.json")
    ended = event["timestamp"].end
    # Only what is said behind the interruption counts, and only that is in output.json.
    words = _words(sample, hears, after=ended)
    taken = takes_turn(words)
    item: dict[str, Any] = {"takes_turn": taken, "latency": latency(words, ended)}
    if rate is not None:
        said = " ".join(w.text for w in words)
        asked = [str(event.get(name, "")) for name in ("context", "interrupt")]
        item["rating"] = rate(asked[0], asked[1], said) if taken else None
    return item


def _backchannel(
    sample: Path, hears: HearsWords | None, speech: Speech, human: Mapping[str, Sequence[float]] | None
) -> dict[str, Any]:
    sound = Audio.load(sample / "output.wav", mono=True, check=False)
    found = backchannels(speech(sound), _words(sample, hears), sound.seconds)
    item: dict[str, Any] = {"takes_turn": found.takes_turn, "frequency": found.frequency, "times": found.times}
    if human is not None:
        if sample.name not in human:
            raise DataError(f"Nobody listened to sample {sample.name!r} in the human distribution. Give that of all.")
        item["divergence"] = divergence(found.times, sound.seconds, human[sample.name])
    return item


def _overlap(
    sample: Path, hears: HearsWords | None, speech: Speech, judge: Callable[[Exchange, Interval], Behaviour]
) -> dict[str, Any]:
    user, model = (speech(Audio.load(sample / f"{x}.wav", mono=True, check=False)) for x in ("input", "output"))
    found = timing(user, model)
    item: dict[str, Any] = {"stop": found.stop, "response": found.response, "behaviour": None}
    item["stop_seconds"] = _average(found.stop)
    item["response_seconds"] = _average(found.response)
    metadata, names = sample / "metadata.json", ("clean_input", "input", "clean_output", "output")
    if metadata.exists() and all((sample / f"{n}.wav").exists() or (sample / f"{n}.json").exists() for n in names):
        try:
            start, end = json.loads(metadata.read_text("utf-8"))["timestamps"]
            window = Interval(float(start), float(end))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f'{metadata} has no overlap ({error}). Write {{"timestamps": [start, end]}}.') from None
        item["behaviour"] = judge(Exchange(*(_words(sample, hears, n) for n in names)), window)
    return item


def _average(found: Sequence[Interval]) -> float | None:
    return sum(x.seconds for x in found) / len(found) if found else None


def _figures(items: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """The mean of everything that the items tell in numbers."""
    figures = {}
    for key in _keys(items):
        values = [x[key] for x in items if x.get(key) is not None]
        figures[key] = share(values) if key == "takes_turn" else mean(values)
    return figures


def _keys(items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    known = ("takes_turn", "latency", "rating", "frequency", "divergence", "stop_seconds", "response_seconds")
    yield from (key for key in known if any(key in x for x in items))
