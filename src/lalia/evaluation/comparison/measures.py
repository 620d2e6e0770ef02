"""The measures of a comparison, read out of its results: estimates, and the items by which models are compared."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from lalia.evaluation.benchmarks import goals
from lalia.evaluation.benchmarks.base import Part
from lalia.evaluation.comparison.parts import labels
from lalia.evaluation.statistics import Estimate, bootstrap

__all__ = ["GROUPS", "Column", "Measure", "Reading", "read"]

GROUPS: Mapping[str, tuple[str, str]] = {
    "resynthesis": ("Resynthesis", "重新合成"),
    "units": ("Speech tokens", "語音符記"),
    "likelihood": ("Likelihood", "似然度"),
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
    :param of_tokens: whether it is one of certain tokens, and says nothing of models over others: then each tokenizer
        has a measure of its own.
    :param hangs_on: of a time, the parts that work meanwhile: models that have these alike were timed several times,
        and the median of these is the time of all.
    """

    key: str
    group: str
    about: str
    unit: str
    better: Literal["lower", "higher"] | None
    statistic: Literal["ratio", "log", "median", "exact"] = "ratio"
    chief: bool = False
    of_tokens: bool = False
    hangs_on: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What a model has in a measure.

    :param items: numerator and denominator by id, where models that have the same items can be compared by them.
    :param by: the model that answered, where another may have for it.
    """

    estimate: Estimate
    items: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    by: str | None = None


@dataclass
class Column:
    """A measure of all models that have it.

    :param references: what is no model: the original, chance, a text model.
    """

    measure: Measure
    readings: dict[str, Reading] = field(default_factory=dict)
    references: dict[str, Estimate] = field(default_factory=dict)


def _time(key: str, about: str, *hangs_on: Part) -> Measure:
    return Measure(key, "cost", about, "ms/s", "lower", "median", hangs_on=hangs_on)


_KNOWN: Mapping[str, tuple[Measure, ...]] = {
    "resynthesis": (
        Measure("wer", "resynthesis", "WER", "share", "lower", chief=True),
        Measure("cer", "resynthesis", "CER", "share", "lower"),
    ),
    "mini-phones": (
        Measure("abx_within", "units", "ABX error within speakers", "share", "lower", chief=True),
        Measure("abx_across", "units", "ABX error across speakers", "share", "lower"),
        Measure("pnmi", "units", "PNMI", "share", "higher"),
        Measure("phone_purity", "units", "phone purity", "share", "higher"),
        Measure("cluster_purity", "units", "cluster purity", "share", "higher"),
    ),
    "bit-rate": (Measure("measured", "units", "bit rate by entropy", "bit/s", "lower"),),
    "likelihood": (
        Measure(
            "bits_per_second",
            "likelihood",
            "bits for a second of speech",
            "bit/s",
            "lower",
            chief=True,
            of_tokens=True,
        ),
    ),
    "continuations": (
        Measure("geometric", "continuation", "perplexity", "perplexity", "lower", "log", chief=True),
        Measure("vert", "continuation", "VERT", "share", None),
        Measure("dnsmos", "continuation", "rating by DNSMOS", "MOS", "higher", chief=True),
        Measure("sim_o", "continuation", "similarity of the voice to that of the prompt", "ratio", "higher"),
    ),
    "speed": (
        _time("encode", "time to hear a second of sound", "tokenizer"),
        _time("lm", "time of the language model for a second of sound", "tokenizer", "lm"),
        replace(_time("token", "time of a token of the language model", "tokenizer", "lm"), unit="ms"),
        _time("vocode", "time to speak a second of sound", "tokenizer", "vocoder"),
        replace(_time("both", "time to hear and speak a second of sound", "tokenizer", "vocoder"), chief=True),
    ),
}
"""What is said of the figures of some benchmarks; of others all are shown as they are."""


def read(comparison: Mapping[str, Any]) -> list[Column]:
    """The measures of a comparison, as `gather` gives it; in the order of their groups."""
    columns: dict[str, Column] = {}
    tokenizers = [of["tokenizer"] for of in labels([model["parts"] for model in comparison["models"]])]
    for model, tokenizer in zip(comparison["models"], tokenizers, strict=True):
        found = [
            (measure, replace(reading, by=result.get("of", model["name"])))
            for name, result in model["results"].items()
            for measure, reading in _measures(name, result)
        ]
        for measure, reading in (*found, *_size(model["parts"])):
            if measure.of_tokens:
                about = f"{measure.about}, over {tokenizer}"
                measure = replace(measure, key=f"{measure.key} {tokenizer}", about=about)
            if math.isfinite(reading.estimate.value):
                columns.setdefault(measure.key, Column(measure)).readings[model["name"]] = reading
    for model in comparison["models"]:
        for name, result in model["results"].items():
            for key, label, estimate in _references(name, result, columns):
                columns[key].references[label] = estimate
    seed = comparison["settings"]["seed"]
    identities = {m["name"]: m["identities"] for m in comparison["models"]}
    for column in columns.values():
        if column.measure.hangs_on:
            column.readings = _pooled(column, identities, seed)
    order = list(GROUPS)
    return sorted(columns.values(), key=lambda c: order.index(c.measure.group))


def _pooled(column: Column, identities: Mapping[str, Mapping[str, str]], seed: int) -> dict[str, Reading]:
    """Readings in which models that have the parts alike have the same: of each item, the median of all."""
    alike: dict[Any, list[str]] = {}
    for name in column.readings:
        known = [identities[name].get(part, name) for part in column.measure.hangs_on]
        alike.setdefault(tuple(known), []).append(name)
    pooled: dict[str, Reading] = {}
    for names in alike.values():
        first, *others = (column.readings[n] for n in names)
        common = [k for k in first.items if all(k in o.items for o in others)]
        if others and common:
            values = {k: float(np.median([r.items[k][0] for r in (first, *others)])) for k in common}
            estimate = bootstrap(lambda x: np.median(x, axis=1), list(values.values()), seed=seed)
            first = Reading(estimate, {k: (v, 1.0) for k, v in values.items()}, by=first.by)
        pooled |= dict.fromkeys(names, first)
    return {n: pooled[n] for n in column.readings}


Found = Iterator[tuple[Measure, Reading]]
_Items = Mapping[str, tuple[float, float]]


def _measures(name: str, result: Mapping[str, Any]) -> Found:
    if "reductions" in result["settings"]:
        yield from _pairs(name, result)
    elif name in _KNOWN:
        figures, items = _figures(name, result), _items(name, result)
        for m in _KNOWN[name]:
            if m.key in figures:
                yield replace(m, key=f"{name}.{m.key}"), Reading(figures[m.key], items.get(m.key, {}))
    else:
        for f in result["figures"]:
            key = f"{name}.{f['key']}"
            measure = Measure(key, "benchmarks", f"{name}: {f['about']}", f["unit"], _better(key))
            yield measure, Reading(Estimate.from_dict(f))


def _figures(name: str, result: Mapping[str, Any]) -> dict[str, Estimate]:
    """By key; of continuations, those at the temperature that is shown, and those of the truth with ``_truth``."""
    shown = f"_{result['settings']['shown']}" if name == "continuations" else ""
    return {f["key"].removesuffix(shown): Estimate.from_dict(f) for f in result["figures"]}


def _items(name: str, result: Mapping[str, Any]) -> dict[str, _Items]:
    """Numerators and denominators of figures, by id."""
    items, details = result["items"], result.get("details", {})
    match name:
        case "resynthesis":
            against = result["settings"]["reference"]
            found = {
                kind: {i["id"]: i["edits"][against][kind]["resynthesis"] for i in items} for kind in ("wer", "cer")
            }
            return {
                kind: {k: (float(_errors(e)), float(e["length"])) for k, e in edits.items()}
                for kind, edits in found.items()
            }
        case "likelihood":
            return {"bits_per_second": {i["id"]: (-i["log_prob"] / math.log(2), i["seconds"]) for i in items}}
        case "mini-phones":
            return {f"abx_{speaker}": _phone_pairs(pairs) for speaker, pairs in details["pairs"].items()}
        case "continuations":
            at_shown = details[result["settings"]["shown"]]
            parts = {
                "geometric": (at_shown.get("perplexity"), "nll"),
                "dnsmos": (details.get("quality"), "mos"),
                "sim_o": (details.get("similarity"), "similarity"),
            }
            return {
                key: {i["id"]: (i[field], 1.0) for i in part["items"]}
                for key, (part, field) in parts.items()
                if part is not None
            }
        case "speed":
            return {m.key: {i["id"]: (i[m.key], 1.0) for i in items if m.key in i} for m in _KNOWN["speed"]}
    return {}


def _errors(edits: Mapping[str, int]) -> int:
    return edits["substitutions"] + edits["deletions"] + edits["insertions"]


def _phone_pairs(pairs: Sequence[Mapping[str, Any]]) -> _Items:
    """The errors of two phones, whichever is told from the other."""
    sums: dict[str, list[float]] = {}
    for pair in pairs:
        sums.setdefault(" ".join(sorted(pair["pair"])), []).append(pair["error"])
    return {pair: (math.fsum(errors), float(len(errors))) for pair, errors in sums.items()}


def _size(parts: Mapping[str, Any]) -> Found:
    rate = parts["stream"]["nominal_bit_rate"]
    if rate is not None:
        yield Measure("bit-rate.nominal", "units", "nominal bit rate", "bit/s", "lower", "exact"), Reading(_exact(rate))
    total = sum(parts["parameters"].values())
    yield (
        Measure("size.parameters", "cost", "number of parameters", "parameters", "lower", "exact"),
        Reading(_exact(total)),
    )


def _exact(value: float) -> Estimate:
    return Estimate(float(value), float(value), float(value), 1)


def _pairs(name: str, result: Mapping[str, Any]) -> Found:
    """Accuracies over pairs, each with the wins of its pairs."""
    keys = {f["key"] for f in result["figures"]}
    for figure in result["figures"]:
        task, _, reduction = figure["key"].rpartition(".")
        if reduction not in _REDUCTIONS:
            continue  # a reference
        label = name if task in name else f"{name}, {task}"
        about = f"accuracy in {label} by {_REDUCTIONS[reduction]}"
        chief = reduction in _SHOWN_FIRST and not (reduction == "mean" and f"{task}.continuation_mean" in keys)
        measure = Measure(f"{name}.{figure['key']}", "likelihood", about, "share", "higher", chief=chief)
        yield measure, Reading(Estimate.from_dict(figure), _wins(result["items"], task, reduction))


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


def _references(
    name: str, result: Mapping[str, Any], columns: Mapping[str, Column]
) -> Iterator[tuple[str, str, Estimate]]:
    """What is no model, of the columns of a benchmark: the original, the truth, chance, a text model, a cascade."""
    if "reductions" in result["settings"]:
        yield from _of_pairs(name, result, columns)
        return
    suffix, label = {
        "resynthesis": ("_original", "the original"),
        "continuations": ("_truth", "the recording going on"),
    }.get(name, ("", ""))
    if label:
        for key, estimate in _figures(name, result).items():
            column = f"{name}.{key.removesuffix(suffix)}"
            if key.endswith(suffix) and column in columns:
                yield column, label, estimate


def _of_pairs(
    name: str, result: Mapping[str, Any], columns: Mapping[str, Column]
) -> Iterator[tuple[str, str, Estimate]]:
    by_key = {f["key"]: f for f in result["figures"]}
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
                yield key, label, Estimate.from_dict(figure)
