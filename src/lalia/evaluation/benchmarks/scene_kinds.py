"""The scenes of ``lalia eval``: fifty and more of each kind, the same each time from a seed."""

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from lalia.audio import Audio
from lalia.data import Utterance
from lalia.evaluation.benchmarks.bundled import Question, questions
from lalia.evaluation.benchmarks.scene_clips import pause_of, said
from lalia.evaluation.scenes.script import RATE, At, Line, Reply, Scene, SceneKind
from lalia.evaluation.scenes.sounds import NOISES, far, gain, parted

__all__ = ["EACH", "asked_of", "opening", "scene", "scenes"]

EACH = 52
"""Scenes of a kind."""

_BEFORE = (0.5, 1.2)
"""Seconds of silence before anybody speaks."""

_PAUSE = (0.3, 1.2)
_ALONE = 3.0
"""Seconds in which nobody answers what is not for the model."""

_GOES_ON = 0.7
"""Seconds of a reply behind a line that show that it goes on."""


@cache
def _sound(clip: Utterance) -> Audio:
    return clip.load(sample_rate=RATE)


def _line(clip: Utterance, when: At | Reply, **rest: str) -> Line:
    by = rest.get("by", "user")
    return Line(_sound(clip), when, "other" if by == "other" else "user", str(clip.text), clip.id)


def asked_of(scene: Scene) -> Question | None:
    """The bundled question that opens a scene, where one does."""
    return next((q for q in questions() if q.id == scene.lines[0].name), None)


def opening(chance: random.Random, i: int) -> tuple[Question, Line]:
    """A question that has no short answer, so that its reply can be spoken into."""
    every = [q for q in questions() if not q.key]
    question = every[i % len(every)]
    return question, _line(question.utterance, _beginning(chance))


def _beginning(chance: random.Random) -> At:
    return At(round(chance.uniform(*_BEFORE), 3))


def _of(chance: random.Random, clips: list[Utterance]) -> Utterance:
    return clips[chance.randrange(len(clips))]


def _turn(i: int, chance: random.Random) -> Scene:
    """A question, then silence; behind the first forty, quieter ones."""
    every = questions()
    line = _line(every[i % len(every)].utterance, _beginning(chance))
    quiet = i >= len(every)
    if quiet:
        line = Line(gain(line.sound, -12), line.when, "user", line.text, line.name)
    return Scene("turn", f"turn-{i + 1:02d}", (line,), variant="quiet" if quiet else "plain")


def _pause(i: int, chance: random.Random) -> Scene:
    """A question with a pause in mid-sentence, as long ones as short ones."""
    every = questions()
    question = every[(7 * i) % len(every)]
    low, high = _PAUSE
    seconds = round(low + (high - low) * ((17 * i) % EACH) / (EACH - 1), 3)
    sound, pause = parted(_sound(question.utterance), pause_of(question.id), seconds)
    line = Line(sound, _beginning(chance), "user", question.text, question.id, pause)
    variant = "up to 0.6 s" if seconds <= 0.6 else "up to 0.9 s" if seconds <= 0.9 else "up to 1.2 s"
    return Scene("pause", f"pause-{i + 1:02d}", (line,), variant=variant)


def _backchannel(i: int, chance: random.Random) -> Scene:
    """A short sign of listening while the reply is heard."""
    question, first = opening(chance, i)
    clip = _of(chance, said("backchannel", question.utterance.speaker))
    line = _line(clip, Reply(round(chance.uniform(0.6, 1.4), 3)))
    return Scene("backchannel", f"backchannel-{i + 1:02d}", (first, line), 1, str(clip.text), 2.0, _GOES_ON)


def _interruption(i: int, chance: random.Random) -> Scene:
    """Another question while the reply is heard, or a word that stops it, in turns."""
    question, first = opening(chance, i)
    kind, variant = (("again", "question"), ("stop", "stop"))[i % 2]
    clip = _of(chance, said("again" if kind == "again" else "stop", question.utterance.speaker))
    line = _line(clip, Reply(round(chance.uniform(0.6, 1.4), 3)))
    # A reply to what stops it is not waited for.
    wait, enough = (4.0, 1.8) if variant == "question" else (2.0, 1.2)
    return Scene("interruption", f"interruption-{i + 1:02d}", (first, line), 1, variant, wait, enough)


