"""How long it takes until the model is heard."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lalia.errors import ConfigError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.kept import Answer
from lalia.evaluation.statistics import Estimate, bootstrap, bootstrap_ratio

__all__ = ["Latency"]

_PARTS = ("encode_ms", "first_token_ms", "first_audio_ms")


def median(x: np.ndarray) -> np.ndarray:
    """[R, n] -> [R]."""
    return np.median(x, axis=1)


def ninetieth(x: np.ndarray) -> np.ndarray:
    """The 90th percentile [R, n] -> [R]."""
    return np.percentile(x, 90, axis=1)


def ratio_of_medians(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[R, n], [R, n] -> [R]."""
    return median(x) / median(y)


class Latency:
    """First sound after the end of the question, its parts, and seconds of work per second of reply.

    The question comes in pieces: what a model hears while it is spoken costs nothing, and the clock begins with the
    end of the recording. With a peer, both answer each question one after the other, who is first changing, and the
    ratio is resampled in pairs. Times are those of one process: kept replies are not timed.
    """

    name = "latency"
    about = "time to the first sound of a reply"
    at_work = True

    def check(self, model: Any) -> None:
        model.dialogue()

    def run(self, bench: Bench) -> Found:
        exchanges = bench.timed_exchanges
        sides = [exchanges.own] if exchanges.peer is None else [exchanges.own, exchanges.peer]
        answered = [q for q in exchanges.questions if all(q.id in side.answers for side in sides)]
        # Nobody had to ask again: that is said without any thought, and so is no measure of latency.
        clear = [q for q in answered if not any(side.answers[q.id]["unclear"] for side in sides)]
        own, *others = ([side.answers[q.id] for q in clear] for side in sides)
        if not any(reply["seconds"] for reply in own):
            raise ConfigError(
                f"{bench.name} says nothing aloud, or understood no question. Choose a model that speaks."
            )
        found = _figures(bench, own, "", "")
        peers = others[0] if others else []
        if peers:
            found += _figures(bench, peers, "peer_", f"{bench.peer_name}: ")
            ratio = _of(bench, ratio_of_medians, own, peers)
            found.append(Figure("ratio", f"first sound, as a ratio to {bench.peer_name}", "ratio", ratio))
        items = [
            {
                "id": q.id,
                "question_seconds": q.utterance.duration,
                **_timed(own[i]),
                "peer": _timed(peers[i]) if peers else None,
            }
            for i, q in enumerate(clear)
        ]
        asked, lost = len(exchanges.questions), len(answered) - len(clear)
        notes = [f"{lost} of {asked} questions were not understood, and are left out"] if lost else []
        if len(answered) < asked:
            reason = next(reason for side in sides for reason in side.failed.values())
            notes.append(f"{asked - len(answered)} of {asked} questions have no reply: {reason}")
        return Found(found, items, {**bench.talking, "peer": bench.peer_name}, notes)


def _timed(reply: Answer) -> dict[str, Any]:
    return {"timings": dict(reply["timings"]), "seconds": reply["seconds"]}


def _of(bench: Bench, statistic: Callable[..., np.ndarray], *replies: Sequence[Answer]) -> Estimate:
    first = ([r["timings"]["first_audio_ms"] for r in side] for side in replies)
    return bootstrap(statistic, *first, seed=bench.seed)


def _figures(bench: Bench, replies: Sequence[Answer], prefix: str, label: str) -> list[Figure]:
    found = [
        Figure(f"{prefix}first_sound", f"{label}first sound, median", "ms", _of(bench, median, replies)),
        Figure(f"{prefix}first_sound_p90", f"{label}first sound, 90 % within", "ms", _of(bench, ninetieth, replies)),
    ]
    timed = [r["timings"] for r in replies if all(part in r["timings"] for part in _PARTS)]
    before: str | None = None
    for part, about in zip(_PARTS, ("hearing", "to the first token", "from there to sound"), strict=True):
        spent = [t[part] - (0.0 if before is None else t[before]) for t in timed]
        name = part.removesuffix("_ms")
        found.append(
            Figure(f"{prefix}{name}", f"{label}{about}, median", "ms", bootstrap(median, spent, seed=bench.seed))
        )
        before = part
    spoken = [r for r in replies if r["seconds"]]
    work = [r["timings"]["total_ms"] / 1000 for r in spoken]
    factor = bootstrap_ratio(work, [r["seconds"] for r in spoken], seed=bench.seed)
    return [*found, Figure(f"{prefix}rtf", f"{label}real-time factor", "ratio", factor)]
