"""What the recipes are, in words: the table and the page that ``lalia recipes`` prints."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from lalia.checkpoints import KNOWN
from lalia.config import Configurable, Configuration, to_dict
from lalia.layouts import Layout
from lalia.lm import HF
from lalia.lm.graph import HIDDEN_SUFFIX, hidden_spec
from lalia.recipe import Recipe, count_parameters
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import SNAC, Features, Mimi, SSLUnits, Text
from lalia.tokenizers.text import BYTES
from lalia.vocoders import Chain, Vocoder

__all__ = ["Description", "describe", "table"]

_DRAWN_TOKENS = 8


@dataclass(frozen=True)
class Description:
    """A recipe for people and for programs."""

    text: str
    data: dict[str, Any]


def describe(recipe: Recipe) -> Description:
    """All about a recipe; its data hold the recipe itself, as ``config.from_dict`` reads it."""
    counts = count_parameters(recipe)
    # Hidden states are drawn as frames; how wide they are shows nowhere.
    specs = {**recipe.specs, **{n + HIDDEN_SUFFIX: hidden_spec(1) for n in recipe.lms}}
    needed = _weights(recipe)
    data = {
        "name": recipe.name,
        "paper": recipe.paper,
        "streams": {n: _stream(s) for n, s in recipe.specs.items()},
        "layouts": {n: type(c.layout).__name__ for n, c in recipe.lms.items()},
        "heads": {n: {s: _kind(h) for s, h in c.heads.items()} for n, c in recipe.lms.items()},
        "vocoder": _vocoder(recipe.vocoder),
        "parameters": counts,
        "published_parameters": recipe.published_parameters,
        "stages": [s.name for s in recipe.stages],
        "offline": "tiny only" if any(n not in KNOWN for n in needed) else "whole",
        "needs": needed,
        "recipe": to_dict(recipe),
    }
    lines = [f"{recipe.name}  ({recipe.paper})", "", "streams"]
    lines += [f"  {n}: {_source(s.tokenizer)}, {_stream(s.spec)}" for n, s in recipe.streams.items()]
    for name, config in recipe.lms.items():
        heads = ", ".join(f"{s}: {_kind(h)}" for s, h in config.heads.items())
        lines += ["", f"language model {name}: {_millions(counts[name])} parameters, heads {heads}", ""]
        lines += ["  " + line for line in _draw(config.layout, specs).splitlines()]
    made = f", {_millions(counts['vocoder'])} parameters" if "vocoder" in counts else ""
    lines += ["", f"vocoder: {data['vocoder']}{made}", f"stages: {', '.join(s.name for s in recipe.stages) or 'none'}"]
    sources = [f"{n} ({'the package index or the hub' if n in KNOWN else 'the hub'})" for n in needed]
    lines += [f"offline: {data['offline']}" + (f"; it needs {', '.join(sources)}" if needed else "")]
    lines += [f"note, {what}: {text}" for what, text in recipe.notes.items()]
    return Description("\n".join(lines), data)


def table(described: Sequence[Description]) -> str:
    """The recipes one to a line."""
    head = ("recipe", "paper", "streams", "layout", "heads", "LMs", "published", "vocoder", "offline")
    rows = [head]
    for d in described:
        parameters = sum(n for name, n in d.data["parameters"].items() if name != "vocoder")
        layouts = ", ".join(dict.fromkeys(d.data["layouts"].values()))
        heads = ", ".join(dict.fromkeys(h for lm in d.data["heads"].values() for h in lm.values()))
        streams = ", ".join(d.data["streams"])
        published = d.data["published_parameters"]
        known = "" if published is None else _millions(published)
        what = (d.data["name"], d.data["paper"], streams, layouts, heads, _millions(parameters), known)
        rows.append((*what, d.data["vocoder"], d.data["offline"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _configurations(value: Any) -> Iterator[Configuration]:
    """Everything inside a configuration, and itself."""
    if isinstance(value, Configuration):
        yield value
        for f in fields(value):
            yield from _configurations(getattr(value, f.name))
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _configurations(v)
    elif isinstance(value, tuple):
        for v in value:
            yield from _configurations(v)


def _weights(recipe: Recipe) -> list[str]:
    """Weights of others that it starts from or listens with."""
    needed = set()
    for part in _configurations(recipe):
        match part:
            case SSLUnits.Config() | Features.Config() if part.pretrained:
                needed.add(part.encoder)
            case Text.Config() if part.name != BYTES:
                needed.add(part.name)
            case HF.Config() | Mimi.Config() | SNAC.Config() if part.pretrained:
                needed.add(part.name)
    return sorted(needed)


def _draw(layout: Layout, specs: dict[str, StreamSpec]) -> str:
    """The first steps of a layout, on streams of a few tokens."""
    streams = {}
    for name in layout.streams:
        if name not in specs:
            continue
        spec, n = specs[name], _DRAWN_TOKENS
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


def _source(tokenizer: Configuration) -> str:
    """A tokenizer with the weights that it listens with."""
    names = [getattr(tokenizer, f, None) for f in ("encoder", "name")]
    layer = getattr(tokenizer, "layer", None)
    what = [n for n in names if isinstance(n, str)] + ([f"layer {layer}"] if layer is not None else [])
    return _kind(tokenizer) + (f"({', '.join(what)})" if what else "")


def _vocoder(config: Vocoder.Config | None) -> str:
    if config is None:
        return "none"
    if isinstance(config, Chain.Config):
        return " -> ".join(_kind(c) for c in (*config.stages, config.vocoder))
    return _kind(config)


def _kind(config: Configuration) -> str:
    return (config.owner if isinstance(config, Configurable.Config) else type(config)).__name__


def _millions(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M"
