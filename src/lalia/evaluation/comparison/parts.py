"""What a model is made of, read from its recipe: tokenizer, language model and its start, layout, vocoder."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from lalia.config import Configurable, Configuration
from lalia.errors import ConfigError
from lalia.evaluation.representation import nominal_bit_rate
from lalia.lm import HF
from lalia.lm.graph import HIDDEN_SUFFIX, hidden_spec
from lalia.streams import Discrete, StreamSpec
from lalia.tokenizers import Letters, Phones, Text
from lalia.vocoders import Chain
from lalia.vocoders.units import UnitVocoder

__all__ = ["AXES", "Axis", "alike_but_for", "labels", "parts_of", "spoken_streams"]

Axis = Literal["tokenizer", "lm", "start", "layout", "vocoder"]
"""What can be exchanged: ``start`` is what the language model's weights were before it was trained on speech."""

AXES: tuple[Axis, ...] = get_args(Axis)

_NONE = {"label": "none", "config": None}
_SHOWN_DIFFERENCES = 3


def parts_of(model: Any) -> dict[str, Any]:
    """The parts of a model, or of a tokenizer alone, as plain data.

    What a part is called in a recipe, and how its language model samples, do not matter: two models that differ in
    their tokenizer only have all other axes equal.

    :param model: has a ``recipe`` and the parts that this describes; or is `Alone`, with a ``recipe`` of None.
    :returns: ``axes``: by `Axis` a ``label`` in words and a ``config`` that says it all; ``stream``: of the speech
        that is generated; ``parameters`` of each part, each tensor counted once, codebooks and centroids not.
    """
    if model.recipe is None:
        return {
            "axes": {axis: dict(_NONE) for axis in AXES}
            | {"tokenizer": _tokenizer({model.tokenizer_alone.config: model.tokenizer_alone.identity}, {})}
            | ({"vocoder": {"label": "CodecDecoder", "config": dict(_OWN)}} if model.speaks else {}),
            "stream": _stream([model.tokenizer_alone.spec]),
            "parameters": model.parameters,
        }
    recipe = model.recipe
    heard = [s for lm in recipe.lms.values() for s in lm.layout.streams if _reads_sound(recipe, s)]
    spoken = spoken_streams(recipe)
    names = list(dict.fromkeys(heard)) or [s for s in spoken if _reads_sound(recipe, s)] or [recipe.speech_stream]
    distinct: dict[Configuration, str | None] = {}
    for n in names:
        distinct.setdefault(recipe.streams[n].tokenizer, model.identities.get(n))
    taken = {t: _codebooks([s for n in names if (s := recipe.streams[n]).tokenizer == t]) for t in distinct}
    sizes = _sizes(recipe)
    own = dict.fromkeys((names[0], *spoken[:1]), "speech")
    return {
        "axes": {
            "tokenizer": _tokenizer(distinct, taken),
            **_lm_axes(recipe, sizes, own),
            "vocoder": dict(_NONE) if recipe.vocoder is None else _vocoder_axis(recipe.vocoder, distinct, names, own),
        },
        "stream": _stream([recipe.specs[s] for s in spoken or (recipe.speech_stream,)]),
        "parameters": _parameters(model, [s for s in (*names, *spoken) if _reads_sound(recipe, s)], sizes),
    }


_OWN = {"type": "lalia.vocoders.CodecDecoder", "stream": "speech"}
"""What speaks for a codec alone: the same that speaks its codes where a language model makes them."""


def spoken_streams(recipe: Any) -> tuple[str, ...]:
    """The streams of a recording that the vocoder speaks; of a chain that reads texts, those that it makes of them."""
    vocoder = recipe.vocoder
    if vocoder is None:
        return ()
    if isinstance(vocoder, Chain.Config) and not all(_reads_sound(recipe, s) for s in vocoder.reads):
        vocoder = vocoder.vocoder
    return tuple(vocoder.reads)


def _reads_sound(recipe: Any, stream: str) -> bool:
    known = recipe.streams.get(stream)
    return known is not None and not isinstance(known.tokenizer, Text.Config | Letters.Config | Phones.Config)


def _codebooks(streams: Sequence[Any]) -> int | None:
    """How many codebooks these take of their tokenizer; None where it is all."""
    stops = [None if s.codebooks is None else s.codebooks[1] for s in streams]
    most = None if None in stops else max(s for s in stops if s is not None)
    kind = streams[0].tokenizer.spec.kind
    return None if isinstance(kind, Discrete) and most == kind.num_codebooks else most


def _tokenizer(
    configs: Mapping[Configuration, str | None], taken: Mapping[Configuration, int | None]
) -> dict[str, Any]:
    """
    :param configs: with their identities.
    :param taken: the codebooks that are taken of each, where these are not all.
    """
    return {
        "label": " + ".join(_source(c, taken.get(c)) for c in configs),
        "config": [
            {**c.to_dict(), "identity": None if i is None else i[:12]}
            | ({} if (books := taken.get(c)) is None else {"codebooks": books})
            for c, i in configs.items()
        ],
    }


