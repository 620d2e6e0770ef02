"""What the recipes are, in words: the table and the page that ``lalia recipes`` prints."""

import pkgutil
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from lalia.checkpoints import KNOWN
from lalia.config import Configurable, to_dict
from lalia.layouts import Layout
from lalia.recipe import Recipe, count_parameters
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.vocoders import Chain

__all__ = ["Description", "describe", "recipe_names"]


@dataclass(frozen=True)
class Description:
    """A recipe for people and for programs."""

    text: str
    data: dict[str, Any]


def recipe_names() -> list[str]:
    """The modules of ``lalia.recipes``."""
    import lalia.recipes

    return sorted(m.name for m in pkgutil.iter_modules(lalia.recipes.__path__))


def describe(recipe: Recipe, *, full: bool) -> Description:
    """A line of the table, or with ``full`` the whole page with the layouts drawn."""
    counts = count_parameters(recipe)
    needed = sorted({e for s in recipe.streams.values() if (e := getattr(s.tokenizer, "encoder", None))})
    missing = [n for n in needed if n not in KNOWN]
    lm = sum(n for name, n in counts.items() if name != "vocoder")
    data = {
        "name": recipe.name,
        "paper": recipe.paper,
        "streams": {n: _stream(s) for n, s in recipe.specs.items()},
        "layouts": {n: type(c.layout).__name__ for n, c in recipe.lms.items()},
        "heads": {n: {s: _kind(h) for s, h in c.heads.items()} for n, c in recipe.lms.items()},
        "vocoder": _vocoder(recipe),
        "parameters": counts,
        "published_parameters": recipe.published_parameters,
        "stages": [s.name for s in recipe.stages],
        "offline": "whole" if not missing else "tiny only",
        "needs": needed,
    }
    if not full:
        layouts = ", ".join(str(x) for x in data["layouts"].values())  # type: ignore[attr-defined]
        text = (
            f"{recipe.name:<12} {recipe.paper:<22} {', '.join(recipe.streams):<14} {layouts:<10} "
            f"{_millions(lm):>8} {data['vocoder']:<24} offline: {data['offline']}"
        )
        return Description(text, data)
    lines = [f"{recipe.name}  ({recipe.paper})", ""]
    lines += ["streams"] + [f"  {n}: {_kind(s.tokenizer)}, {_stream(s.spec)}" for n, s in recipe.streams.items()]
    for name, config in recipe.lms.items():
        heads = ", ".join(f"{s}: {_kind(h)}" for s, h in config.heads.items())
        lines += ["", f"language model {name}: {_millions(counts[name])} parameters, heads {heads}", ""]
        lines += ["  " + line for line in _draw(config.layout, recipe.specs).splitlines()]
    made = f", {_millions(counts['vocoder'])} parameters" if "vocoder" in counts else ""
    lines += ["", f"vocoder: {data['vocoder']}{made}", f"stages: {', '.join(s.name for s in recipe.stages) or 'none'}"]
    weights = ", ".join(f"{n} ({'the package index or the hub' if n in KNOWN else 'the hub'})" for n in needed)
    lines += [f"offline: {data['offline']}" + (f"; it needs {weights}" if needed else "")]
    return Description("\n".join(lines), data | {"recipe": to_dict(recipe)})


def _draw(layout: Layout, specs: dict[str, StreamSpec]) -> str:
    """The first steps of a layout, on streams of a few tokens."""
    streams = {}
    for name in layout.streams:
        if name not in specs:
            continue
        spec, n = specs[name], 8
        times = torch.arange(n)[None] / (spec.frame_rate or 4.0) if layout.timed else None
        values = (
            torch.zeros((1, spec.kind.num_codebooks, n), dtype=torch.long)
            if isinstance(spec.kind, Discrete)
            else torch.zeros((1, n, spec.kind.dim))
        )
        streams[name] = TokenSequence(values, torch.tensor([n]), times=times)
    return layout.draw(layout.pack(streams, specs), specs)


def _stream(spec: StreamSpec) -> str:
    if isinstance(spec.kind, Discrete):
        books = f"{spec.kind.num_codebooks} x " if spec.kind.num_codebooks > 1 else ""
        what = f"{books}{spec.kind.codebook_size} codes"
    else:
        what = f"features of {spec.kind.dim}"
    rate = f" at {spec.frame_rate:g} Hz" if spec.frame_rate else ""
    return what + rate + (", repeats removed" if spec.deduplicated else "")


def _vocoder(recipe: Recipe) -> str:
    if recipe.vocoder is None:
        return "none"
    if isinstance(recipe.vocoder, Chain.Config):
        return " -> ".join(_kind(c) for c in (*recipe.vocoder.stages, recipe.vocoder.vocoder))
    return _kind(recipe.vocoder)


def _kind(config: Any) -> str:
    owner = config.owner if isinstance(config, Configurable.Config) else type(config)
    name: str = owner.__name__
    if is_dataclass(config):
        first = next(iter(fields(config)), None)
        value = getattr(config, first.name) if first is not None and not first.kw_only else None
        if isinstance(value, str) and hasattr(config, "encoder"):
            name += f"({value})"
    return name


def _millions(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M"
