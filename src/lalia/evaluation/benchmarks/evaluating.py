"""Running benchmarks on a model, and the result that is left."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.benchmarks.base import Benchmark, Figure, Found, is_at_work
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.registry import Goal, find, goals
from lalia.evaluation.results import FORMAT, environment, save_result, tool
from lalia.evaluation.statistics import RESAMPLES

__all__ = ["evaluate"]


def evaluate(
    bench: Bench,
    names: Sequence[str | Benchmark] = (),
    *,
    out: str | Path | None = None,
    identity: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run benchmarks on the model of the bench.

    What the model cannot do is left out where all are run, and an error where it was asked for by name. The result is
    written after each benchmark, so that a run that breaks leaves what it found.

    :param names: of benchmarks, or benchmarks with settings of their own; all when empty.
    :param out: a JSON file.
    :param identity: of the model, for the record.
    :param tell: called with a line as each benchmark begins.
    :returns: ``model``, ``settings``, ``environment``; ``results`` by benchmark: ``figures``, ``items``, ``settings``,
        ``notes``, and where answers are kept ``counts`` (items ``asked``, ``answered`` and ``failed``, and why, as
        `Kept.counts`); ``left_out``: why a benchmark was not run.
    :raises ConfigError: an unknown name, a model that can do nothing of it, or nothing came of any benchmark.
    """
    chosen = find(names)
    if bench.peer is not None:
        bench.peer.dialogue(speak=False)
    left_out: dict[str, str] = {}
    result: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": "eval",
        "model": {"source": bench.source, **bench.answers_as, "identity": identity},
        "settings": {
            "seed": bench.seed,
            "limit": bench.limit,
            "against": bench.peer_name,
            "interval": 0.95,
            "resamples": RESAMPLES,
            "normalizer": tool(bench.normalizer),
        },
        "environment": environment() | {"threads": str(torch.get_num_threads()), "cpus": str(os.cpu_count())},
        "results": {},
        "left_out": left_out,
    }
    able = []
    for benchmark in chosen:
        try:
            _check(benchmark, bench)
            able.append(benchmark)
        except LaliaError as error:
            if names:
                raise
            left_out[benchmark.name] = str(error)
    if not able:
        reason = next(iter(left_out.values()))
        raise ConfigError(f"{bench.name} can do nothing of what the benchmarks ask: {reason}")
    for benchmark in able:
        tell(f"{benchmark.name}: {benchmark.about}")
        try:
            found = benchmark.run(bench)
        except LaliaError as error:
            if len(able) == 1:
                raise
            left_out[benchmark.name] = str(error)
            continue
        result["results"][benchmark.name] = _record(benchmark, found, goals(bench.name))
        if out is not None:
            save_result(result, out)
    if not result["results"]:
        first = able[0].name
        raise ConfigError(f"Nothing came of {len(able)} benchmarks; {first}, the first of them: {left_out[first]}")
    return result


def _check(benchmark: Benchmark, bench: Bench) -> None:
    if bench.score_only:
        if is_at_work(benchmark):
            raise ConfigError(f"{benchmark.name} measures a model that works. Run it without --score-only.")
        return
    try:
        benchmark.check(bench.model)
    except AttributeError as error:
        raise ConfigError(f"{bench.name} cannot be asked for {benchmark.name} ({error}). Choose another.") from None


def _record(benchmark: Benchmark, found: Found, wanted: Mapping[str, Goal]) -> dict[str, Any]:
    return {
        "about": benchmark.about,
        "figures": [_figure(f, wanted.get(f"{benchmark.name}.{f.key}")) for f in found.figures],
        "settings": dict(found.settings),
        "notes": list(found.notes),
        **({} if found.counts is None else {"counts": dict(found.counts)}),
        **({"details": dict(found.details)} if found.details else {}),
        "items": list(found.items),
    }


def _figure(figure: Figure, goal: Goal | None) -> dict[str, Any]:
    data = {"key": figure.key, "about": figure.about, "unit": figure.unit, **figure.estimate.to_dict()}
    return data | ({} if goal is None else dict(goal))