def _source(config: Any, taken: int | None = None) -> str:
    """A tokenizer with the weights that it listens with, and what its codes are."""
    inner = getattr(config, "recognizer", None)
    if isinstance(inner, Configuration):
        return f"{_kind(config)}({_source(inner)})"
    names = [getattr(config, f, None) for f in ("encoder", "recognizer", "name")]
    what = [Path(n).name for n in names if isinstance(n, str)]
    layer, clusters = getattr(config, "layer", None), getattr(config, "clusters", None)
    what += [] if layer is None else [f"layer {layer}"]
    what += [] if clusters is None else [f"{clusters} clusters"]
    spec = config.spec
    if clusters is None and isinstance(spec.kind, Discrete) and spec.frame_rate is not None:
        books = f"{spec.kind.num_codebooks}" if taken is None else f"{taken} of {spec.kind.num_codebooks}"
        what.append(f"{books} × {spec.kind.codebook_size} codes")
    what += [] if spec.frame_rate is None else [f"{spec.frame_rate:g} Hz"]
    return _kind(config) + (f"({', '.join(what)})" if what else "")


def _vocoder_axis(
    config: Any, tokenizers: Collection[Any], streams: Collection[str], own: Mapping[str, str]
) -> dict[str, Any]:
    data = _renamed(config.to_dict(), own)
    if isinstance(config, UnitVocoder.Config) and set(config.reads) == set(streams):
        # One that reads all that there is of the sound, and finds what is not there: that goes with the tokens.
        for following in ("predict_durations", "durations", "conditions"):
            del data[following]
    # The decoder of the very codec that is heard with goes with it, and is no choice of its own.
    if getattr(config, "codec", None) in tokenizers:
        del data["codec"]
    return {"label": _vocoder(config), "config": data}


def _lm_axes(recipe: Any, sizes: Mapping[str, int], own: Mapping[str, str]) -> dict[str, Any]:
    if not recipe.lms:
        return {axis: dict(_NONE) for axis in ("lm", "start", "layout")}
    kinds, starts, layouts, bodies = [], [], [], []
    begins = {stage.init for stage in recipe.stages if stage.init is not None} - {s.name for s in recipe.stages}
    for name, config in recipe.lms.items():
        data = {k: v for k, v in config.to_dict().items() if k not in ("sampler", "layout")}
        backbone = config.backbone
        start: str | None = None
        if isinstance(backbone, HF.Config):
            start = Path(backbone.name).name if backbone.pretrained else None
            data["backbone"] = {k: v for k, v in data["backbone"].items() if k not in ("pretrained", "new_vocabulary")}
        for each in ("inputs", "heads"):
            # What is the same for every stream does not hang on how many there are.
            values = list(data[each].values())
            if all(v == values[0] for v in values[1:]):
                data[each] = values[:1]
        kinds.append(f"{_kind(backbone)} {_millions(sizes[f'lm {name}'])}")
        starts.append("cold" if start is None else f"continued from {start}")
        streams = ", ".join(own.get(s, s) for s in config.layout.streams)
        layouts.append(f"{type(config.layout).__name__}({streams})")
        bodies.append((_renamed(data, own), _renamed(config.layout.to_dict(), own)))
    if begins and all(s == "cold" for s in starts):
        starts = [f"continued from {', '.join(sorted(map(str, begins)))}"]
    return {
        "lm": {"label": " → ".join(kinds), "config": [body for body, _ in bodies]},
        "start": {"label": " → ".join(dict.fromkeys(starts)), "config": starts},
        "layout": {"label": " → ".join(layouts), "config": [layout for _, layout in bodies]},
    }


def _stream(specs: Sequence[StreamSpec]) -> dict[str, Any]:
    """Of the first stream, and the bits of all, null where one has none."""
    kind = specs[0].kind
    try:
        rate: float | None = sum(nominal_bit_rate(spec) for spec in specs)
    except ConfigError:
        rate = None
    return {
        "frame_rate": specs[0].frame_rate,
        "codebooks": kind.num_codebooks if isinstance(kind, Discrete) else None,
        "codebook_size": kind.codebook_size if isinstance(kind, Discrete) else None,
        "deduplicated": specs[0].deduplicated,
        "streams": len(specs),
        "nominal_bit_rate": rate,
    }


def _sizes(recipe: Any) -> dict[str, int]:
    """Parameters of each language model, and of the ``vocoder``: of the recipe, for weights in memory may be packed."""
    specs, sizes = dict(recipe.specs), {"vocoder": 0}
    with torch.device("meta"):
        for name, config in recipe.lms.items():
            lm = config.build(specs)
            specs[name + HIDDEN_SUFFIX] = hidden_spec(lm.backbone.dim)
            sizes[f"lm {name}"] = _count(lm)
        if recipe.vocoder is not None:
            sizes["vocoder"] = _count(recipe.vocoder.build(recipe.specs))
    return sizes


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters()) if isinstance(module, nn.Module) else 0


