"""Benchmarks in two steps: first a system is asked, then what it answered is scored."""

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.benchmarks.base import PARTS, Found, Part
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Ask", "InSteps", "collect"]

Ask = Callable[[Any, Sequence[Item]], Sequence[Answer]]
"""Puts items to a system and gives an answer for each; raises a LaliaError where it cannot."""


class InSteps(ABC):
    """A benchmark that asks for each item once. The order in which it asks, in how large batches and in how many
    processes changes no figure.
    """

    name: str
    about: str
    one_by_one = False
    """Whether items are no faster at once: then one that fails has no other asked again, and each is kept as it comes.
    """
    parts: tuple[Part, ...] = PARTS

    @abstractmethod
    def check(self, model: Any) -> None: ...

    @abstractmethod
    def items(self, bench: "Bench") -> list[Item]:
        """All that is asked, in whatever order."""

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        """Whatever moves the answers, besides the items and the model."""
        return {}

    @abstractmethod
    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        """Put items to the model, as a batch if it takes one.

        It may be called in another process: what it needs is in the items and in the benchmark itself.
        """

    @abstractmethod
    def score(self, bench: "Bench", kept: Kept) -> Found:
        """The figures; ``kept`` has an answer to each item, or says why there is none."""

    def run(self, bench: "Bench") -> Found:
        items = sorted(self.items(bench), key=lambda item: item.id)
        header = {"benchmark": self.name, "model": dict(bench.answers_as), "settings": dict(self.settings(bench))}
        kept = Kept(bench.place(self.name, "answers"), header)
        return self.score(bench, collect(self.ask, items, kept, bench, size=1 if self.one_by_one else None))


def collect(ask: Ask, items: Sequence[Item], kept: Kept, bench: "Bench", *, size: int | None = None) -> Kept:
    """Have every item that has no answer yet answered by the model of the bench.

    :param size: of a batch; that of the bench when not given.
    :raises ConfigError: only kept answers may be scored, and some are missing.
    """
    missing = kept.missing(list(items))
    if missing and bench.score_only:
        raise ConfigError(
            f"{len(missing)} of {len(items)} items have no answer in {kept.path or 'any file'}. Run it without "
            "--score-only first."
        )
    size = size or bench.batch_size
    batches = [missing[i : i + size] for i in range(0, len(missing), size)]
    done = len(items) - len(missing)

    def keep(batch: Sequence[Item], results: Sequence[Answer | str]) -> None:
        nonlocal done
        for item, result in zip(batch, results, strict=True):
            kept.add(item, None, failure=result) if isinstance(result, str) else kept.add(item, result)
        done += len(batch)
        bench.progress("asking", done, len(items))

    if bench.workers == 1 or len(batches) < 2:
        for batch in batches:
            keep(batch, answers_of(ask, bench.model, batch))
        return kept
    if bench.load is None:
        raise ConfigError(f"{bench.workers} workers were asked for, and nothing says how each loads {bench.name}.")
    threads = max((os.cpu_count() or 1) // bench.workers, 1)
    with ProcessPoolExecutor(
        bench.workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(bench.load, threads)
    ) as pool:
        waiting = {pool.submit(_answer, ask, batch): batch for batch in batches}
        for future in as_completed(waiting):
            keep(waiting[future], future.result())
    return kept


def answers_of(ask: Ask, system: Any, batch: Sequence[Item]) -> list[Answer | str]:
    """The answer to each item, or why there is none; an item that fails keeps none beside it from an answer."""
    try:
        return list(ask(system, batch))
    except LaliaError as error:
        if len(batch) == 1:
            return [str(error)]
    return [result for item in batch for result in answers_of(ask, system, [item])]


_system: Any = None
"""Of a process that answers for another."""


def _begin(load: Callable[[], Any], threads: int) -> None:
    import torch

    global _system  # noqa: PLW0603  a process has one, and its tasks find it nowhere else
    torch.set_num_threads(threads)
    _system = load()


def _answer(ask: Ask, batch: Sequence[Item]) -> list[Answer | str]:
    return answers_of(ask, _system, batch)
