"""One page of HTML that holds a whole comparison: tables, drawings and sound, with nothing from outside."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lalia.evaluation.comparison.differences import effects
from lalia.evaluation.comparison.measures import GROUPS, Column, read
from lalia.evaluation.comparison.plots import Point, Side, plot
from lalia.evaluation.comparison.sound import data_url
from lalia.evaluation.comparison.tables import (
    chip,
    effects_table,
    figures,
    grids,
    left_out,
    parts_table,
    said,
)
from lalia.evaluation.comparison.words import of_effect, of_ranking
from lalia.evaluation.folders import file_name
from lalia.files import atomic_write

__all__ = ["save_page", "summary"]

_NAMED = 6
"""Models that a title has room for."""

_COSTS = ("bit-rate.measured", "speed.both", "size.parameters")
"""What qualities are drawn against."""


def summary(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a comparison and what they say, as plain data; it stands in the page too.

    :param comparison: as `gather` gives it.
    """
    columns = read(comparison)
    seed = comparison["settings"]["seed"]
    ranked = [(c, of_ranking(c, seed=seed)) for c in columns]
    changes = effects(comparison["models"], columns, seed=seed)
    return {
        "models": [m["name"] for m in comparison["models"]],
        "measures": {
            c.measure.key: {
                "about": c.measure.about,
                "unit": c.measure.unit,
                "better": c.measure.better,
                "models": {n: r.estimate.to_dict() for n, r in c.readings.items()},
                "references": {n: e.to_dict() for n, e in c.references.items()},
                "said": s.text,
                "verdict": s.verdict,
            }
            for c, s in ranked
        },
        "effects": [
            {
                "axis": e.axis,
                "one": e.one,
                "other": e.other,
                "measure": e.measure.key,
                "pairs": [list(p) for p in e.pairs],
                "p": e.difference.p,
                **e.difference.estimate.to_dict(),
                "said": of_effect(e).text,
                "verdict": of_effect(e).verdict,
            }
            for e in changes
        ],
        "left_out": {m["name"]: m["left_out"] for m in comparison["models"]},
        "missing": comparison["missing"],
    }


def save_page(comparison: Mapping[str, Any], folder: str | Path, output: str | Path, *, audio: int = 4) -> Path:
    """Write the page.

    :param comparison: as `gather` gives it.
    :param folder: where the sound lies that was made.
    :param audio: recordings that can be heard, with what every model makes of each.
    :returns: the file.
    :raises OutputError: it cannot be written.
    """
    columns, seed = read(comparison), comparison["settings"]["seed"]
    models = comparison["models"]
    changes = effects(models, columns, seed=seed)
    chief = [c for c in columns if c.measure.chief]
    grid = grids(columns, models)
    # What a part does says more than which of many models came first.
    first = [of_effect(e) for e in changes if e.measure.chief and e.difference.carried]
    first += [of_ranking(c, seed=seed) for c in chief]
    alike = effects_table(changes) or "<p>No two models differ in one part alone.</p>"
    sections = {
        "found": ("Findings", "發現", said(first) or "<p>Nothing was measured.</p>"),
        "parts": ("Parts", "組成", parts_table(models)),
        "effects": ("One part exchanged", "單一元件的影響", alike + grid),
        "plots": ("Quality against cost", "品質與成本", _plots(chief, columns, models)),
        "figures": ("All figures", "所有數據", _figures(columns, models, seed)),
        "sound": ("Sound side by side", "並排聆聽", _sound(comparison, Path(folder), audio)),
        "left": ("Left out and noted", "未評項目與附註", left_out(models, comparison["missing"])),
        "how": ("How it was measured", "評測方式", _how(comparison)),
    }
    sections = {key: s for key, s in sections.items() if s[2]}
    names = ", ".join(m["name"] for m in models) if len(models) <= _NAMED else f"{len(models)} models"
    template = Path(__file__).with_name("page.html").read_text("utf-8")
    # Written last, so that no name of a model is taken for a place.
    filled = {
        "TITLE": escape(f"Comparison of {names}"),
        "LEDE": _lede(comparison["settings"]),
        "MODELS": " ".join(
            f'<span class="model">{chip(n)} {escape(m["name"])}</span>' for n, m in enumerate(models, start=1)
        ),
        "NAV": "".join(f'<a href="#{key}">{title}</a>' for key, (title, _, _) in sections.items()),
        "BODY": "".join(
            f'<section id="{key}"><h2>{title} <span lang="zh-Hant">{other}</span></h2>{body}</section>'
            for key, (title, other, body) in sections.items()
        ),
        "DATA": json.dumps(summary(comparison), ensure_ascii=False).replace("<", "\\u003c"),
    }
    pieces = template.split("@@")
    text = "".join(filled[p] if i % 2 else p for i, p in enumerate(pieces))
    target = Path(output)
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _lede(settings: Mapping[str, Any]) -> str:
    count, seconds = settings["recordings"], settings["seconds_of_recordings"]
    first = "" if settings["limit"] is None else f"; the first {settings['limit']} items only, for a first look"
    return escape(f"The same work for every model: {count} recordings of {seconds:.0f} s together{first}.")