def _parameters(model: Any, sound: Sequence[str], sizes: Mapping[str, int]) -> dict[str, int]:
    hearing: dict[int, int] = {}
    for stream in sound:
        tokenizer = model.tokenizer(stream)
        # What speaks is counted with the vocoder.
        decoder = getattr(tokenizer, "decoder", None)
        mute = {id(p) for p in decoder.parameters()} if isinstance(decoder, nn.Module) else set()
        if isinstance(tokenizer, nn.Module):
            hearing |= {id(p): p.numel() for p in tokenizer.parameters() if id(p) not in mute}
    lms = sum(n for name, n in sizes.items() if name != "vocoder")
    return {"tokenizer": sum(hearing.values()), "lm": lms, "vocoder": sizes["vocoder"]}


def labels(models: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What the axes of models are called beside one another: parts that differ never have one name.

    :param models: as `parts_of` gives each.
    """
    found: list[dict[str, str]] = [{} for _ in models]
    for axis in AXES:
        groups: dict[str, dict[str, list[int]]] = {}
        for i, model in enumerate(models):
            part = model["axes"][axis]
            groups.setdefault(part["label"], {}).setdefault(_canonical(part["config"]), []).append(i)
        for label, configs in groups.items():
            flat = {config: dict(_leaves(json.loads(config))) for config in configs}
            keys = list(dict.fromkeys(k for leaves in flat.values() for k in leaves))
            telling = [k for k in keys if len({str(leaves.get(k)) for leaves in flat.values()}) > 1]
            for config, members in configs.items():
                said = [f"{k.rsplit('.', 1)[-1]} {flat[config].get(k)}" for k in telling[:_SHOWN_DIFFERENCES]]
                for i in members:
                    found[i][axis] = f"{label}, {', '.join(said)}" if said else label
        names: dict[str, set[str]] = {}
        for i, model in enumerate(models):
            names.setdefault(found[i][axis], set()).add(_canonical(model["axes"][axis]["config"]))
        for i, model in enumerate(models):
            # Those that differ in a fourth thing.
            variants = sorted(names[found[i][axis]])
            if len(variants) > 1:
                found[i][axis] += f", variant {1 + variants.index(_canonical(model['axes'][axis]['config']))}"
    return found


def alike_but_for(models: Sequence[Mapping[str, Any]], axis: Axis) -> list[list[int]]:
    """Groups of models, by number, that have all parts alike but that of one axis, of which no two have the same.

    Of models that are alike in everything, the first alone is taken. A layout is of so many streams and codebooks:
    where tokenizers have other numbers of them, each of its own goes with its layout.
    """
    goes_along = _layouts(models) if axis == "tokenizer" else None
    groups: dict[str, dict[str, int]] = {}
    for i, model in enumerate(models):
        rest = [model["axes"][a]["config"] for a in AXES if a != axis]
        if goes_along is not None:
            rest[AXES.index("layout") - 1] = goes_along[i]
        groups.setdefault(_canonical(rest), {}).setdefault(_canonical(model["axes"][axis]["config"]), i)
    return [list(members.values()) for members in groups.values() if len(members) > 1]


def _layouts(models: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What the layout of each model is, as far as its tokenizer leaves a choice: None where models over as many streams
    and codebooks, and alike in all else, have no other.
    """
    kinds = []
    for m in models:
        alike = _canonical([m["axes"][a]["config"] for a in AXES if a not in ("tokenizer", "layout")])
        kinds.append((len(m["axes"]["tokenizer"]["config"] or ()), m["stream"]["codebooks"], alike))
    layouts = [m["axes"]["layout"]["config"] for m in models]
    seen: dict[Any, set[str]] = {}
    for kind, layout in zip(kinds, layouts, strict=True):
        seen.setdefault(kind, set()).add(_canonical(layout))
    return [layout if len(seen[kind]) > 1 else None for kind, layout in zip(kinds, layouts, strict=True)]


def _canonical(config: Any) -> str:
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


def _leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, f"{path}.{key}")
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _leaves(value, f"{path}{i}" if not path else f"{path}[{i}]")
    else:
        yield path, data


def _renamed(data: Any, names: Mapping[str, str]) -> Any:
    """Plain data in which streams have other names."""
    if isinstance(data, dict):
        return {names.get(k, k): _renamed(v, names) for k, v in data.items()}
    if isinstance(data, list):
        return [_renamed(v, names) for v in data]
    return names.get(data, data) if isinstance(data, str) else data


def _vocoder(config: Any) -> str:
    if isinstance(config, Chain.Config):
        return " → ".join(_kind(c) for c in (*config.stages, config.vocoder))
    return _kind(config)


def _kind(config: Any) -> str:
    return (config.owner if isinstance(config, Configurable.Config) else type(config)).__name__


def _millions(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M"
