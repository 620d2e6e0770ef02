"""The tables of the page: figures with their intervals drawn, parts, grids of parts, and what was left out."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lalia.evaluation.comparison.differences import Effect
from lalia.evaluation.comparison.measures import Column
from lalia.evaluation.comparison.parts import AXES, alike_but_for, labels
from lalia.evaluation.comparison.plots import bar
from lalia.evaluation.comparison.words import Statement, change, number, of_effect, of_ranking, unit_of
from lalia.evaluation.statistics import Estimate

__all__ = ["chip", "effects_table", "figures", "grids", "left_out", "parts_table", "said"]

AXIS_NAMES: Mapping[str, tuple[str, str]] = {
    "tokenizer": ("Tokenizer", "符記器"),
    "lm": ("Language model", "語言模型"),
    "start": ("Start", "起點"),
    "layout": ("Layout", "排列"),
    "vocoder": ("Vocoder", "聲碼器"),
}
_ARROWS = {"lower": ("↓", "lower is better"), "higher": ("↑", "higher is better"), None: ("", "")}


def chip(n: int) -> str:
    """The number of a model, in its colour, counted from 1."""
    return f'<span class="chip c{n % 8}">{n}</span>'


def said(statements: Sequence[Statement]) -> str:
    """Sentences that compare, each with a mark that says whether models are told apart."""
    words = {"carried": "told apart", "open": "not told apart"}
    rows = [
        f'<li class="{s.verdict}"><span class="verdict" title="{words[s.verdict]}">{words[s.verdict]}</span> '
        f"<span>{escape(s.text)}</span></li>"
        for s in statements
        if s.verdict != "none"
    ]
    return f'<ul class="said">{"".join(rows)}</ul>' if rows else ""


def _head(cells: Sequence[str], *, sortable: bool = True) -> str:
    made = (f"<button type=button>{c}</button>" if sortable else c for c in cells)
    return f"<thead><tr>{''.join(f'<th scope=col>{c}</th>' for c in made)}</tr></thead>"


def _scroll(table: str, label: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'


def parts_table(models: Sequence[Mapping[str, Any]]) -> str:
    """What each model is made of."""
    names = labels([m["parts"] for m in models])
    heads = ["Model", *(AXIS_NAMES[a][0] for a in AXES), "Speech stream", "Parameters"]
    rows = []
    for n, (m, label) in enumerate(zip(models, names, strict=True), start=1):
        stream, sizes = m["parts"]["stream"], m["parts"]["parameters"]
        rate, books = stream["nominal_bit_rate"], stream["codebooks"]
        codes = "continuous" if books is None else f"{books} × {stream['codebook_size']} codes"
        codes += ", no repeats" if stream["deduplicated"] else ""
        frames = "no clock" if stream["frame_rate"] is None else f"{stream['frame_rate']:g} Hz"
        bits = "no bit rate" if rate is None else f"{rate:.0f} bit/s"
        total = sum(sizes.values())
        by_part = ", ".join(f"{k} {v / 1e6:.1f}" for k, v in sizes.items() if v)
        cells = [
            _cell(f"{bits}<small>{frames}, {codes}</small>", rate),
            _cell(f"{total / 1e6:.1f} M<small>{escape(by_part)}</small>", total),
        ]
        axes = "".join(f"<td>{escape(label[a])}</td>" for a in AXES)
        rows.append(f"<tr><th scope=row>{chip(n)} {escape(m['name'])}</th>{axes}{''.join(cells)}</tr>")
    return _scroll(f"<table class=sortable>{_head(heads)}<tbody>{''.join(rows)}</tbody></table>", "Parts")


def _cell(shown: str, value: float | None) -> str:
    return f'<td class="figure" data-value="{"" if value is None else value}">{shown}</td>'


def figures(columns: Sequence[Column], models: Sequence[str], *, seed: int, title: str) -> str:
    """Measures of one group: a row for each model, and for what each is compared with."""
    heads = ["Model"]
    for c in columns:
        arrow, way = _ARROWS[c.measure.better]
        unit = unit_of(c.measure.unit).strip()
        heads.append(
            f"{escape(c.measure.about.removeprefix('accuracy in '))}{f' <i>{escape(unit)}</i>' if unit else ''}"
            f"{f' <abbr title={chr(34)}{way}{chr(34)}>{arrow}</abbr>' if arrow else ''}"
        )
    statements = [of_ranking(c, seed=seed) for c in columns]
    rows = []
    for n, name in enumerate(models, start=1):
        if any(name in c.readings for c in columns):
            cells = (
                _measured(c.readings[name].estimate if name in c.readings else None, c, best=name in s.best)
                for c, s in zip(columns, statements, strict=True)
            )
            rows.append(f"<tr><th scope=row>{chip(n)} {escape(name)}</th>{''.join(cells)}</tr>")
    references = list(dict.fromkeys(r for c in columns for r in c.references))
    for name in references:
        cells = (_measured(c.references.get(name), c) for c in columns)
        rows.append(f'<tr class="reference"><th scope=row>{escape(name)}</th>{"".join(cells)}</tr>')
    table = f"<table class=sortable>{_head(heads)}<tbody>{''.join(rows)}</tbody></table>"
    return _scroll(table, title) + said(statements)


def _measured(estimate: Estimate | None, column: Column, *, best: bool = False) -> str:
    if estimate is None or not math.isfinite(estimate.value):
        return '<td class="figure none" data-value="">–</td>'
    unit = column.measure.unit
    everything = [*(r.estimate for r in column.readings.values()), *column.references.values()]
    bounds = [v for e in everything for v in (e.value, e.low, e.high) if math.isfinite(v)]
    low = 0.0 if column.measure.statistic == "exact" else min(bounds)
    drawn = bar(estimate, low, max(bounds), [e.value for e in column.references.values()])
    shown = number(estimate.value, unit)
    if estimate.n != 1:
        shown += f" <small>[{number(estimate.low, unit)}, {number(estimate.high, unit)}]</small>"
    kind = "figure best" if best else "figure"
    return f'<td class="{kind}" data-value="{estimate.value!r}" title="{estimate.n} units">{shown}{drawn}</td>'


def effects_table(effects: Sequence[Effect]) -> str:
    """What exchanging one part changes, by axis."""
    found = []
    for axis in AXES:
        own = [e for e in effects if e.axis == axis and e.measure.better is not None]
        if not own:
            continue
        rows = "".join(
            f'<tr class="{of_effect(e).verdict}"><th scope=row>{escape(e.one)}<small>in place of {escape(e.other)}'
            f"</small></th><td>{escape(e.measure.about)}</td><td>{escape(change(e.measure, e.difference))}</td>"
            f"<td>{'told apart' if e.difference.carried else 'not told apart'}</td></tr>"
            for e in own
        )
        heads = _head([AXIS_NAMES[axis][0], "Measure", "Change", ""])
        table = _scroll(f"<table class=sortable>{heads}<tbody>{rows}</tbody></table>", f"Effects of the {axis}")
        told = said([of_effect(e) for e in own if e.measure.chief])
        found.append(f"<h3>{AXIS_NAMES[axis][0]} <span lang=zh-Hant>{AXIS_NAMES[axis][1]}</span></h3>{told}{table}")
    return "".join(found)


def grids(columns: Sequence[Column], models: Sequence[Mapping[str, Any]]) -> str:
    """Chief measures by parts: tokenizers down, language models and their starts across, a block for each vocoder.

    Nothing where there are not two axes along which models differ in one part alone.
    """
    parts = [m["parts"] for m in models]
    names = labels(parts)
    varied = [a for a in AXES if alike_but_for(parts, a)]
    if len(varied) < 2:
        return ""
    across = [a for a in ("lm", "start", "layout") if a in varied] or ["lm"]

    def column_of(n: Mapping[str, str]) -> str:
        return ", ".join(n[a] for a in across)

    tokenizers, lms = (list(dict.fromkeys(f(n) for n in names)) for f in (lambda n: n["tokenizer"], column_of))
    found: list[str] = []
    for c in (c for c in columns if c.measure.chief):
        arrow, way = _ARROWS[c.measure.better]
        blocks = ""
        for vocoder in dict.fromkeys(n["vocoder"] for n in names):
            rows = ""
            for t in tokenizers:
                cells = ""
                for lm in lms:
                    here = [
                        (i, m)
                        for i, (m, n) in enumerate(zip(models, names, strict=True), start=1)
                        if (n["tokenizer"], column_of(n), n["vocoder"]) == (t, lm, vocoder)
                    ]
                    inside = "".join(
                        f"<div>{chip(i)} {_short(c, m['name'])}</div>" for i, m in here if m["name"] in c.readings
                    )
                    cells += f'<td class="figure">{inside or "–"}</td>'
                rows += f"<tr><th scope=row>{escape(t)}</th>{cells}</tr>"
            head = _head(["Tokenizer", *map(escape, lms)], sortable=False)
            block = f"<table><caption>Vocoder: {escape(vocoder)}</caption>{head}<tbody>{rows}</tbody></table>"
            blocks += _scroll(block, f"{c.measure.about} with {vocoder}")
        found.append(
            f'<details{"" if found else " open"}><summary>{escape(c.measure.about)} <abbr title="{way}">{arrow}</abbr>'
            f"</summary>{blocks}</details>"
        )
    title = '<h3>By parts <span lang="zh-Hant">依元件</span></h3>'
    return title + "".join(found) if found else ""


def _short(column: Column, name: str) -> str:
    e, unit = column.readings[name].estimate, column.measure.unit
    interval = f" <small>[{number(e.low, unit)}, {number(e.high, unit)}]</small>" if e.n != 1 else ""
    return f"{number(e.value, unit)}{escape(unit_of(unit))}{interval}"


def left_out(models: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> str:
    """Why a model has no figures in a benchmark, or is not there at all, and what there is to say of others."""
    rows = [
        f"<tr><th scope=row>{escape(name)}</th><td>everything</td><td>{escape(reason)}</td></tr>"
        for name, reason in missing.items()
    ]
    for n, m in enumerate(models, start=1):
        reasons = [*m["left_out"].items(), *((b, why) for b, r in m["results"].items() for why in r["notes"])]
        rows += [
            f"<tr><th scope=row>{chip(n)} {escape(m['name'])}</th><td>{escape(w)}</td><td>{escape(r)}</td></tr>"
            for w, r in reasons
        ]
    if not rows:
        return ""
    return _scroll(
        f"<table>{_head(['Model', 'Benchmark', 'Why'], sortable=False)}<tbody>{''.join(rows)}</tbody></table>",
        "Left out",
    )
