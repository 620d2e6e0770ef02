"""How long a model works for a second of sound."""

import time
from typing import Any

import numpy as np

from lalia.audio import Audio
from lalia.errors import DataError, LaliaError
from lalia.evaluation.benchmarks.base import Figure, Found, Unit
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.results import data_identity
from lalia.evaluation.statistics import bootstrap

__all__ = ["Speed"]

_LONGEST = 8.0
"""Seconds of each recording that speed is measured on."""

_FIGURES: tuple[tuple[str, str, Unit], ...] = (
    ("both", "time to hear and speak a second of sound", "ms/s"),
    ("encode", "time to hear a second of sound", "ms/s"),
    ("vocode", "time to speak a second of sound", "ms/s"),
    ("lm", "time of the language model for a second of sound", "ms/s"),
    ("token", "time of a token of the language model", "ms"),
)


class Speed:
    """Milliseconds of work for each second of sound, the median over recordings: hearing, one language model that goes
    on, speaking.

    What is loaded or compiled at first use is nobody's time: the first recording is done twice. Nothing is kept:
    times are of one process.

    :param prompt_seconds: that the language model goes on from.
    :param seconds: that it goes on for.
    :param recordings: that are timed; of eight, no model of twenty could be told from the others.
    """

    name = "speed"
    about = "time of work for a second of sound"
    at_work = True

    def __init__(self, prompt_seconds: float = 3.0, seconds: float = 2.0, recordings: int = 16) -> None:
        self.prompt_seconds, self.seconds, self.recordings = prompt_seconds, seconds, recordings

    def check(self, model: Any) -> None:
        model.encode(questions(1)[0].load())

    def run(self, bench: Bench) -> Found:
        chosen = bench.recordings[: self.recordings]
        if not chosen:
            raise DataError("There are no recordings to work with. Name others.")
        sounds = [u.load().cut(0.0, _LONGEST) for u in chosen]
        items, reasons = [], dict[str, str]()
        for n, (u, sound) in enumerate(zip([chosen[0], *chosen], [sounds[0], *sounds], strict=True)):
            item: dict[str, Any] = {"id": u.id, "seconds": sound.seconds, **self._timed(bench, sound, reasons)}
            if n:
                items.append(item)
            bench.progress("timing", n, len(chosen))
        figures = []
        for name, about, unit in _FIGURES:
            values = [i[name] for i in items if name in i]
            if values:
                median = bootstrap(lambda x: np.median(x, axis=1), values, seed=bench.seed)
                figures.append(Figure(name, about, unit, median))
        settings = {
            "data": {"identity": data_identity(chosen), "recordings": len(chosen)},
            "longest": _LONGEST,
            "prompt_seconds": self.prompt_seconds,
            "seconds": self.seconds,
        }
        return Found(figures, items, settings, [f"{name} was not timed: {why}" for name, why in reasons.items()])

    def _timed(self, bench: Bench, sound: Audio, reasons: dict[str, str]) -> dict[str, float]:
        """Milliseconds; ``reasons`` has what cannot be done, which is not tried again."""
        started = time.perf_counter()
        streams = bench.model.encode(sound)
        found = {"encode": 1000 * (time.perf_counter() - started) / sound.seconds}
        try:
            if "speaking" not in reasons:
                started = time.perf_counter()
                made = bench.model.decode(streams)
                found["vocode"] = 1000 * (time.perf_counter() - started) / made.seconds
                found["both"] = found["encode"] + found["vocode"]
        except LaliaError as error:
            reasons["speaking"] = str(error)
        try:
            if "the language model" not in reasons:
                found |= self._going_on(bench, sound)
        except LaliaError as error:
            reasons["the language model"] = str(error)
        return found

    def _going_on(self, bench: Bench, sound: Audio) -> dict[str, float]:
        found = bench.model.continue_(sound, prompt_seconds=self.prompt_seconds, seconds=self.seconds, seed=bench.seed)
        spent = 1000 * found.timings["generate_seconds"]
        seconds = max(found.audio.seconds - found.prompt_seconds, 1e-3)
        return {"lm": spent / seconds, "token": spent / max(found.tokens, 1)}
