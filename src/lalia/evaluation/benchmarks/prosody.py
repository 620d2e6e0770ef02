"""How a model goes on with the pitch and the durations of a recording (pGSLM's three metrics)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.data import Utterance
from lalia.errors import DataError, LaliaError
from lalia.evaluation.benchmarks.base import Figure, Found, Unit
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps, collect
from lalia.evaluation.prosody import KINDS, ProsodyStreams, Sampled, Setting, level_of, prosody_figures, sample_prosody
from lalia.evaluation.results import data_identity
from lalia.files import sha256

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Prosodies"]

_DIGITS = 5
_WORDS = {
    "correctness": "least mean error of a prompt's samples",
    "consistency": "correlation with the prompt",
    "expressiveness": "standard deviation",
    "recorded_consistency": "correlation with the prompt, as recorded",
    "recorded_expressiveness": "standard deviation, as recorded",
}
_OF: Mapping[str, Unit] = {"pitch": "log Hz", "durations": "frames"}


class Prosodies(InSteps):
    """Correctness, consistency and expressiveness of pitch and of durations, by the protocol of pGSLM.

    A speaker's level is the mean over all recordings of his, so that it is asked for first; a recording without a
    speaker has a level of its own.
    """

    name = "prosody"
    about = "how the model goes on with pitch and durations"
    one_by_one = True

    def __init__(self, setting: Setting | None = None) -> None:
        self.setting = setting or Setting()

    def check(self, model: Any) -> None:
        ProsodyStreams.of(model)

    def _recordings(self, bench: "Bench") -> list[Utterance]:
        if bench.data is None:
            raise DataError("No recordings were named. Name a folder of some that are over 3 s with --data.")
        return sorted(bench.data, key=lambda u: u.id)[: bench.limit]

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        s = self.setting
        return {"prefix_frames": s.prefix_frames, "samples": s.samples, "seed": bench.seed} | {
            f"temperature_{kind}": s.temperature.get(kind) for kind in KINDS
        }

    def items(self, bench: "Bench") -> list[Item]:
        levels = self._levels(bench)
        found = []
        for u in self._recordings(bench):
            seed = bench.seed_of(u.id)
            asks = {**_of(u), "level": levels.get(u.speaker or ""), "seed": seed}
            found.append(Item.of(u.id, asks, {"path": sha256(u.path)}))
        return found

    def _levels(self, bench: "Bench") -> Mapping[str, float | None]:
        by_speaker: dict[str, list[Utterance]] = {}
        for u in bench.data or ():
            if u.speaker:
                by_speaker.setdefault(u.speaker, []).append(u)
        shown = {u.speaker for u in self._recordings(bench)}
        items = [
            Item.of(speaker, {"recordings": [_of(u) for u in own]}, {"recordings": data_identity(own)})
            for speaker, own in sorted(by_speaker.items())
            if speaker in shown
        ]
        kept = Kept(bench.place(self.name, "levels"), {"benchmark": self.name, "model": dict(bench.answers_as)})
        collect(_level, items, kept, bench, size=1)
        return {speaker: answer["level"] for speaker, answer in kept.answers.items()}

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            x = item.asks
            found, frames = sample_prosody(model, _load(x), self.setting, level=x["level"], seed=x["seed"])
            told = {kind: {n: _rounded(getattr(s, n)) for n in _PARTS} for kind, s in found.items()}
            answers.append({"frames": frames, "runs": len(found["pitch"].prefix) + len(found["pitch"].target), **told})
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        recordings = self._recordings(bench)
        answers = {u.id: kept.answers[u.id] for u in recordings if u.id in kept.answers}
        if not answers:
            reason = next(iter(kept.failed.values()), "")
            raise DataError(f"None of {len(recordings)} recordings is gone on with: {reason}")
        prompts = [({k: Sampled(*(a[k][n] for n in _PARTS)) for k in KINDS}, a["frames"]) for a in answers.values()]
        figures = prosody_figures(prompts, self.setting, seed=bench.seed)
        return Found(
            [
                Figure(f"{kind}.{key}", f"{kind}: {_WORDS[key]}", "r" if "consistency" in key else _OF[kind], estimate)
                for kind, own in figures.items()
                for key, estimate in own.items()
            ],
            [{"id": name, "frames": a["frames"], "runs": a["runs"]} for name, a in answers.items()],
            {
                "data": {"identity": data_identity(recordings), "recordings": len(recordings)},
                "shortest": self.setting.shortest,
                "forced": "the units and the other stream",
                **self.settings(bench),
            },
        )


_PARTS = ("prefix", "target", "samples")


def _rounded(values: Any) -> Any:
    return values.round(_DIGITS).tolist()


def _of(u: Utterance) -> dict[str, Any]:
    return {"path": str(u.path), "start": u.start, "seconds": u.duration, "channel": u.channel}


def _load(asks: Mapping[str, Any]) -> Audio:
    u = Utterance("it", Path(asks["path"]), duration=asks["seconds"], start=asks["start"], channel=asks["channel"])
    return u.load().mono()


def _level(model: Any, items: Sequence[Item]) -> Sequence[Answer]:
    def sounds(recordings: Sequence[Mapping[str, Any]]) -> Any:
        for asks in recordings:
            try:
                yield _load(asks)
            except LaliaError:
                # It fails by itself, where it can be told.
                continue

    return [{"level": level_of(model, sounds(i.asks["recordings"]))} for i in items]
