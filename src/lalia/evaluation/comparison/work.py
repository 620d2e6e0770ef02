"""The same benchmarks for several models, each on a bench of its own, kept in a folder, so that a run that was stopped
goes on.

In the folder there are ``comparison.json``, which says who is compared in what; the recordings (``original``); what the
judges heard (``heard``); and for each model a folder as its bench has it, with ``results.jsonl``: a line for its parts
and a line for each benchmark.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lalia.data import Manifest
from lalia.errors import ConfigError, DataError, LaliaError
from lalia.evaluation.benchmarks import Bench, Judges, evaluate
from lalia.evaluation.benchmarks.base import Benchmark
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import TwoSteps
from lalia.evaluation.comparison.parts import parts_of
from lalia.evaluation.comparison.sharing import identities, same_parts
from lalia.evaluation.folders import file_name, make_folder
from lalia.evaluation.results import (
    FORMAT,
    code_identity,
    data_identity,
    environment,
    file_identity,
    finite,
    save_result,
)

__all__ = ["Subject", "compare", "gather"]

_ABOUT, _RESULTS, _ORIGINAL = "comparison.json", "results.jsonl", "original"
_PARTS = Item("model", {}, "")
"""What a model is made of, which is kept as benchmarks are."""


@dataclass
class Subject:
    """A model that is compared.

    :param name: of its own among those compared.
    :param load: gives a model with its ``recipe``, or an `Alone`; called where there is work to do.
    :param identity: of its weights, and what it is made of.
    :param folder: that it is loaded from, by which parts are known that other models have too.
    :param dtype: of its weights as they are loaded.
    """

    name: str
    load: Callable[[], Any]
    identity: str | None = None
    folder: Path | None = None
    dtype: str = "float32"

    @cached_property
    def model(self) -> Any:
        return self.load()

    def forget(self) -> None:
        """Free the memory that the model takes."""
        self.__dict__.pop("model", None)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def compare(
    subjects: Sequence[Subject],
    benchmarks: Sequence[Benchmark],
    folder: str | Path,
    *,
    judges: Judges | None = None,
    data: Manifest | None = None,
    limit: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, int, int], None] = _silent,
) -> dict[str, Any]:
    """Ask every model the same.

    What a model cannot do is left out, and the reason kept. What the folder has already is not done again. Of models
    that have alike all parts on which the answers to a benchmark hang, the first is asked, and its result is that of
    the others too.

    :param judges: for all models; those of lalia when not given, which remember what they heard.
    :param data: recordings; the benchmarks' own when not given.
    :param limit: the first items only.
    :param tell: called with a line as each benchmark begins.
    :returns: as `gather`.
    :raises ConfigError: no model or no benchmark, or two models of one name.
    :raises DataError: there are no recordings, or the folder holds results of other weights under the same name.
    """
    names = [s.name for s in subjects]
    slugs = [file_name(n) for n in names]
    if not subjects or len(set(slugs)) < len(slugs) or {_ORIGINAL, "heard"} & set(slugs):
        raise ConfigError(f"Models {', '.join(names) or 'none'} were given. Name each once, and one or more.")
    if not benchmarks:
        raise ConfigError("Nothing was asked of the models. Name a benchmark.")
    place = make_folder(folder)
    plain = Bench(
        None,
        "",
        "",
        data=data,
        limit=limit,
        seed=seed,
        judges=Judges(place / "heard") if judges is None else judges,
        progress=progress,
    )
    recordings = plain.recordings
    if not recordings:
        raise DataError("There are no recordings to work with. Name others.")
    settings = _settings(plain)
    asked = {b.name: _asked(b, plain, settings) for b in benchmarks}
    about = {
        "format": FORMAT,
        "benchmark": "compare",
        "models": names,
        "asked": {name: item.identity for name, item in asked.items()},
        "settings": settings,
        "environment": environment(),
    }
    save_result(about, place / _ABOUT)
    for u in recordings:
        target = make_folder(place / _ORIGINAL) / f"{file_name(u.id)}.flac"
        if not target.is_file():
            u.load().save(target)
    before: list[tuple[str, Mapping[str, str], Kept]] = []
    for subject in subjects:
        own = place / file_name(subject.name)
        bench = replace(
            plain, name=subject.name, source=subject.name, identity=subject.identity, dtype=subject.dtype, folder=own
        )
        kept = Kept(own / _RESULTS, {"model": dict(bench.answers_as)})
        if not _known(kept, _PARTS):
            _keep(kept, _PARTS, lambda subject=subject: _described(subject))  # type: ignore[misc]
        if _PARTS.id not in kept.answers:
            continue  # one that cannot be loaded keeps none beside it from its work
        parts = kept.answers[_PARTS.id]["identities"]
        for benchmark in benchmarks:
            item = asked[benchmark.name]
            if _known(kept, item):
                continue
            done = [(name, p, k) for name, p, k in before if _has(k, item)]
            if (same := same_parts(benchmark, parts, [p for _, p, _ in done])) is not None:
                name, _, answered = done[same]
                kept.add(item, {"of": name, **answered.answers[item.id]})
                continue
            tell(f"{subject.name}: {benchmark.name}")
            _keep(kept, item, lambda on=bench, s=subject, b=benchmark: _evaluated(on, s, b))  # type: ignore[misc]
        before.append((subject.name, parts, kept))
        subject.forget()
    return gather(place)


def _settings(bench: Bench) -> dict[str, Any]:
    recordings, judges = bench.recordings, bench.judges
    return {
        "data": data_identity(recordings),
        "given": bench.data is not None,
        "recordings": len(recordings),
        "seconds_of_recordings": sum(u.duration for u in recordings),
        "limit": bench.limit,
        "seed": bench.seed,
        "judge": judges.judge_weights,
        "second": judges.recognizer_weights,
        "text_lm": judges.text_lm_weights,
    }


def _asked(benchmark: Benchmark, bench: Bench, settings: Mapping[str, Any]) -> Item:
    """A benchmark with all that moves its figures."""
    own = {k: _said(v) for k, v in vars(benchmark).items() if not k.startswith("_")}
    own |= dict(benchmark.settings(bench)) if isinstance(benchmark, TwoSteps) else {}
    return Item.of(benchmark.name, {**settings, **own})


def _said(value: Any) -> str:
    """A setting; a file or a folder by the lists that are in it (manifests, ``.item`` files), wherever it lies."""
    if not isinstance(value, Path):
        return str(value)
    lists = [value] if value.is_file() else sorted(p for s in (".jsonl", ".item") for p in value.glob(f"*{s}"))
    return " ".join(file_identity(p) for p in lists)


def _has(kept: Kept, item: Item) -> bool:
    return item.id in kept.answers and not kept.missing([item])


def _refused(item: Item) -> Item:
    """An item that a model cannot answer, by the code that found it out; another may find otherwise."""
    return Item(item.id, {}, f"{item.identity} {code_identity()}")


def _known(kept: Kept, item: Item) -> bool:
    """Whether there is an answer, or none for a reason that will not go away."""
    return _has(kept, item) or (item.id in kept.failed and not kept.missing([_refused(item)]))


def _keep(kept: Kept, item: Item, find: Callable[[], Answer]) -> None:
    """Find an answer, or keep why there is none; where something is missing that may be there another time, it is
    tried again then.
    """
    try:
        kept.add(item, find())
    except (ConfigError, DataError) as error:
        kept.add(_refused(item), failure=str(error))
    except LaliaError as error:
        if kept.missing([item]) or kept.failed.get(item.id) != str(error):
            kept.add(item, failure=str(error))


def _described(subject: Subject) -> Answer:
    model = subject.model
    return {"parts": parts_of(model), "identities": identities(model, subject.folder), "environment": environment()}


def _evaluated(bench: Bench, subject: Subject, benchmark: Benchmark) -> Answer:
    bench = replace(bench, model=subject.model, notes=[])
    found = evaluate(bench, [benchmark], identity=subject.identity)
    answer: Answer = finite({**found["results"][benchmark.name], "environment": found["environment"]})
    return answer


def gather(folder: str | Path) -> dict[str, Any]:
    """What a folder has of a comparison.

    :returns: ``settings``, ``environment``; ``models``: of each ``name``, ``identity``, ``folder``, ``parts``,
        ``identities`` (of parts), ``results`` (as of `evaluate`, by benchmark, with ``environment``, and with ``of``:
        whose it is, where another model answered) and ``left_out`` (reasons by benchmark); ``missing``: why a model
        has nothing at all.
    :raises DataError: it holds no comparison, nothing of any model, or a file that is damaged.
    """
    place = Path(folder)
    if not (place / _ABOUT).is_file():
        raise DataError(f"{place} holds no comparison. Name a folder that lalia compare left.")
    about = _read(place / _ABOUT)
    asked = [Item(name, {}, identity) for name, identity in about["asked"].items()]
    models, missing = [], {}
    for name in about["models"]:
        own = place / file_name(name)
        kept = Kept.read(own / _RESULTS)
        if _PARTS.id not in kept.answers:
            missing[name] = kept.failed.get(_PARTS.id, "the run was stopped before it")
            continue
        there = [i.id for i in asked if kept.identities.get(i.id, "").partition(" ")[0] == i.identity]
        models.append(
            {
                "name": name,
                "identity": kept.header["model"]["identity"],
                "folder": file_name(name),
                "parts": kept.answers[_PARTS.id]["parts"],
                "identities": kept.answers[_PARTS.id]["identities"],
                "results": {n: kept.answers[n] for n in there if n in kept.answers},
                "left_out": {n: kept.failed[n] for n in there if n in kept.failed},
            }
        )
    if not models:
        name, reason = next(iter(missing.items()))
        raise DataError(f"Nothing is known of {name!r} in {place}: {reason.rstrip('.')}. Run lalia compare again.")
    return {"settings": about["settings"], "environment": about["environment"], "models": models, "missing": missing}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Remove it.") from None
    if not isinstance(found, dict) or not {"models", "asked", "settings"} <= found.keys():
        raise DataError(f"{path} is no comparison of this version. Remove it.")
    return found
