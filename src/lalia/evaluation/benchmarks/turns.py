"""Whether a long conversation costs more and more."""

from typing import Any

import numpy as np

from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.memory import resident
from lalia.evaluation.statistics import bootstrap

__all__ = ["Turns", "slope"]

TURNS = 20


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much y grows with each unit of x, by least squares: [R, n], [R, n] -> [R]."""
    x = x - x.mean(axis=1, keepdims=True)
    return (x * (y - y.mean(axis=1, keepdims=True))).sum(axis=1) / np.square(x).sum(axis=1)


class Turns:
    """Twenty spoken questions in one conversation: memory after each turn, and the time to its first sound.

    Memory counts the whole process, with all that this program holds; its slope is what a turn adds. Nothing is kept:
    it is of one process.
    """

    name = "turns"
    about = "twenty turns in one conversation"
    at_work = True

    def check(self, model: Any) -> None:
        model.dialogue()

    def run(self, bench: Bench) -> Found:
        asked = questions(bench.limit)
        turns = TURNS if bench.limit is None else min(bench.limit, TURNS)
        dialogue = bench.model.dialogue(**bench.talking)
        items = []
        for i in range(turns):
            question = asked[i % len(asked)]
            reply = dialogue.answer(question.load())
            items.append(
                {"turn": i + 1, "id": question.id, "reply": reply.text, "resident_mb": resident()}
                | {"timings": dict(reply.timings)}
            )
            bench.progress("talking", i + 1, turns)
        # What the first turn makes once for all is not growth.
        later = items[1:] or items
        number = [x["turn"] for x in later]
        sound = [x["timings"]["first_audio_ms"] for x in later]
        memory = [x["resident_mb"] for x in later]
        return Found(
            [
                Figure(
                    "latency_slope", "first sound, growth", "ms/turn", bootstrap(slope, number, sound, seed=bench.seed)
                ),
                Figure("memory_slope", "memory, growth", "MB/turn", bootstrap(slope, number, memory, seed=bench.seed)),
            ],
            items,
            {**bench.talking, "turns": turns, "from_turn": 2 if len(items) > 1 else 1},
        )
