"""How a model takes turns: scenes with users who are simulated, played in real time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lalia.audio import Audio
from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.benchmarks.answers import overlap, same_content
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.conversing import in_real_time
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.latency import median
from lalia.evaluation.benchmarks.scene_clips import keys
from lalia.evaluation.benchmarks.scene_kinds import EACH, asked_of, scene, scenes
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.intervals import Speech
from lalia.evaluation.scenes.judging import Judged, judge
from lalia.evaluation.scenes.keeping import from_data, to_data
from lalia.evaluation.scenes.playing import play
from lalia.evaluation.scenes.script import SCENE_KINDS, Scene
from lalia.evaluation.statistics import bootstrap, bootstrap_ratio, share

__all__ = ["Scenes"]

_FRAME = 0.08
"""Seconds of sound at once, as codecs of 12.5 Hz have them."""


@dataclass(frozen=True)
class _Case:
    """A scene, and what came of it; ``failed`` is an error of the model."""

    scene: Scene
    judged: Judged | None
    failed: str = ""
    answered: bool | None = None
    seconds: float = 0.0
    work: float = 0.0

    def is_of(self, kind: str, variant: str = "") -> bool:
        return self.scene.kind == kind and variant in self.scene.variant

    def flag(self, of: Callable[[Judged], bool | None]) -> bool | None:
        """Whether it did as it should; None where the scene says nothing of it. What fails never did."""
        if self.judged is None:
            return False
        return None if self.judged.void else of(self.judged)

    def to_dict(self) -> dict[str, Any]:
        judged = {} if self.judged is None else self.judged.to_dict()
        return {
            **self.scene.to_dict(),
            "failed": self.failed,
            **judged,
            "answered": self.answered,
            "seconds": self.seconds,
            "work_seconds": self.work,
        }


class Scenes(InSteps):
    """Scenes of seven kinds, with a new session for each, that hears 80 ms at a time.

    Time is that of the scene, as if work took none; where it says "with the work", the seconds are added that this
    machine was later in a scene that were real. Turns are taken by the rule of Full-Duplex-Bench (speech that spans
    1 s, or over 3 words), and a latency counts from the end of the user's speech to the first sound, 0 where that came
    earlier. A scene whose reply is over before its line is due says nothing, and is left out.
    """

    name = "scenes"
    about = "whose turn it is: pauses, interruptions, backchannels, others who talk"
    one_by_one = True

    def check(self, model: Any) -> None:
        with in_real_time(model, {}):
            pass

    def settings(self, bench: Bench) -> Mapping[str, Any]:
        return {**bench.in_session, "frame_seconds": _FRAME, "each": EACH, "scenes_seed": bench.seed}

    def items(self, bench: Bench) -> list[Item]:
        place, found = bench.sounds(self.name), []
        for one in _script(bench):
            asks = {"kind": one.kind, "number": int(one.name.rpartition("-")[2]) - 1, "seed": bench.seed}
            item = Item.of(_id(one), {**asks, "script": one.to_dict(), **bench.answering})
            to = str(place / f"{item.id}.flac")
            found.append(replace(item, asks={**asks, "talking": dict(bench.in_session), "to": to}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        return [_play(model, i.asks) for i in items]

    def answers(self, bench: Bench) -> Kept:
        """What was played, and the replies (``typed``) to what interrupts and is interrupted, typed."""
        # Work is timed, so that nothing is played beside it.
        kept = super().answers(bench.instead(bench.model))
        again = {_id(s): _texts(s) for s in _script(bench) if _asks_again(s) and _id(s) in kept.answers}
        told = bench.typed(text for texts in again.values() for text in texts).answers
        typed = {key: [told.get(text, {"reply": ""})["reply"] for text in texts] for key, texts in again.items()}
        return replace(kept, answers={key: {**a, "typed": typed.get(key)} for key, a in kept.answers.items()})

    def score(self, bench: Bench, kept: Kept) -> Found:
        speech = Speech(shortest=0.1, padding=0.1)
        script = _script(bench)
        cases = []
        for i, one in enumerate(script):
            cases.append(_case(bench, one, kept, speech))
            bench.progress("judging scenes", i + 1, len(script))
        if all(x.failed for x in cases):
            raise ConfigError(f"{bench.name} fails in every scene: {cases[0].failed}")
        return Found(_figures(cases, bench.seed), [x.to_dict() for x in cases], self.settings(bench), _notes(cases))


def _script(bench: Bench) -> list[Scene]:
    return [one for kind in SCENE_KINDS for one in scenes(kind, bench.limit, bench.seed)]


def _id(scene: Scene) -> str:
    """In the order of the kinds."""
    return f"{SCENE_KINDS.index(scene.kind) + 1}-{scene.name}"


def _play(model: Any, x: Mapping[str, Any]) -> Answer:
    script = scene(x["kind"], x["number"], x["seed"])
    try:
        with in_real_time(model, x["talking"]) as session:
            played = play(script, session, frame=_FRAME)
    except LaliaError:
        raise
    except Exception as error:
        # Whatever it is, it is the model that failed, and the next scene is played.
        raise ConfigError(f"{type(error).__name__}: {error}") from error
    Path(x["to"]).parent.mkdir(parents=True, exist_ok=True)
    played.model.save(x["to"])
    return {"audio": x["to"], **to_data(played)}


def _case(bench: Bench, scene: Scene, kept: Kept, speech: Speech) -> _Case:
    answer = kept.answers.get(_id(scene))
    if answer is None:
        return _Case(scene, None, kept.failed[_id(scene)])
    played = from_data(scene, answer, Audio.load(answer["audio"], check=False))
    judged = judge(played, speech)
    answered = _answered(bench, scene, judged, answer["typed"]) if _asks_again(scene) else None
    return _Case(scene, judged, "", answered, played.seconds, played.work)


def _asks_again(scene: Scene) -> bool:
    return scene.kind == "interruption" and scene.variant == "question"


def _texts(scene: Scene) -> list[str]:
    """What interrupts, and what is interrupted."""
    question = asked_of(scene)
    return [scene.lines[scene.about].text, *([] if question is None else [question.text])]


def _answered(bench: Bench, scene: Scene, judged: Judged, typed: Sequence[str]) -> bool | None:
    """Whether what interrupted is answered: as if typed, or at least more like that than the question before it."""
    if judged.void:
        return None
    if not judged.took:
        return False
    told, (new, *before) = bench.normalizer(judged.written), map(bench.normalizer, typed)
    key = keys(scene.lines[scene.about].text)
    if any(word in told.split() for word in key) or same_content(told, new, key):
        return True
    return overlap(told, new) > overlap(told, before[0] if before else "")


def _figures(cases: Sequence[_Case], seed: int) -> list[Figure]:
    def of(key: str, about: str, chosen: list[_Case], flag: Callable[[Judged], bool | None]) -> Figure:
        flags = [x.flag(flag) for x in chosen]
        return Figure(key, about, "share", share([f for f in flags if f is not None]))

    def ms(key: str, about: str, seconds: list[float]) -> Figure:
        return Figure(key, about, "ms", bootstrap(median, [1000 * s for s in seconds], seed=seed))

    def kind(name: str, variant: str = "") -> list[_Case]:
        return [x for x in cases if x.is_of(name, variant)]

    def goes_on(x: Judged) -> bool:
        return x.stopped is not True or x.resumed

    def holds(x: Judged) -> bool:
        return x.stopped is not True

    def stops(x: Judged) -> bool | None:
        return x.stopped

    turns = [x.judged for x in kind("turn") if x.judged is not None and x.judged.latency is not None]
    stopped = [x.judged for x in kind("interruption") if x.judged is not None and x.judged.stop is not None]
    again = [x for x in kind("interruption", "question") if x.answered is not None or x.failed]
    after = [x.judged for x in again if x.judged is not None and x.judged.latency is not None]
    return [
        of("turn_taken", "turn: takes it", kind("turn"), lambda x: x.took and not x.early),
        ms("turn_latency", "turn: to the first sound, median", [x.latency or 0.0 for x in turns]),
        ms(
            "turn_latency_work",
            "turn: the same with the work",
            [(x.latency or 0.0) + x.latency_late for x in turns],
        ),
        of("pause_kept", "pause: silent in it", kind("pause"), lambda x: not x.early),
        of("pause_taken", "pause: takes the turn behind it all", kind("pause"), lambda x: x.took),
        of("backchannel_went_on", "backchannel: goes on, at once or again", kind("backchannel"), goes_on),
        of("backchannel_held", "backchannel: goes on at once", kind("backchannel"), holds),
        of("backchannel_answered", "backchannel: is answered", kind("backchannel"), lambda x: x.took and not x.silent),
        of("interruption_stopped", "interruption: stops", kind("interruption"), stops),
        ms("interruption_stop", "interruption: to silence, median", [x.stop or 0.0 for x in stopped]),
        ms(
            "interruption_stop_work",
            "interruption: the same with the work",
            [(x.stop or 0.0) + x.stop_late for x in stopped],
        ),
        Figure("interruption_answered", "interruption: is answered", "share", share([bool(x.answered) for x in again])),
        ms("interruption_latency", "interruption: to the answer, median", [x.latency or 0.0 for x in after]),
        of("background_silent", "background: silent, alone", kind("background", "alone"), lambda x: x.silent),
        of("background_went_on", "background: goes on, at once or again", kind("background", "in a reply"), goes_on),
        of(
            "overlap_taken", "overlap: somebody else talks too, takes it", kind("overlap", "somebody"), lambda x: x.took
        ),
        of("overlap_yielded", "overlap: as it begins, stops", kind("overlap", "as the"), stops),
        of("unaddressed_silent", "unaddressed: no answer, alone", kind("unaddressed", "alone"), lambda x: x.silent),
        of(
            "unaddressed_unanswered",
            "unaddressed: no answer, in a reply",
            kind("unaddressed", "in a"),
            lambda x: x.silent,
        ),
        Figure(
            "work",
            "seconds of work per second of scene",
            "ratio",
            bootstrap_ratio([x.work for x in cases], [x.seconds for x in cases], seed=seed),
        ),
    ]


def _notes(cases: Sequence[_Case]) -> list[str]:
    notes = ["time is that of the scene, of which each 80 ms is heard at once; work is added where it says so"]
    for kind in SCENE_KINDS:
        void = [x for x in cases if x.scene.kind == kind and x.judged is not None and x.judged.void]
        if void:
            reasons: Mapping[str, int] = {
                r: sum(x.judged is not None and x.judged.void == r for x in void)
                for r in dict.fromkeys(x.judged.void for x in void if x.judged is not None)
            }
            told = ", ".join(f"{reason} ({n})" for reason, n in reasons.items())
            notes.append(f"{kind}: {len(void)} scenes say nothing: {told}")
    lost = [x for x in cases if x.judged is not None and x.judged.ignored and not x.judged.took]
    for kind in ("turn", "pause", "overlap"):
        missed = sum(x.scene.kind == kind for x in lost)
        if missed:
            notes.append(f"{kind}: {missed} turns are not taken because what was heard was ignored")
    notes += [
        _by_variant("pause: silent in it", [x for x in cases if x.is_of("pause")], lambda x: not x.early),
        _by_variant("background: silent", [x for x in cases if x.is_of("background", "alone")], lambda x: x.silent),
        _by_variant(
            "background: goes on",
            [x for x in cases if x.is_of("background", "in a reply")],
            lambda x: x.stopped is not True,
        ),
        _by_variant("interruption: stops", [x for x in cases if x.is_of("interruption")], lambda x: x.stopped),
    ]
    failed = [x for x in cases if x.failed]
    if failed:
        notes.append(f"{len(failed)} scenes failed, and count against it, the first of them: {failed[0].failed}")
    return notes


def _by_variant(about: str, cases: Sequence[_Case], flag: Callable[[Judged], bool | None]) -> str:
    """How often a flag is true in each variant of a kind."""
    told = []
    for variant in sorted({x.scene.variant for x in cases}):
        flags = [x.flag(flag) for x in cases if x.scene.variant == variant]
        known = [f for f in flags if f is not None]
        told.append(f"{variant} {sum(known)} of {len(known)}")
    return f"{about}: {'; '.join(told)}"
