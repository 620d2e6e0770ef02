"""What becomes of sound that is no question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from lalia.audio import Audio
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import questions, recordings
from lalia.evaluation.benchmarks.conversing import replied
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import NOT_ITS_OWN, InSteps
from lalia.evaluation.folders import file_name
from lalia.evaluation.memory import fingerprint
from lalia.evaluation.statistics import share

__all__ = ["Robustness", "hard_sounds"]

_RATE = 16_000
_MONOLOGUE_SECONDS = 300.0


@dataclass(frozen=True)
class Sound:
    """Something to be heard.

    :param kind: what should become of it: speech is answered, other sound is not, of another language either is well.
    """

    name: str
    kind: Literal["speech", "no speech", "foreign"]
    audio: Audio


def hard_sounds(seed: int = 0, monologue_seconds: float = _MONOLOGUE_SECONDS) -> Iterator[Sound]:
    """Noise, tones, silence, bursts, and speech that is clipped, faint, foreign or long."""
    chance = np.random.default_rng(seed)
    time = np.arange(4 * _RATE) / _RATE
    white = chance.standard_normal(len(time))
    yield Sound("white noise", "no speech", _audio(0.1 * white))
    rumble = np.cumsum(white - white.mean())
    yield Sound("rumble", "no speech", _audio(0.3 * rumble / np.abs(rumble).max()))
    yield Sound("music-like tones", "no speech", _audio(_melody(time, chance)))
    yield Sound("silence", "no speech", _audio(0 * time))
    # Voiced bursts five times a second, falling in pitch and strength: "ha ha ha".
    pitch = np.cumsum(320 - 25 * time) / _RATE
    voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 12)) + 0.5 * white
    bursts = np.clip(np.sin(2 * np.pi * 5 * time), 0, None) ** 2 * np.exp(-0.4 * time)
    yield Sound("laughter-like bursts", "no speech", _audio(0.2 * bursts * voice))
    plain = questions(2)
    for question in plain:
        samples = question.load().samples[0, 0].numpy()
        loud = samples / np.abs(samples).max()
        yield Sound(f"clipped, {question.id}", "speech", _audio(np.clip(12 * loud, -1, 1)))
        yield Sound(f"very quiet, {question.id}", "speech", _audio(0.004 * loud))
    for u in recordings("french-"):
        yield Sound(f"another language, {u.id}", "foreign", u.load())
    parts, length = [], 0
    while length < monologue_seconds * _RATE:
        for question in questions():
            parts += [question.load().samples[0, 0].numpy(), np.zeros(_RATE // 2, np.float32)]
            length += sum(map(len, parts[-2:]))
    yield Sound("a monologue", "speech", _audio(np.concatenate(parts)[: round(monologue_seconds * _RATE)]))


def _audio(samples: np.ndarray) -> Audio:
    return Audio(samples.astype(np.float32), _RATE)


def _melody(time: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Chords of four notes a second, each with overtones that die away."""
    notes = 220 * 2 ** (chance.integers(0, 12, (3, 16)) / 12)
    place = np.minimum((4 * time).astype(int), 15)
    decay = np.exp(-6 * (time % 0.25))
    tones = [np.sin(2 * np.pi * k * notes[voice, place] * time) / k for voice in range(3) for k in (1, 2, 3)]
    return 0.1 * decay * np.sum(tones, axis=0)


@cache
def _sounds(seed: int) -> Sequence[Sound]:
    return tuple(hard_sounds(seed))


class Robustness(InSteps):
    """Each sound begins a conversation: it is answered, the model says that it did not understand, or it is refused.

    Refused is what an error of lalia names (a silent recording); any other error is a crash. Either is an answer.
    """

    name = "robustness"
    about = "sound that is no question, or a hard one"
    one_by_one = True

    def check(self, model: Any) -> None:
        model.dialogue(speak=False)

    def settings(self, bench: Bench) -> Mapping[str, Any]:
        return {**bench.talking, "monologue_seconds": _MONOLOGUE_SECONDS}

    def items(self, bench: Bench) -> list[Item]:
        place, found = bench.sounds(self.name), []
        for i, sound in enumerate(_sounds(bench.seed)[: bench.limit]):
            asks = {"sound": i, "seed": bench.seed, "talking": dict(bench.talking)}
            item = Item.of(_id(i, sound), asks, {"sound": fingerprint(sound.audio)})
            found.append(replace(item, asks={**asks, "to": str(place / f"{file_name(item.id)}.flac")}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        return [_try(model, _sounds(i.asks["seed"])[i.asks["sound"]], i.asks) for i in items]

    def score(self, bench: Bench, kept: Kept) -> Found:
        items = [
            {"name": s.name, "kind": s.kind, "seconds": s.audio.seconds, **_outcome(kept.answers[_id(i, s)])}
            for i, s in enumerate(_sounds(bench.seed)[: bench.limit])
        ]
        outcomes = {kind: [x["outcome"] for x in items if x["kind"] == kind] for kind in ("speech", "no speech")}
        survived = share([x["outcome"] != "crashed" for x in items])
        answered = share([o == "answered" for o in outcomes["speech"]])
        declined = share([o in ("unclear", "refused") for o in outcomes["no speech"]])
        return Found(
            [
                Figure("survived", "without a crash", "share", survived),
                Figure("answered", "speech that is answered", "share", answered),
                Figure("declined", "other sound that is not answered", "share", declined),
            ],
            items,
            self.settings(bench),
        )


def _id(number: int, sound: Sound) -> str:
    """In the order in which they are heard."""
    return f"{number + 1:02d} {sound.name}"


def _try(model: Any, sound: Sound, asks: Mapping[str, Any]) -> Answer:
    try:
        return replied(model, sound.audio, asks["to"], asks["talking"])
    except NOT_ITS_OWN:
        raise
    except LaliaError as error:
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is looked for
        return {"crashed": f"{type(error).__name__}: {error}"}


def _outcome(answer: Answer) -> dict[str, Any]:
    for outcome in ("refused", "crashed"):
        if outcome in answer:
            return {"outcome": outcome, "reason": answer[outcome]}
    outcome = "unclear" if answer["unclear"] else "answered" if answer["reply"] or answer["seconds"] else "silent"
    return {"outcome": outcome, **{k: answer[k] for k in ("heard", "reply", "timings")}}