def _figures(columns: Sequence[Column], models: Sequence[Mapping[str, Any]], seed: int) -> str:
    found, names = "", [m["name"] for m in models]
    for group, (title, other) in GROUPS.items():
        own = [c for c in columns if c.measure.group == group]
        # Pairs have one figure for each way to make a score of token likelihoods: the first is seen, the others on ask.
        first = [c for c in own if c.measure.chief or group != "likelihood"]
        rest = [c for c in own if c not in first]
        if own:
            found += f'<h3>{title} <span lang="zh-Hant">{other}</span></h3>'
            found += figures(first, names, seed=seed, title=title) if first else ""
        if rest:
            more = figures(rest, names, seed=seed, title=title)
            found += f"<details><summary>Other scores of the same pairs</summary>{more}</details>"
    return found


def _plots(chief: Sequence[Column], columns: Sequence[Column], models: Sequence[Mapping[str, Any]]) -> str:
    """Every chief quality against every cost that two models or more have."""
    costs = [c for key in _COSTS for c in columns if c.measure.key == key]
    drawn = []
    for quality in (c for c in chief if c.measure.key not in _COSTS and c.measure.better is not None):
        for cost in costs:
            points = [
                Point(m["name"], n, cost.readings[m["name"]].estimate, quality.readings[m["name"]].estimate)
                for n, m in enumerate(models, start=1)
                if m["name"] in cost.readings and m["name"] in quality.readings
            ]
            if len(points) > 1:
                x, y = (Side(c.measure.about, c.measure.unit, str(c.measure.better)) for c in (cost, quality))
                title = f"{quality.measure.about} against {cost.measure.about}"
                drawn.append(f"<figure><figcaption>{escape(title)}</figcaption>{plot(points, x, y)}</figure>")
    if not drawn:
        return ""
    note = (
        "<p>Filled marks are on the frontier of what was measured: no other model here is as good and as cheap. "
        "Lines through marks are 95 % intervals.</p>"
    )
    return f'{note}<div class="plots">{"".join(drawn)}</div>'


def _sound(comparison: Mapping[str, Any], folder: Path, audio: int) -> str:
    found = ""
    models = list(enumerate(comparison["models"], start=1))
    for benchmark, title, about, card in (
        ("resynthesis", "Resynthesis", "重新合成", _resynthesis),
        ("continuations", "Continuations", "續說", _continuation),
    ):
        able = [(n, m, m["results"][benchmark]) for n, m in models if benchmark in m["results"]]
        ids = list(dict.fromkeys(i for _, _, r in able for i in _spoken(r)))[:audio]
        cards = "".join(
            f'<article class="card"><h4>{escape(i)}</h4><div class="players">{card(folder, i, able)}</div></article>'
            for i in ids
        )
        if cards:
            found += f'<h3>{title} <span lang="zh-Hant">{about}</span></h3>{cards}'
    return found


_Able = Sequence[tuple[int, Mapping[str, Any], Mapping[str, Any]]]
"""Models by their number, each with its result."""


