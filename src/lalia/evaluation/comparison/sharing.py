"""Which parts of models are the same, so that one of those that have them alike answers for the others."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lalia.config import to_dict
from lalia.evaluation.benchmarks.base import PARTS, Benchmark, Part, parts_asked
from lalia.evaluation.comparison.parts import spoken_streams

__all__ = ["identities", "same_parts"]


def identities(model: Any) -> dict[Part, str]:
    """SHA-256 of the configuration and the tensors of each part of a model, or of a tokenizer alone (128 bits).

    Streams go by their names: models that call them otherwise have other parts.

    :param model: has a ``recipe`` and its parts; or is `Alone`, with a ``recipe`` of None.
    """
    if model.recipe is None:
        tokenizer = model.tokenizer_alone
        whole = _digest(["alone", to_dict(tokenizer.config), tokenizer.identity])
        return dict.fromkeys(PARTS, whole)
    recipe = model.recipe
    heard = [recipe.speech_stream, spoken_streams(recipe), to_dict(dict(recipe.streams)), model.identities]
    learned = {f"{s}.{n}": t for s, tensors in model.learned.items() for n, t in tensors.items()}
    return {
        "tokenizer": _digest(heard, learned),
        "lm": _digest(to_dict(dict(recipe.lms)), _tensors(model.lms)),
        "vocoder": _digest(to_dict(recipe.vocoder), _tensors(model.vocoder)),
    }


def same_parts(benchmark: Benchmark, one: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> int | None:
    """The number of the first of other models that has all parts alike on which the answers to a benchmark hang.

    None where there is none, and where they hang on all of the model: its parts are not all that it is.
    """
    parts = parts_asked(benchmark)
    if set(parts) == set(PARTS):
        return None
    return next((i for i, other in enumerate(others) if all(one[p] == other[p] for p in parts)), None)


def _tensors(part: Any) -> dict[str, Tensor]:
    return {n: t for n, t in part.state_dict().items() if isinstance(t, Tensor)} if isinstance(part, nn.Module) else {}


def _digest(config: Any, tensors: Mapping[str, Tensor] | None = None) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode())
    for name, t in sorted((tensors or {}).items()):
        digest.update(f"\n{name} {t.dtype} {list(t.shape)} ".encode())
        digest.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
