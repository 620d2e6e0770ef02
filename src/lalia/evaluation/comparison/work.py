"""The same work over several models: whatever each can do, kept in a folder, so that a run that was stopped goes on.

In the folder there are ``comparison.json``, which says who is compared, and a folder for each model with its parts
(``model.json``), a file for each work, and the sound that was made.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lalia.data import Manifest
from lalia.errors import ConfigError, DataError, LaliaError
from lalia.evaluation.benchmarks import Bench, evaluate
from lalia.evaluation.comparison.parts import parts_of
from lalia.evaluation.comparison.works import WORKS, Task, true_continuations
from lalia.evaluation.folders import file_name, make_folder
from lalia.evaluation.results import FORMAT, data_identity, environment, save_result

__all__ = ["RECORDING", "Subject", "compare", "gather"]

RECORDING = "recording"
"""Whose continuations are those of the recordings themselves; no model has its folder."""

_MOVED_BY: Mapping[str, tuple[str, ...]] = {
    "resynthesis": ("data", "seed", "judge", "second"),
    "units": ("phones", "limit", "seed"),
    "bit-rate": ("data",),
    "continuation": ("data", "seed", "prompts", "prompt_seconds", "seconds", "judge", "text_lm"),
    "speed": ("data", "seed", "prompt_seconds"),
}
"""The settings that move the figures of a work."""
_OF_BENCHMARKS = ("given", "limit", "seed", "judge", "second", "text_lm")


@dataclass
class Subject:
    """A model that is compared.

    :param name: of its own among those compared.
    :param load: gives a model with its ``recipe``, or an `Alone`; called where there is work to do.
    :param identity: of its weights.
    """

    name: str
    load: Callable[[], Any]
    identity: str | None = None

    @cached_property
    def model(self) -> Any:
        return self.load()

    def forget(self) -> None:
        """Free the memory that the model takes."""
        self.__dict__.pop("model", None)


@dataclass
class _Kept:
    """Files of one model, by what was done.

    :param header: what moves the figures, by work.
    """

    folder: Path
    owner: Mapping[str, Any]
    settings: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=environment)

    def header(self, work: str) -> dict[str, Any]:
        moved = {k: self.settings[k] for k in _MOVED_BY.get(work, () if work == "model" else _OF_BENCHMARKS)}
        return {"format": FORMAT, "work": work, "model": dict(self.owner), **moved}

    def done(self, work: str) -> bool:
        """
        :raises DataError: there is a result of another run.
        """
        path = self.folder / f"{work}.json"
        if not path.is_file():
            return False
        found, expected = _read(path), self.header(work)
        there = found.get("header")
        if not isinstance(there, dict) or there != expected:
            keys = [k for k in expected if not isinstance(there, dict) or there.get(k) != expected[k]]
            raise DataError(
                f"{path} is of another run: it differs in its {', '.join(keys) or 'settings'}. Name another page, or "
                "remove the file."
            )
        return found.get("result") is not None

    def do(self, work: str, run: Callable[[], dict[str, Any]]) -> None:
        """Do a work that is not done, or keep why it cannot be done."""
        if self.done(work):
            return
        result, reason = None, None
        try:
            result = run()
        except LaliaError as error:
            reason = str(error)
        record = {"header": self.header(work), "environment": self.environment, "left_out": reason, "result": result}
        save_result(record, make_folder(self.folder) / f"{work}.json")


def compare(
    subjects: Sequence[Subject],
    task: Task,
    folder: str | Path,
    *,
    works: Sequence[str] = tuple(WORKS),
    benchmarks: Sequence[str] = (),
    data: Manifest | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Do the same work with every model.

    What a model cannot do is left out, and the reason kept. What the folder has already is not done again.

    :param works: names out of `WORKS`.
    :param benchmarks: names out of `lalia.evaluation.benchmarks`.
    :param data: recordings for the benchmarks that transcribe; their own when not given.
    :param tell: called with a line as each work begins.
    :returns: as `gather`.
    :raises ConfigError: no model, two of one name, or an unknown work.
    :raises DataError: there are no recordings, or the folder holds a result of other settings.
    """
    names = [s.name for s in subjects]
    slugs = [file_name(n) for n in names]
    if not subjects or len(set(slugs)) < len(slugs) or RECORDING in slugs:
        raise ConfigError(f"Models {', '.join(names) or 'none'} were given. Name each once, and one or more.")
    if unknown := [w for w in works if w not in WORKS]:
        raise ConfigError(f"There is no work {unknown[0]!r}. Choose from {', '.join(WORKS)}.")
    if not task.utterances:
        raise DataError("There are no recordings to work with. Name others.")
    place = make_folder(folder)
    settings = _settings(task, works, benchmarks, data)
    about = {
        "format": FORMAT,
        "benchmark": "compare",
        "models": names,
        "settings": settings,
        "environment": environment(),
    }
    save_result(about, place / "comparison.json")
    kept = _Kept(place / RECORDING, {"name": RECORDING}, settings)
    chosen = {u.id: u for u in (*task.utterances, *task.prompted)}
    for u in chosen.values():
        target = make_folder(place / "original") / f"{file_name(u.id)}.flac"
        if not target.is_file():
            u.load().mono().save(target)
    for subject in subjects:
        own = _Kept(place / file_name(subject.name), {"name": subject.name, "identity": subject.identity}, settings)

        def ask(name: str, own: _Kept = own, subject: Subject = subject) -> dict[str, Any]:
            if name in WORKS:
                return WORKS[name](subject.model, task, own.folder / name)
            return evaluate(_bench(subject, task, own.folder / "asked", data), [name], identity=subject.identity)

        own.do("model", lambda subject=subject: parts_of(subject.model))  # type: ignore[misc]
        # One that cannot be loaded keeps none beside it from its work.
        for name in (*works, *benchmarks) if own.done("model") else ():
            if not own.done(name):
                tell(f"{subject.name}: {name}")
            own.do(name, lambda name=name, ask=ask: ask(name))  # type: ignore[misc]
        subject.forget()
    if "continuation" in works:
        kept.do("continuation", lambda: true_continuations(task, kept.folder / "continuation"))
    return gather(place)


