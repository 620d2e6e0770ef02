"""Talking Turns: whether a judge that has heard people talk would have taken turns as the model does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError, LaliaError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.conversing import in_real_time
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.scene_kinds import EACH, scene
from lalia.evaluation.benchmarks.steps import InSteps, collect
from lalia.evaluation.folders import file_name
from lalia.evaluation.intervals import Speech
from lalia.evaluation.results import tool
from lalia.evaluation.scenes.playing import play
from lalia.evaluation.scenes.script import SceneKind
from lalia.evaluation.talking_turns import (
    LONGEST_BACKCHANNEL,
    Decisions,
    Likelihoods,
    Thresholds,
    TurnJudge,
    agreement,
    areas_under_curve,
    decided,
    macro_f1,
    read_decisions,
    read_likelihoods,
    timed,
)
from lalia.files import sha256

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["TalkingTurns"]

_RATE, _FRAME = 16_000, 0.08
_DIGITS = 4
_ABILITIES = {
    "speak_up": ("speaks up", "lets the user go on"),
    "backchannel": ("makes a backchannel", "makes none"),
    "interrupt": ("cuts in", "does not cut in"),
    "yield": ("is followed by the user", "goes on"),
    "handle_interruption": ("yields when interrupted", "goes on when interrupted"),
}


class TalkingTurns(InSteps):
    """Dialogues of a user (``B``) with the model (``A``), every 40 ms of which a judge (`bench.judge_paths`) looks at.

    Without files the model talks to the users of the bundled scenes. With `bench.path` what was said is there already,
    and the model is asked nothing: a folder of two-channel recordings, the user first, or of Full-Duplex-Bench's
    samples (``{ID}/input.wav`` and ``output.wav``), or a table of decisions as the published code writes them. The
    judge is one to be loaded, or the table of its likelihoods. Of files, ``foresight`` is how well the judge foresees
    what is done; between people, that is what it was published with.
    """

    name = "talking-turns"
    about = "whether a judge of turns would have done what is done"
    one_by_one = True

    def check(self, model: Any) -> None:
        """Where there are files, nothing is asked."""

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        return {**bench.in_session, "frame_seconds": _FRAME, "scenes_seed": bench.seed}

    def items(self, bench: "Bench") -> list[Item]:
        _judge_of(bench)
        if bench.path is not None:
            return []
        place = bench.sounds(self.name)
        found = []
        for kind in get_args(SceneKind):
            for i in range(min(bench.limit or EACH, EACH)):
                name = f"{kind}-{i + 1:02d}"
                asks = {"kind": kind, "number": i, **self.settings(bench)}
                to = str(place / f"{name}.flac")
                found.append(replace(Item.of(name, asks), asks={**asks, "talking": dict(bench.in_session), "to": to}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        return [_talk(model, i.asks) for i in items]

    def score(self, bench: "Bench", kept: Kept) -> Found:
        judge = _judge_of(bench)
        failed = dict(kept.failed)
        sounds = _dialogues(bench) if bench.path is not None else _played(kept)
        if bench.path is not None and bench.path.is_file():
            decisions: Decisions = read_decisions(bench.path)
        elif not sounds:
            raise DataError(f"No dialogue came of {len(failed)} scenes: {next(iter(failed.values()), '')}")
        else:
            decisions = _decisions(sounds)
        if isinstance(judge, TurnJudge):
            likelihoods = self._judged(bench, judge, sounds, failed)
            named = tool(judge)
        else:
            likelihoods, named = read_likelihoods(judge), {"name": judge.name, "version": sha256(judge)[:12]}
        asked = len(decisions) + len(kept.failed)
        answered = len(set(decisions) & set(likelihoods))
        notes = [f"{asked} dialogues asked, {answered} judged, {asked - answered} failed"]
        if failed:
            notes[0] += f", the first of them: {next(iter(failed.values()))}"
        return Found(
            _figures(decisions, likelihoods, bench, notes),
            [
                {"id": key, "seconds": rows[-1].end if rows else 0.0, "judged": key in likelihoods}
                for key, rows in decisions.items()
            ],
            {
                "judge": named,
                "thresholds": asdict(Thresholds()),
                "longest_backchannel": LONGEST_BACKCHANNEL,
                **(self.settings(bench) if bench.path is None else {"data": str(bench.path)}),
            },
            notes,
            {"failures": failed},
        )

    def _judged(
        self, bench: "Bench", judge: TurnJudge, sounds: Mapping[str, tuple[Path, ...]], failed: dict[str, str]
    ) -> Likelihoods:
        """What the judge says, kept like any other answer: it hears 30 s for every 40 ms."""
        if not sounds:
            raise DataError(f"{bench.path} has no sound for {judge.name} to hear. Name the file of its likelihoods.")
        items = [
            Item.of(key, {"paths": [str(p) for p in paths]}, {"paths": "+".join(map(sha256, paths))})
            for key, paths in sounds.items()
        ]
        place = bench.place(self.name, f"judged-by-{file_name(judge.name)}")
        kept = Kept(place, {"benchmark": self.name, "judge": tool(judge)})
        collect(_hear, items, kept, replace(bench.instead(judge), score_only=False), size=1)
        failed |= kept.failed
        return {key: timed(np.array(a["likelihoods"]), f"The judge of {key}") for key, a in kept.answers.items()}


def _judge_of(bench: "Bench") -> TurnJudge | Path:
    if len(bench.judge_paths) != 1:
        raise ConfigError(
            "One judge tells what turns are to be taken. Name the path of ESPnet's (Turn_taking_prediction_SWBD), or "
            "of the file of its likelihoods, with --judge."
        )
    path = Path(bench.judge_paths[0])
    return path if path.is_file() else TurnJudge(bench.judge_paths[0])


def _talk(model: Any, x: Mapping[str, Any]) -> Answer:
    with in_real_time(model, x["talking"]) as session:
        dialogue = play(scene(x["kind"], x["number"], x["scenes_seed"]), session, frame=_FRAME).dialogue()
    Path(x["to"]).parent.mkdir(parents=True, exist_ok=True)
    dialogue.save(x["to"])
    return {"audio": x["to"], "seconds": dialogue.seconds}


def _played(kept: Kept) -> dict[str, tuple[Path, ...]]:
    return {key: (Path(answer["audio"]),) for key, answer in sorted(kept.answers.items())}


def _dialogues(bench: "Bench") -> dict[str, tuple[Path, ...]]:
    """The files of each dialogue: one of two channels, or the user's and the model's."""
    assert bench.path is not None
    if bench.path.is_file():
        return {}
    samples = {p.parent.name: (p.with_name("input.wav"), p) for p in sorted(bench.path.glob("*/output.wav"))}
    whole = {p.stem: (p,) for kind in ("wav", "flac") for p in sorted(bench.path.glob(f"*.{kind}"))}
    found: dict[str, tuple[Path, ...]] = {**samples, **whole}
    if not found:
        raise DataError(f"{bench.path} has no dialogues. Put two-channel recordings there, or {{ID}}/output.wav.")
    return dict(list(found.items())[: bench.limit])


def _load(paths: Sequence[Path]) -> Audio:
    """Both sides [1, 2, N] at 16 kHz, the user first."""
    sides = [Audio.load(p, sample_rate=_RATE, mono=len(paths) == 2, check=False) for p in paths]
    if len(sides) == 2:
        n = max(s.samples.shape[-1] for s in sides)
        padded = [torch.nn.functional.pad(s.samples[0, 0], (0, n - s.samples.shape[-1])) for s in sides]
        return Audio(torch.stack(padded), _RATE)
    if sides[0].samples.shape[1] != 2:
        raise DataError(f"{paths[0]} has {sides[0].samples.shape[1]} channels. Give one for each side, the user first.")
    return sides[0]


def _decisions(sounds: Mapping[str, tuple[Path, ...]]) -> Decisions:
    speech = Speech()
    found = {}
    for key, paths in sounds.items():
        dialogue = _load(paths)
        found[key] = decided(speech(dialogue.channel(1)), speech(dialogue.channel(0)), dialogue.seconds)
    return found


def _hear(judge: TurnJudge, items: Sequence[Item]) -> Sequence[Answer]:
    heard = [judge(_load([Path(p) for p in i.asks["paths"]])) for i in items]
    return [{"likelihoods": rows.round(_DIGITS).tolist()} for rows in heard]


def _figures(decisions: Decisions, likelihoods: Likelihoods, bench: "Bench", notes: list[str]) -> list[Figure]:
    found = []
    for name, both in agreement(decisions, likelihoods, seed=bench.seed).items():
        for part, words, estimate in zip(("done", "left"), _ABILITIES[name], (both.done, both.left), strict=True):
            found.append(Figure(f"{name}.{part}", f"the judge agrees that it {words}", "share", estimate))
    for label, estimate in macro_f1(decisions, likelihoods, seed=bench.seed).items():
        found.append(Figure(f"f1.{label}", f"macro-F1, {label}", "share", estimate))
    if bench.path is None:
        return found
    try:
        for label, estimate in areas_under_curve(decisions, likelihoods, seed=bench.seed).items():
            found.append(Figure(f"foresight.{label}", f"area under the ROC curve, {label}", "share", estimate))
    except LaliaError as error:
        notes.append(f"no areas under curves: {error}")
    return found