def _around(i: int, chance: random.Random, speaker: str | None, when: At | Reply) -> tuple[Line, str]:
    """People far away, who are not the user, every other time; else noise, one after the other."""
    if i % 2 == 0:
        clips = [q.utterance for q in questions() if q.utterance.speaker != speaker] + said("other")
        clip = _of(chance, clips)
        sound = far(_sound(clip), chance.randrange(1 << 30), reverberation=round(chance.uniform(0.3, 0.8), 2))
        return Line(sound, when, "other", str(clip.text), clip.id), "people"
    name = list(NOISES)[i // 2 % len(NOISES)]
    sound = NOISES[name](round(chance.uniform(1.5, 3.0), 2), chance.randrange(1 << 30))
    return Line(sound, when, "noise", "", name), name


def _background(i: int, chance: random.Random) -> Scene:
    """People far away or noise: while nobody speaks, or while the reply is heard, in turns."""
    if i % 2 == 0:
        line, what = _around(i // 2, chance, None, _beginning(chance))
        return Scene("background", f"background-{i + 1:02d}", (line,), 0, f"{what}, alone", _ALONE, _GOES_ON)
    question, first = opening(chance, i)
    line, what = _around(i // 2, chance, question.utterance.speaker, Reply(round(chance.uniform(0.3, 0.9), 3)))
    return Scene("background", f"background-{i + 1:02d}", (first, line), 1, f"{what}, in a reply", 2.0, _GOES_ON)


def _overlap(i: int, chance: random.Random) -> Scene:
    """Somebody talks while the user asks; or the user goes on as the reply begins; in turns."""
    if i % 2 == 0:
        question = questions()[(3 * i) % len(questions())]
        line = _line(question.utterance, _beginning(chance))
        aside = gain(_sound(_of(chance, said("other"))), -6)
        # It is over before he is.
        start = line.when.seconds + chance.uniform(0, 0.4)
        aside = aside.cut(0, max(line.when.seconds + line.span.end - 0.2 - start, 0.3))
        other = Line(aside, At(round(start, 3)), "other", "", "other, cut")
        return Scene("overlap", f"overlap-{i + 1:02d}", (line, other), 0, "somebody else")
    question, first = opening(chance, i)
    line = _line(_of(chance, said("more", question.utterance.speaker)), Reply(round(chance.uniform(0.05, 0.3), 3)))
    return Scene("overlap", f"overlap-{i + 1:02d}", (first, line), 1, "as the reply begins")


def _unaddressed(i: int, chance: random.Random) -> Scene:
    """The user talks to somebody else: before he asks anything, or while the reply is heard; in turns."""
    if i % 2 == 0:
        aside = said("aside")
        line = _line(aside[i // 2 % len(aside)], _beginning(chance))
        return Scene("unaddressed", f"unaddressed-{i + 1:02d}", (line,), 0, "alone", _ALONE, 1.2)
    question, first = opening(chance, i)
    line = _line(_of(chance, said("aside", question.utterance.speaker)), Reply(round(chance.uniform(0.6, 1.4), 3)))
    return Scene("unaddressed", f"unaddressed-{i + 1:02d}", (first, line), 1, "in a reply", _ALONE, 1.2)


_MAKE: Mapping[SceneKind, Callable[[int, random.Random], Scene]] = {
    "turn": _turn,
    "pause": _pause,
    "backchannel": _backchannel,
    "interruption": _interruption,
    "background": _background,
    "overlap": _overlap,
    "unaddressed": _unaddressed,
}


def scenes(kind: SceneKind, limit: int | None = None, seed: int = 0) -> Iterator[Scene]:
    """The scenes of a kind, in order; each is made as it is asked for.

    :param limit: the first ones only.
    :param seed: of what is said, by whom, when, and how loud.
    """
    for i in range(EACH if limit is None else min(limit, EACH)):
        yield scene(kind, i, seed)


def scene(kind: SceneKind, i: int, seed: int = 0) -> Scene:
    """One of them."""
    return _MAKE[kind](i, random.Random(f"{seed} {kind} {i}"))
