"""How a model takes turns: scenes with users who are simulated, played in real time."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.benchmarks.answers import overlap, same_content
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.latency import median
from lalia.evaluation.benchmarks.scene_clips import keys
from lalia.evaluation.benchmarks.scene_kinds import EACH, asked_of, scenes
from lalia.evaluation.intervals import Speech
from lalia.evaluation.scenes.judging import Judged, judge
from lalia.evaluation.scenes.playing import Played, play
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


class Scenes:
    """Scenes of seven kinds, with a new session for each, that hears 80 ms at a time.

    Time is that of the scene, as if work took none; where it says "with the work", the seconds are added that this
    machine was later in a scene that were real. Turns are taken by the rule of Full-Duplex-Bench (speech that spans
    1 s, or over 3 words), and a latency counts from the end of the user's speech to the first sound, 0 where that came
    earlier. A scene whose reply is over before its line is due says nothing, and is left out.
    """

    name = "scenes"
    about = "whose turn it is: pauses, interruptions, backchannels, others who talk"

    def check(self, model: Any) -> None:
        model.session()

    def run(self, bench: Bench) -> Found:
        speech = Speech(shortest=0.1, padding=0.1)
        script = [scene for kind in SCENE_KINDS for scene in scenes(kind, bench.limit, bench.seed)]
        cases = []
        for i, scene in enumerate(script):
            cases.append(_play(bench, scene, speech))
            bench.progress("playing scenes", i + 1, len(script))
        if all(x.failed for x in cases):
            raise ConfigError(f"{bench.name} fails in every scene: {cases[0].failed}")
        return Found(
            _figures(cases, bench.seed),
            [x.to_dict() for x in cases],
            {**bench.talking, "frame_seconds": _FRAME, "each": EACH, "scenes_seed": bench.seed},
            _notes(cases),
        )


def _play(bench: Bench, scene: Scene, speech: Speech) -> _Case:
    try:
        with ExitStack() as stack:
            session = bench.model.session(**bench.talking)
            close = getattr(session, "close", None)
            if close is not None:
                stack.callback(close)
            played = play(scene, session, frame=_FRAME)
        judged = judge(played, speech)
        return _Case(scene, judged, "", _answered(bench, played, judged), played.seconds, played.work)
    except LaliaError as error:
        return _Case(scene, None, str(error))
    except Exception as error:  # noqa: BLE001  whatever it is, it is the model that failed, and the next scene is played
        return _Case(scene, None, f"{type(error).__name__}: {error}")


def _answered(bench: Bench, played: Played, judged: Judged) -> bool | None:
    """Whether what interrupted is answered: as if typed, or at least more like that than the question before it."""
    scene = played.scene
    if not (scene.kind == "interruption" and scene.variant == "question") or judged.void:
        return None
    if not judged.took:
        return False
    question, line = asked_of(scene), scene.lines[scene.about]
    told, new = bench.normalizer(judged.written), bench.normalizer(bench.typed(bench.model, line.text))
    key = keys(line.text)
    if any(word in told.split() for word in key) or same_content(told, new, key):
        return True
    old = "" if question is None else bench.normalizer(bench.typed(bench.model, question.text))
    return overlap(told, new) > overlap(told, old)


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
