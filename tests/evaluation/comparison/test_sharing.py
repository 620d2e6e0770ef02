"""Which parts are the same is read from configurations and tensors: one of those that have them answers for all."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.evaluation.alone import Alone
from lalia.evaluation.benchmarks import BENCHMARKS
from lalia.evaluation.benchmarks.base import PARTS
from lalia.evaluation.comparison.sharing import identities, same_parts
from lalia.model import Model, load
from lalia.tokenizers import Codec

pytestmark = pytest.mark.usefixtures("one_thread")


def changed(tiny: Path, change: Callable[[Model], None]) -> set[str]:
    """The parts that are others after a change."""
    before, model = identities(load(tiny)), load(tiny)
    change(model)
    after = identities(model)
    return {part for part in PARTS if before[part] != after[part]}


@torch.no_grad()
def test_a_tensor_changes_its_own_part(tiny: Path) -> None:
    def louder(module: Any) -> None:
        next(module.parameters()).add_(0.01)

    assert changed(tiny, lambda model: None) == set()
    assert changed(tiny, lambda model: louder(model.lms)) == {"lm"}
    assert changed(tiny, lambda model: louder(model.vocoder)) == {"vocoder"}
    assert changed(tiny, lambda model: next(iter(model.learned["units"].values())).mul_(2)) == {"tokenizer"}


def test_a_setting_changes_its_own_part(tiny: Path) -> None:
    def of(**changes: Any) -> Callable[[Model], None]:
        def change(model: Model) -> None:
            model.recipe = replace(model.recipe, stages=(), **changes)

        return change

    recipe = load(tiny).recipe
    units = recipe.streams["units"]
    assert changed(tiny, of(name="other")) == set()
    finer = {"units": replace(units, tokenizer=replace(units.tokenizer, layer=1))}  # type: ignore[type-var]
    assert changed(tiny, of(streams=finer)) == {"tokenizer"}
    assert changed(tiny, of(vocoder=None)) >= {"vocoder"}


def test_a_codec_alone_is_like_itself_alone() -> None:
    one, same, other = (Alone(Codec.Config(16_000).tiny().build()) for _ in range(3))
    with torch.no_grad():
        next(other.tokenizer_alone.parameters()).add_(0.01)
    assert identities(one) == identities(same)
    assert all(identities(one)[part] != identities(other)[part] for part in PARTS)


@pytest.mark.parametrize(
    ("benchmark", "asked"),
    [("mini-phones", 4), ("bit-rate", 4), ("mini-words", 8), ("resynthesis", 8), ("continuations", 16), ("speed", 16)],
)
def test_a_grid_is_asked_no_more_than_it_has_parts(benchmark: str, asked: int) -> None:
    grid = [dict(zip(PARTS, parts, strict=True)) for parts in product("abcd", "ef", "gh")]
    found = [same_parts(BENCHMARKS[benchmark], grid[i], grid[:i]) for i in range(16)]
    assert sum(x is None for x in found) == asked
    assert all(x is None or found[x] is None for x in found)
