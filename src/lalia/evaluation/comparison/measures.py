"""The measures of a comparison, read out of its results: estimates, and the items by which models are compared."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lalia.evaluation.benchmarks import goals
from lalia.evaluation.statistics import Estimate, bootstrap

__all__ = ["GROUPS", "Column", "Measure", "Reading", "read", "reference_of"]

GROUPS: Mapping[str, tuple[str, str]] = {
    "resynthesis": ("Resynthesis", "重新合成"),
    "units": ("Speech tokens", "語音符記"),
    "likelihood": ("Likelihood of pairs", "成對似然度"),
    "continuation": ("Continuations", "續說"),
    "benchmarks": ("Benchmarks", "評測"),
    "cost": ("Speed and size", "速度與大小"),
}
"""Titles of the groups in which measures are shown, in English and Traditional Chinese."""

_REDUCTIONS: Mapping[str, str] = {
    "sum": "log p",
    "mean": "log p per token",
    "continuation": "log p behind the prompt",
    "continuation_mean": "log p per token behind the prompt",
    "pmi": "what the prompt adds to log p",
}
_SHOWN_FIRST = ("mean", "continuation_mean")


@dataclass(frozen=True)
class Measure:
    """What is measured.

    :param about: in words that stand behind "the lowest".
    :param better: which way; None where neither is.
    :param statistic: of the items, each a numerator and a denominator: ``ratio`` of their sums; ``log``: the
        exponential of the mean of the numerators, so that differences are factors; ``median`` of the numerators;
        ``exact``: it is known, not estimated, and has no items.
    :param chief: whether it is among what is said first, and drawn.
    """

    key: str
    group: str
    about: str
    unit: str
    better: Literal["lower", "higher"] | None
    statistic: Literal["ratio", "log", "median", "exact"] = "ratio"
    chief: bool = False


@dataclass(frozen=True)
class Reading:
    """What a model has in a measure.

    :param items: numerator and denominator by id, where models that have the same items can be compared by them.
    """

    estimate: Estimate
    items: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass
class Column:
    """A measure of all models that have it.

    :param references: what is no model: the original, chance, a text model.
    """

    measure: Measure
    readings: dict[str, Reading] = field(default_factory=dict)
    references: dict[str, Estimate] = field(default_factory=dict)


def read(comparison: Mapping[str, Any]) -> list[Column]:
    """The measures of a comparison, as `gather` gives it; in the order of their groups."""
    columns: dict[str, Column] = {}
    seed = comparison["settings"]["seed"]

    def add(name: str, measure: Measure, reading: Reading) -> None:
        if math.isfinite(reading.estimate.value):
            columns.setdefault(measure.key, Column(measure)).readings[name] = reading

    for model in comparison["models"]:
        for work, result in model["works"].items():
            found = {
                "resynthesis": lambda r: _resynthesis(r, comparison["models"]),
                "units": _units,
                "bit-rate": _bit_rate,
                "continuation": _continuation,
                "speed": lambda r: _speed(r, seed),
            }.get(work, _benchmark)(result)
            for measure, reading in found:
                add(model["name"], measure, reading)
        for measure, reading in _size(model["parts"]):
            add(model["name"], measure, reading)
    _references(comparison, columns)
    order = list(GROUPS)
    return sorted(columns.values(), key=lambda c: order.index(c.measure.group))


def _estimate(data: Mapping[str, Any]) -> Estimate:
    return Estimate(**{k: math.nan if data[k] is None else data[k] for k in ("value", "low", "high")}, n=data["n"])


def _exact(value: float) -> Estimate:
    return Estimate(float(value), float(value), float(value), 1)


Found = Iterator[tuple[Measure, Reading]]


def reference_of(models: Sequence[Mapping[str, Any]]) -> str:
    """What errors are counted against: the texts where all recordings have one, else the second recogniser."""
    items = [i for m in models if "resynthesis" in m["works"] for i in m["works"]["resynthesis"]["items"]]
    return "text" if items and all("text" in i["edits"] for i in items) else "second"


def _resynthesis(result: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Found:
    reference = reference_of(models)
    rates = result["summary"]["all"].get(reference)
    for kind, chief in (("wer", True), ("cer", False)) if rates else ():
        items = {}
        for i in result["items"]:
            edits = i["edits"][reference][kind]["resynthesis"]
            items[i["id"]] = (float(_errors(edits)), float(edits["length"]))
        measure = Measure(f"resynthesis.{kind}", "resynthesis", kind.upper(), "share", "lower", chief=chief)
        yield measure, Reading(_estimate(rates[kind]["resynthesis"]), items)


def _errors(edits: Mapping[str, int]) -> int:
    return edits["substitutions"] + edits["deletions"] + edits["insertions"]


def _units(result: Mapping[str, Any]) -> Found:
    for speaker, found in result["abx"].items():
        sums: dict[str, list[float]] = {}
        for pair in found["pairs"]:
            sums.setdefault(" ".join(sorted(pair["pair"])), []).append(pair["error"])
        items = {pair: (math.fsum(errors), float(len(errors))) for pair, errors in sums.items()}
        about = f"ABX error {speaker} speakers"
        measure = Measure(f"units.abx_{speaker}", "units", about, "share", "lower", chief=speaker == "within")
        yield measure, Reading(_estimate(found["error"]), items)
    for key, about in (("pnmi", "PNMI"), ("phone_purity", "phone purity"), ("cluster_purity", "cluster purity")):
        if "phones" in result:
            yield Measure(f"units.{key}", "units", about, "share", "higher"), Reading(_estimate(result["phones"][key]))


def _bit_rate(result: Mapping[str, Any]) -> Found:
    timed = result["with_durations"] is not None
    measure = Measure("bit_rate.measured", "units", "bit rate by entropy", "bit/s", "lower")
    yield measure, Reading(_estimate(result["with_durations" if timed else "codes"]))


def _continuation(result: Mapping[str, Any]) -> Found:
    if "perplexity" in result:
        part = result["perplexity"]
        items = {i["id"]: (i["nll"], 1.0) for i in part["items"]}
        measure = Measure("continuation.perplexity", "continuation", "perplexity", "nats", "lower", "log", chief=True)
        yield measure, Reading(_estimate(part["summary"]["geometric"]), items)
    diversity = result["diversity"]["summary"]
    yield Measure("continuation.vert", "continuation", "VERT", "ratio", None), Reading(_estimate(diversity["vert"]))
    if "quality" in result:
        part = result["quality"]
        name = part["settings"]["predictor"]["name"]
        items = {i["id"]: (i["mos"], 1.0) for i in part["items"]}
        measure = Measure("continuation.mos", "continuation", f"rating by {name}", "MOS", "higher", chief=True)
        yield measure, Reading(_estimate(part["summary"]["mos"]), items)
    if "similarity" in result:
        part = result["similarity"]
        items = {i["id"]: (i["similarity"], 1.0) for i in part["items"]}
        about = "similarity of the voice to that of the prompt"
        measure = Measure("continuation.similarity", "continuation", about, "ratio", "higher")
        yield measure, Reading(_estimate(part["summary"]["sim_o"]), items)


_TIMES = {
    "encode": "time to hear a second of sound",
    "lm": "time of the language model for a second of sound",
    "token": "time of a token of the language model",
    "vocode": "time to speak a second of sound",
}


def _speed(result: Mapping[str, Any], seed: int) -> Found:
    times = {name: {i["id"]: (i[name], 1.0) for i in result["items"] if name in i} for name in _TIMES}
    for name, items in times.items():
        if items:
            unit = "ms" if name == "token" else "ms/s"
            yield Measure(f"speed.{name}", "cost", _TIMES[name], unit, "lower", "median"), _median(items, seed)
    both = {k: (v[0] + times["vocode"][k][0], 1.0) for k, v in times["encode"].items() if k in times["vocode"]}
    if both:
        about = "time to hear and speak a second of sound"
        yield Measure("speed.resynthesis", "cost", about, "ms/s", "lower", "median", chief=True), _median(both, seed)


def _median(items: Mapping[str, tuple[float, float]], seed: int) -> Reading:
    values = [items[k][0] for k in sorted(items)]
    return Reading(bootstrap(lambda x: np.median(x, axis=1), values, seed=seed), items)


def _size(parts: Mapping[str, Any]) -> Found:
    rate = parts["stream"]["nominal_bit_rate"]
    if rate is not None:
        yield Measure("bit_rate.nominal", "units", "nominal bit rate", "bit/s", "lower", "exact"), Reading(_exact(rate))
    total = sum(parts["parameters"].values())
    yield (
        Measure("size.parameters", "cost", "number of parameters", "parameters", "lower", "exact"),
        Reading(_exact(total)),
    )


def _benchmark(result: Mapping[str, Any]) -> Found:
    for name, part in result["results"].items():
        pairs = "counts" in part["settings"]
        for figure in part["figures"]:
            key = f"{name}.{figure['key']}"
            if not pairs:
                measure = Measure(key, "benchmarks", f"{name}: {figure['about']}", figure["unit"], _better(key))
                yield measure, Reading(_estimate(figure))
                continue
            task, _, reduction = figure["key"].rpartition(".")
            if reduction not in _REDUCTIONS:
                continue  # a reference
            items = _wins(part["items"], task, reduction)
            label = name if task in name else f"{name}, {task}"
            about = f"accuracy in {label} by {_REDUCTIONS[reduction]}"
            chief = reduction in _SHOWN_FIRST and not (reduction == "mean" and _has(part, f"{task}.continuation_mean"))
            yield Measure(key, "likelihood", about, "share", "higher", chief=chief), Reading(_estimate(figure), items)


def _has(part: Mapping[str, Any], key: str) -> bool:
    return any(f["key"] == key for f in part["figures"])


def _better(key: str) -> Literal["lower", "higher"] | None:
    """As the bundled models' goals have it; None where none is set."""
    goal = goals("mini").get(key)
    if goal is None or isinstance(goal["aim"], str) or isinstance(goal["floor"], str):
        return None
    return "higher" if goal["aim"] > goal["floor"] else "lower"


