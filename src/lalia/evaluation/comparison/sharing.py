"""Which parts of models are the same, so that one of those that have them alike answers for the others."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lalia.config import to_dict
from lalia.evaluation.benchmarks.base import PARTS, Benchmark, Part, parts_asked
from lalia.evaluation.comparison.parts import spoken_streams
from lalia.store import DESCRIPTION, read_weights

__all__ = ["identities", "same_parts"]


def identities(model: Any, folder: Path | None) -> dict[Part, str]:
    """SHA-256 of the configuration and the tensors of each part of a model, or of a tokenizer alone (128 bits).

    Weights are those of the folder, for in memory they may be in another form. Streams go by their names: models that
    call them otherwise have other parts.

    :param model: has a ``recipe``; or is `Alone`, with a ``recipe`` of None.
    :param folder: that lalia wrote.
    :returns: nothing where weights are not known by their part.
    """
    if model.recipe is None:
        tokenizer = model.tokenizer_alone
        return dict.fromkeys(PARTS, _digest(["alone", to_dict(tokenizer.config), tokenizer.identity], {}))
    if folder is None or not (folder / DESCRIPTION).is_file():
        return {}
    recipe, tensors = model.recipe, read_weights(folder)
    sound = {name: to_dict(s) for name, s in recipe.streams.items() if s.sample_rate is not None}
    known = {name: identity for name, identity in model.identities.items() if name in sound}
    heard = [recipe.speech_stream, list(spoken_streams(recipe)), sound, known]
    return {
        "tokenizer": _digest(heard, _under(tensors, *(f"tokenizers.{name}." for name in sound))),
        "lm": _digest(to_dict(dict(recipe.lms)), _under(tensors, "lms.")),
        "vocoder": _digest(to_dict(recipe.vocoder), _under(tensors, "vocoder.")),
    }


def same_parts(benchmark: Benchmark, one: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> int | None:
    """The number of the first of other models that has all parts alike on which the answers to a benchmark hang.

    None where there is none, and where they hang on all of the model: its parts are not all that it is.

    :param one: as `identities` gives them; and so the others.
    """
    parts = parts_asked(benchmark)
    if not one or set(parts) == set(PARTS):
        return None
    return next((i for i, other in enumerate(others) if all(one[p] == other.get(p) for p in parts)), None)


def _under(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: t for name, t in tensors.items() if name.startswith(prefixes)}


def _digest(config: Any, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode())
    for name, t in sorted(tensors.items()):
        digest.update(f"\n{name} {t.dtype} {list(t.shape)} ".encode())
        digest.update(t.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
