"""What is asked of every model that is compared, each by itself; a model that cannot do it says why."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.data import Manifest, Utterance, Word
from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.comparison.judges import Judges
from lalia.evaluation.comparison.parts import spoken_streams
from lalia.evaluation.folders import file_name, make_folder
from lalia.evaluation.generation.diversity import evaluate_diversity
from lalia.evaluation.generation.perplexity import evaluate_perplexity
from lalia.evaluation.generation.quality import evaluate_quality
from lalia.evaluation.generation.speakers import evaluate_similarity
from lalia.evaluation.representation import abx, load_items, measured_bit_rate, represent, unit_phones
from lalia.evaluation.results import tool
from lalia.evaluation.resynthesis import evaluate_resynthesis
from lalia.evaluation.sets import cached_set
from lalia.evaluation.statistics import RESAMPLES

__all__ = ["WORKS", "Task", "judge_continuations", "true_continuations"]

_TIMED = 8
"""Recordings, and seconds of each, that speed is measured on."""

_SILENCES = ("pau", "sil", "sp", "spn", "SIL")
_SHORTEST = 1.0
"""Seconds of a recording behind the prompt, without which it is no continuation."""


def _silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Task:
    """The work that is the same for all models.

    :param utterances: recordings, ordered by id.
    :param prompts: how many recordings are continued.
    :param prompt_seconds: how much of each is heard.
    :param seconds: how long is gone on.
    :param phones: a folder with an ``.item`` file and its recordings; lalia's own set when not given.
    :param limit: of sentences for ABX.
    :param seed: of sampling and resampling.
    """

    utterances: Sequence[Utterance]
    judges: Judges
    prompts: int = 20
    prompt_seconds: float = 3.0
    seconds: float = 5.0
    phones: Path | None = None
    limit: int | None = None
    seed: int = 0
    progress: Callable[[str, int, int], None] = _silent

    @property
    def prompted(self) -> list[Utterance]:
        """The recordings that are continued: those that go on themselves, where there are any."""
        long = [u for u in self.utterances if u.duration >= self.prompt_seconds + _SHORTEST]
        return list(long or self.utterances)[: self.prompts]


def resynthesis(model: Any, task: Task, place: Path) -> dict[str, Any]:
    """Words lost on the way to tokens and back; the sound lies in the folder."""
    model.resynthesize(task.utterances[0].load())  # one that cannot says so before all are tried
    result = evaluate_resynthesis(
        model,
        task.utterances,
        judge=task.judges.judge,
        second=task.judges.second,
        normalizer=task.judges.normalizer,
        seed=task.seed,
        folder=place,
        progress=lambda done, total: task.progress("resynthesis", done, total),
    )
    named: dict[str, Any] = {
        "judge": task.judges.judge,
        "second": task.judges.second,
        "normalizer": task.judges.normalizer,
    }
    return {**result, "settings": {name: tool(part) for name, part in named.items()}}


def bit_rate(model: Any, task: Task, place: Path) -> dict[str, Any]:  # noqa: ARG001  it leaves no sound
    """Bits a second by entropy, of all that the vocoder speaks, each stream coded by itself."""
    recordings: dict[str, list[Any]] = {}
    for n, u in enumerate(task.utterances):
        for name, tokens in model.encode(u.load()).items():
            if not tokens.discrete:
                raise ConfigError(f"The stream {name!r} is continuous, and so has no bit rate.")
            recordings.setdefault(name, []).append(tokens)
        task.progress("bit-rate", n + 1, len(task.utterances))
    if len(recordings) > 1:
        raise ConfigError(f"There are {len(recordings)} streams, whose bit rate together is not known.")
    (rows,) = recordings.values()
    found = measured_bit_rate(rows, [u.duration for u in task.utterances])
    return {
        "codes": found.codes.to_dict(),
        "with_durations": None if found.with_durations is None else found.with_durations.to_dict(),
        "tokens": found.tokens,
        "seconds": found.seconds,
    }


def units(model: Any, task: Task, place: Path) -> dict[str, Any]:  # noqa: ARG001  it leaves no sound
    """ABX of the stream of speech, and what its units know of phones."""
    folder = task.phones or cached_set("mini-phones")
    lists = sorted(folder.glob("*.item"))
    if len(lists) != 1:
        raise ConfigError(f"{folder} has {len(lists)} .item files. Give one.")
    items = load_items(lists[0])
    names = sorted({i.file for i in items})
    if task.limit is not None:
        # Of a set that several voices read, whole sentences.
        first = list(dict.fromkeys(n.split(".")[0] for n in names))[: task.limit]
        names = [n for n in names if n.split(".")[0] in first]
    items = [i for i in items if i.file in set(names)]
    stream = model.speech_stream
    if model.recipe is not None:
        stream = next(iter(spoken_streams(model.recipe)), stream)
    made = represent(model.tokenizer(stream), folder, names=names, progress=lambda d, n: task.progress("units", d, n))
    result: dict[str, Any] = {
        "settings": {
            "set": "mini-phones" if task.phones is None else lists[0].name,
            "recordings": len(names),
            "items": len(items),
            "distance": "identical" if made.discrete else "angular",
            "context": "any",
            "codebook": 0,
        },
        "abx": {},
        "left_out": {},
    }
    for speaker in ("within", "across"):
        try:
            found = abx(items, made, speaker=speaker, context="any")  # type: ignore[arg-type]
        except LaliaError as error:
            result["left_out"][f"abx {speaker}"] = str(error)
            continue
        pairs = [{"pair": list(pair), "error": error} for pair, error in found.pairs.items()]
        result["abx"][speaker] = {"error": found.error(seed=task.seed).to_dict(), "pairs": pairs}
    try:
        known = unit_phones(made, _phones(folder, names), ignore=_SILENCES)
        result["phones"] = {
            name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in vars(known).items()
        }
    except LaliaError as error:
        result["left_out"]["unit_phones"] = str(error)
    return result


def _phones(folder: Path, names: Sequence[str]) -> dict[str, tuple[Word, ...]]:
    known = {u.id: u.phones for u in Manifest.load(folder / "manifest.jsonl") if u.phones is not None}
    return {name: known[name] for name in names if name in known}


def continuation(model: Any, task: Task, place: Path) -> dict[str, Any]:
    """Prompts that are gone on with, one continuation each; the sound lies in the folder."""
    made: dict[str, Audio] = {}
    failures: list[dict[str, str]] = []
    make_folder(place)
    for n, u in enumerate(task.prompted):
        sound = u.load()
        try:
            found = model.continue_(sound, prompt_seconds=task.prompt_seconds, seconds=task.seconds, seed=task.seed + n)
            audio = found.audio.cut(found.prompt_seconds, None)
            audio.check(f"the continuation of {u.id}")
        except LaliaError as error:
            if n == 0 and isinstance(error, ConfigError):
                raise
            failures.append({"id": u.id, "reason": str(error)})
            continue
        audio.save(place / f"{file_name(u.id)}.wav")
        made[u.id] = audio
        task.progress("continuation", n + 1, len(task.prompted))
    return {**judge_continuations(made, task), "asked": len(task.prompted), "failures": failures}


def true_continuations(task: Task, place: Path) -> dict[str, Any]:
    """What the recordings themselves have behind the prompts, judged alike: what people are like.

    :raises ConfigError: none goes on behind its prompt.
    """
    make_folder(place)
    made = {}
    for u in task.prompted:
        if u.duration >= task.prompt_seconds + _SHORTEST:
            made[u.id] = u.load().mono().cut(task.prompt_seconds, task.seconds)
            made[u.id].save(place / f"{file_name(u.id)}.wav")
    if not made:
        raise ConfigError(f"No recording goes on {_SHORTEST:g} s behind a prompt of {task.prompt_seconds:g} s.")
    return {**judge_continuations(made, task), "asked": len(made), "failures": []}


def judge_continuations(made: Mapping[str, Audio], task: Task) -> dict[str, Any]:
    """What continuations say, how likely and how diverse that is, how it sounds, and whose voice it is.

    :param made: without their prompts, by the id of the recording.
    """
    judges, seed = task.judges, task.seed
    ids = sorted(made)
    texts = dict(zip(ids, judges.judge([made[i] for i in ids]), strict=True))
    prompts = {u.id: u for u in task.prompted}
    result: dict[str, Any] = {
        "settings": {
            "judge": tool(judges.judge),
            "prompt_seconds": task.prompt_seconds,
            "seconds": task.seconds,
            "resamples": RESAMPLES,
        },
        "items": [{"id": i, "text": texts[i], "seconds": made[i].seconds} for i in ids],
        "diversity": evaluate_diversity(texts, seed=seed),
    }
    if judges.text_lm is not None:
        result["perplexity"] = evaluate_perplexity(texts, judges.text_lm, seed=seed)
    if judges.rater is not None:
        result["quality"] = evaluate_quality(made, judges.rater, seed=seed)
    if judges.voices is not None:
        heard = {i: prompts[i].load().mono().cut(0.0, task.prompt_seconds) for i in ids}
        result["similarity"] = evaluate_similarity(made, heard, judges.voices, seed=seed)
    return result


def speed(model: Any, task: Task, place: Path) -> dict[str, Any]:  # noqa: ARG001  it leaves no sound
    """Milliseconds of work for each second of sound: hearing, one language model going on, speaking.

    What is loaded or compiled at first use is nobody's time: the first recording is done twice.
    """
    chosen = list(task.utterances)[:_TIMED]
    sounds = [u.load().mono().cut(0.0, float(_TIMED)) for u in chosen]
    items, reasons = [], dict[str, str]()
    for n, (u, sound) in enumerate(zip([chosen[0], *chosen], [sounds[0], *sounds], strict=True)):
        item: dict[str, Any] = {"id": u.id, "seconds": sound.seconds}
        started = time.perf_counter()
        streams = model.encode(sound)
        item["encode"] = 1000 * (time.perf_counter() - started) / sound.seconds
        for name, run in (("vocode", lambda: _vocoding(model, streams)), ("lm", lambda: _going_on(model, sound, task))):  # noqa: B023
            if name in reasons:
                continue
            try:
                item |= run()
            except LaliaError as error:
                reasons[name] = str(error)
        if n:
            items.append(item)
        task.progress("speed", n, len(chosen))
    return {"items": items, "left_out": reasons}


def _vocoding(model: Any, streams: Any) -> dict[str, float]:
    started = time.perf_counter()
    made = model.decode(streams)
    return {"vocode": 1000 * (time.perf_counter() - started) / made.seconds}


def _going_on(model: Any, sound: Audio, task: Task) -> dict[str, float]:
    found = model.continue_(sound, prompt_seconds=task.prompt_seconds, seconds=2.0, seed=task.seed)
    spent = 1000 * found.timings["generate_seconds"]
    return {"lm": spent / max(found.audio.seconds - found.prompt_seconds, 1e-3), "token": spent / max(found.tokens, 1)}


Run = Callable[[Any, Task, Path], dict[str, Any]]

WORKS: Mapping[str, Run] = {
    "resynthesis": resynthesis,
    "units": units,
    "bit-rate": bit_rate,
    "continuation": continuation,
    "speed": speed,
}
"""By name; each takes a model, the task, and the folder for what it leaves."""