def _wins(items: Sequence[Mapping[str, Any]], task: str, reduction: str) -> dict[str, tuple[float, float]]:
    """The wins of each pair, the mean over its voices."""
    wins: dict[str, list[float]] = {}
    for i in items:
        if i["task"] == task and reduction in i["wins"]:
            wins.setdefault(f"{i.get('kind')} {i.get('subtype')} {i['id']}", []).append(i["wins"][reduction])
    return {key: (math.fsum(w) / len(w), 1.0) for key, w in wins.items()}


def _references(comparison: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    """Add what is no model to the columns."""
    for model in comparison["models"]:
        if "resynthesis" in model["works"]:
            rates = model["works"]["resynthesis"]["summary"]["all"].get(reference_of(comparison["models"]), {})
            for kind, found in rates.items():
                if f"resynthesis.{kind}" in columns:
                    columns[f"resynthesis.{kind}"].references["the original"] = _estimate(found["original"])
        for result in model["works"].values():
            for name, part in result.get("results", {}).items():
                _of_pairs(name, part, columns)
    if comparison["recording"] is not None:
        for measure, reading in _continuation(comparison["recording"]):
            if measure.key in columns:
                columns[measure.key].references["the recording going on"] = reading.estimate


def _of_pairs(name: str, part: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    by_key = {f["key"]: f for f in part["figures"]}
    for key, column in columns.items():
        if column.measure.group != "likelihood" or not key.startswith(f"{name}."):
            continue
        task, _, reduction = key.removeprefix(f"{name}.").rpartition(".")
        # The text model reads what stands behind a prompt; the cascade all that it hears.
        whole = reduction.replace("continuation_mean", "mean").replace("continuation", "sum")
        behind = ", over the whole" if whole != reduction else ""
        for suffix, label in (
            ("chance", "chance"),
            (f"text_lm_{whole}", "a text model that reads"),
            (f"cascade_{whole}", f"a cascade: recogniser and text model{behind}"),
        ):
            if (figure := by_key.get(f"{task}.{suffix}")) is not None and figure["value"] is not None:
                column.references[label] = _estimate(figure)