def _settings(task: Task, works: Sequence[str], benchmarks: Sequence[str], data: Manifest | None) -> dict[str, Any]:
    identity = data_identity(task.utterances)
    return {
        "works": list(works),
        "benchmarks": list(benchmarks),
        "data": identity,
        "given": None if data is None else identity,
        "recordings": len(task.utterances),
        "seconds_of_recordings": sum(u.duration for u in task.utterances),
        "limit": task.limit,
        "seed": task.seed,
        "prompts": task.prompts,
        "prompt_seconds": task.prompt_seconds,
        "seconds": task.seconds,
        "phones": "mini-phones" if task.phones is None else task.phones.name,
        "judge": task.judges.judge_weights,
        "second": task.judges.second_weights,
        "text_lm": task.judges.text_lm_weights,
    }


def _bench(subject: Subject, task: Task, folder: Path, data: Manifest | None) -> Bench:
    bench = Bench(
        subject.model,
        subject.name,
        subject.name,
        data=data,
        limit=task.limit,
        seed=task.seed,
        identity=subject.identity,
        folder=folder,
        judge_weights=task.judges.judge_weights,
        recognizer_weights=task.judges.second_weights,
        text_lm_weights=task.judges.text_lm_weights,
        progress=task.progress,
    )
    # Loaded once for all models, and not before they are needed.
    for name, value in vars(task.judges).items():
        if name in ("judge", "text_lm", "normalizer") and value is not None:
            setattr(bench, name, value)
    return bench


def gather(folder: str | Path) -> dict[str, Any]:
    """What a folder has of a comparison.

    :returns: ``settings``, ``environment``; ``models``: of each ``name``, ``identity``, ``folder``, ``parts``,
        ``works`` (results by name), ``left_out`` (reasons by name) and ``environments``; ``missing``: why a model
        has nothing at all; ``recording``: the continuations of the recordings themselves, None where there are none.
    :raises DataError: it holds no comparison, nothing of any model, or a file that is damaged.
    """
    place = Path(folder)
    if not (place / "comparison.json").is_file():
        raise DataError(f"{place} holds no comparison. Name a folder that lalia compare left.")
    about = _read(place / "comparison.json")
    wanted = [*about["settings"]["works"], *about["settings"]["benchmarks"]]
    models, missing = [], {}
    for name in about["models"]:
        own = place / file_name(name)
        files = {w: _read(own / f"{w}.json") for w in ("model", *wanted) if (own / f"{w}.json").is_file()}
        if files.get("model", {}).get("result") is None:
            reason = files.get("model", {}).get("left_out") or "the run was stopped before it"
            missing[name] = reason
            continue
        models.append(
            {
                "name": name,
                "identity": files["model"]["header"]["model"]["identity"],
                "folder": file_name(name),
                "parts": files["model"]["result"],
                "works": {w: f["result"] for w, f in files.items() if w != "model" and f["result"] is not None},
                "left_out": {w: f["left_out"] for w, f in files.items() if f["left_out"] is not None},
                "environments": {w: f["environment"] for w, f in files.items()},
            }
        )
    if not models:
        name, reason = next(iter(missing.items()))
        raise DataError(f"Nothing is known of {name!r} in {place}: {reason.rstrip('.')}. Run lalia compare again.")
    true = place / RECORDING / "continuation.json"
    return {
        "settings": about["settings"],
        "environment": about["environment"],
        "models": models,
        "missing": missing,
        "recording": _read(true)["result"] if true.is_file() and "continuation" in wanted else None,
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Remove it.") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no result. Remove it.")
    return found