def _spoken(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The items of a result by recording; of continuations, those at the temperature that is shown."""
    middle = result["settings"].get("temperatures", [None])
    shown = middle[len(middle) // 2]
    return {i.get("recording", i["id"]): i for i in result["items"] if i.get("temperature") == shown}


def _resynthesis(folder: Path, recording: str, able: _Able) -> str:
    """A recording, and what the models make of it."""
    items = {n: _spoken(r).get(recording) for n, _, r in able}
    text = next((i["text"] or i["heard"]["original"] for i in items.values() if i is not None), "")
    players = [_player("the original", data_url(_original(folder, recording)), text)]
    for n, m, r in able:
        item = items[n]
        url = data_url(_made(folder, m, r, "resynthesis", recording))
        players.append(_player(_of(n, m), url, "" if item is None else item["heard"]["resynthesis"]))
    return "".join(players)


def _continuation(folder: Path, recording: str, able: _Able) -> str:
    """The beginning of a recording, how it goes on, and how the models do."""
    _, _, first = able[0]
    prompt, seconds = (first["settings"][k] for k in ("prompt_seconds", "seconds"))
    original = _original(folder, recording)
    players = [_player("the prompt", data_url(original, seconds=prompt), "")]
    truth = first["details"]["truth_texts"]
    if recording in truth:
        url = data_url(original, start=prompt, seconds=seconds)
        players.append(_player("the recording going on", url, truth[recording]))
    for n, m, r in able:
        item = _spoken(r).get(recording)
        if item is not None:
            url = data_url(_made(folder, m, r, "continuations", item["id"]))
            players.append(_player(_of(n, m), url, item["text"]))
    return "".join(players)


def _original(folder: Path, recording: str) -> Path:
    return folder / "original" / f"{file_name(recording)}.flac"


def _made(folder: Path, model: Mapping[str, Any], result: Mapping[str, Any], benchmark: str, item: str) -> Path:
    """The sound of an item, in the folder of the model that answered."""
    answered = file_name(result["of"]) if "of" in result else model["folder"]
    return folder / answered / benchmark / "audio" / f"{file_name(item)}.flac"


def _of(n: int, model: Mapping[str, Any]) -> str:
    return f"{chip(n)} {escape(model['name'])}"


def _player(title: str, url: str | None, text: str) -> str:
    sound = "<p>no sound</p>" if url is None else f'<audio controls preload="none" src="{url}"></audio>'
    return f'<div class="player"><b>{title}</b>{sound}<p class="heard">{escape(text.strip())}</p></div>'


def _how(comparison: Mapping[str, Any]) -> str:
    """Settings, judges, versions, identities."""
    settings, models = comparison["settings"], comparison["models"]
    tools: dict[str, dict[str, None]] = {}
    results = [(m["name"], name, r) for m in models for name, r in m["results"].items()]
    for _, _, result in results:
        _tools({k: result.get(k) for k in ("settings", "details")}, "", tools)
    rows = [(k.replace("_", " "), _plain(v)) for k, v in settings.items()]
    against = {r["settings"]["reference"] for _, name, r in results if name == "resynthesis"}
    if against:
        said = "the texts" if against == {"text"} else f"what {settings['second']} hears in the originals"
        rows.append(("errors of resynthesis are counted against", said))
    rows += [
        (f"{name} of {model}", f"that of {r['of']}, which has the parts alike on which it hangs")
        for model, name, r in results
        if "of" in r
    ]
    rows += [(f"judge: {role}", name) for role, names in sorted(tools.items()) for name in names]
    rows += [(f"version: {k}", v) for k, v in comparison["environment"].items()]
    rows += [(f"weights of {m['name']} (SHA-256)", m["identity"] or "unknown") for m in models]
    seen = {json.dumps(r["environment"], sort_keys=True) for _, _, r in results}
    if len(seen) > 1:
        rows.append(("environments", f"{len(seen)} different ones: results were made at different times"))
    listed = "".join(f"<tr><th scope=row>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return (
        "<p>Intervals in brackets are of 95 %: bootstraps over items, over phone pairs for ABX, jackknives for what "
        "units say of phones and for bit rates. Two models are told apart where the interval of their difference over "
        "common items leaves out zero, and a sign-flip test has p &lt; 0.05 after Holm's correction within the "
        "measure; without common items, where their intervals do not meet. Different measures are not corrected for "
        "one another. Times are those of the machine that did the work.</p>"
        f'<div class="scroll"><table class="settings"><tbody>{listed}</tbody></table></div>'
    )


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "all" if value is None else str(value)


def _tools(value: Any, role: str, found: dict[str, dict[str, None]]) -> None:
    """Whatever has a name and a version in a result."""
    if isinstance(value, Mapping):
        if set(value) == {"name", "version"}:
            found.setdefault(role, {})[f"{value['name']}: {value['version']}"] = None
            return
        for key, inner in value.items():
            if key != "items":
                _tools(inner, key, found)
