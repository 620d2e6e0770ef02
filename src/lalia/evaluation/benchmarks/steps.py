"""Benchmarks in two steps: first a system is asked, then what it answered is scored."""

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lalia.errors import ConfigError, LaliaError, MissingDependency, OutputError, WeightsError
from lalia.evaluation.benchmarks.base import PARTS, Found, Part
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["NOT_ITS_OWN", "Ask", "InSteps", "TwoSteps", "answers_of", "collect", "keep", "unanswered"]

Ask = Callable[[Any, Sequence[Item]], Sequence[Answer]]
"""Puts items to a system and gives an answer for each; raises a LaliaError where it cannot."""


NOT_ITS_OWN = (MissingDependency, OutputError, WeightsError)
"""Errors of the machine, that say nothing of the system that is asked."""


class TwoSteps(ABC):
    """A benchmark whose answers are kept, so that they are scored without the model; what it finds says how many items
    were asked, answered and failed.
    """

    name: str
    about: str
    parts: tuple[Part, ...] = PARTS

    @abstractmethod
    def check(self, model: Any) -> None: ...

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        """Whatever moves the answers, besides the items and the model."""
        return {}

    @abstractmethod
    def answers(self, bench: "Bench") -> Kept:
        """Ask for what is not kept yet.

        :returns: an answer to each item, or why there is none, and nothing else.
        :raises ConfigError: only kept answers may be scored, and some are missing.
        """

    @abstractmethod
    def score(self, bench: "Bench", kept: Kept) -> Found:
        """The figures; ``kept`` has an answer to each item, or says why there is none."""

    def run(self, bench: "Bench") -> Found:
        kept = self.answers(bench)
        found, counts = self.score(bench, kept), kept.counts()
        return replace(found, counts=counts) if counts["asked"] else found


class InSteps(TwoSteps):
    """A benchmark that asks for each item once. The order in which it asks, in how large batches and in how many
    processes changes no figure.
    """

    one_by_one = False
    """Whether items are no faster at once: then one that fails has no other asked again, and each is kept as it comes.
    """

    @abstractmethod
    def items(self, bench: "Bench") -> list[Item]:
        """All that is asked, in whatever order."""

    @abstractmethod
    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        """Put items to the model, as a batch if it takes one.

        It may be called in another process: what it needs is in the items and in the benchmark itself.
        """

    def answers(self, bench: "Bench") -> Kept:
        items = sorted(self.items(bench), key=lambda item: item.id)
        header = {"benchmark": self.name, "model": dict(bench.answers_as), "settings": dict(self.settings(bench))}
        kept = Kept(bench.place(self.name, "answers"), header)
        return collect(self.ask, items, kept, bench, size=1 if self.one_by_one else None)


def collect(ask: Ask, items: Sequence[Item], kept: Kept, bench: "Bench", *, size: int | None = None) -> Kept:
    """Have every item that has no answer yet answered by the model of the bench.

    :param size: of a batch; that of the bench when not given.
    :returns: the answers to these items alone, whatever else is kept.
    :raises ConfigError: only kept answers may be scored, and some are missing.
    """
    missing = unanswered(items, kept, bench)
    size = size or bench.batch_size
    batches = [missing[i : i + size] for i in range(0, len(missing), size)]
    done = len(items) - len(missing)

    def come(batch: Sequence[Item], results: Sequence[Answer | str]) -> None:
        nonlocal done
        for item, result in zip(batch, results, strict=True):
            keep(kept, item, result)
        done += len(batch)
        bench.progress("asking", done, len(items))

    if bench.workers == 1 or len(batches) < 2:
        for batch in batches:
            come(batch, answers_of(ask, bench.model, batch))
        return kept.of(items)
    if bench.load is None:
        raise ConfigError(f"{bench.workers} workers were asked for, and nothing says how each loads {bench.name}.")
    threads = max((os.cpu_count() or 1) // bench.workers, 1)
    with ProcessPoolExecutor(
        bench.workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(bench.load, threads)
    ) as pool:
        waiting = {pool.submit(_answer, ask, batch): batch for batch in batches}
        for future in as_completed(waiting):
            come(waiting[future], future.result())
    return kept.of(items)


def unanswered(items: Sequence[Item], kept: Kept, bench: "Bench") -> list[Item]:
    """The items that have no answer yet.

    :raises ConfigError: only kept answers may be scored, and some are missing.
    """
    missing = kept.missing(list(items))
    if missing and bench.score_only:
        raise ConfigError(
            f"{len(missing)} of {len(items)} items have no answer in {kept.path or 'any file'}. Run it without "
            "--score-only first."
        )
    return missing


def keep(kept: Kept, item: Item, result: Answer | str) -> None:
    """Keep what came of an item, as `answers_of` gives it."""
    kept.add(item, None, failure=result) if isinstance(result, str) else kept.add(item, result)


def answers_of(ask: Ask, system: Any, batch: Sequence[Item]) -> list[Answer | str]:
    """The answer to each item, or why there is none; an item that fails keeps none beside it from an answer.

    :raises LaliaError: something is missing here, or the disk is full, which is no answer of the system.
    """
    try:
        return list(ask(system, batch))
    except NOT_ITS_OWN:
        raise
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
