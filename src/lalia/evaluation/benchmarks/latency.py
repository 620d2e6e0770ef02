"""How long it takes until the model is heard."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lalia.errors import ConfigError
from lalia.evaluation.benchmarks.base import Figure, Found, Reply
from lalia.evaluation.benchmarks.bench import Bench
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
    ratio is resampled in pairs.
    """

    name = "latency"
    about = "time to the first sound of a reply"

    def check(self, model: Any) -> None:
        model.dialogue()

    def run(self, bench: Bench) -> Found:
        exchanges = [x for x in bench.exchanges if bench.understood(x)]
        own = [x.reply for x in exchanges]
        if not any(map(_seconds, own)):
            raise ConfigError(
                f"{bench.name} says nothing aloud, or understood no question. Choose a model that speaks."
            )
        peers = [x.peer for x in exchanges if x.peer is not None]
        found = _figures(bench, own, "", "")
        if peers:
            found += _figures(bench, peers, "peer_", f"{bench.peer_name}: ")
            ratio = _of(bench, ratio_of_medians, own, peers)
            found.append(Figure("ratio", f"first sound, as a ratio to {bench.peer_name}", "ratio", ratio))
        items = [
            {
                "id": x.question.id,
                "question_seconds": x.question.utterance.duration,
                "timings": dict(x.reply.timings),
                "seconds": _seconds(x.reply),
                "peer": None if x.peer is None else {"timings": dict(x.peer.timings), "seconds": _seconds(x.peer)},
            }
            for x in exchanges
        ]
        lost = len(bench.exchanges) - len(exchanges)
        notes = [f"{lost} of {len(bench.exchanges)} questions were not understood, and are left out"] if lost else []
        return Found(found, items, {**bench.talking, "peer": bench.peer_name}, notes)


def _of(bench: Bench, statistic: Callable[..., np.ndarray], *replies: list[Reply]) -> Estimate:
    return bootstrap(statistic, *([r.timings["first_audio_ms"] for r in side] for side in replies), seed=bench.seed)


def _seconds(reply: Reply) -> float:
    return 0.0 if reply.audio is None else reply.audio.seconds


def _figures(bench: Bench, replies: list[Reply], prefix: str, label: str) -> list[Figure]:
    found = [
        Figure(f"{prefix}first_sound", f"{label}first sound, median", "ms", _of(bench, median, replies)),
        Figure(f"{prefix}first_sound_p90", f"{label}first sound, 90 % within", "ms", _of(bench, ninetieth, replies)),
    ]
    timed = [r.timings for r in replies if all(part in r.timings for part in _PARTS)]
    before: str | None = None
    for part, about in zip(_PARTS, ("hearing", "to the first token", "from there to sound"), strict=True):
        spent = [t[part] - (0.0 if before is None else t[before]) for t in timed]
        name = part.removesuffix("_ms")
        found.append(
            Figure(f"{prefix}{name}", f"{label}{about}, median", "ms", bootstrap(median, spent, seed=bench.seed))
        )
        before = part
    spoken = [r for r in replies if _seconds(r)]
    work = [r.timings["total_ms"] / 1000 for r in spoken]
    factor = bootstrap_ratio(work, [_seconds(r) for r in spoken], seed=bench.seed)
    return [*found, Figure(f"{prefix}rtf", f"{label}real-time factor", "ratio", factor)]
