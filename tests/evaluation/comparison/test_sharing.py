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


@pytest.fixture
def changed(tiny: Path, tmp_path: Path) -> Callable[..., set[str]]:
    """``changed(change, **fields)``: the parts that are others where tensors and fields of the recipe are."""

    def run(change: Callable[[Model], None] = lambda model: None, **fields: Any) -> set[str]:
        model = load(tiny)
        change(model)
        model.save(tmp_path / "other")
        model.recipe = replace(model.recipe, stages=(), **fields)
        one, other = identities(load(tiny), tiny), identities(model, tmp_path / "other")
        return {part for part in PARTS if one[part] != other[part]}

    return run


def test_a_tensor_changes_its_own_part(changed: Any) -> None:
    @torch.no_grad()
    def louder(module: Any) -> None:
        next(module.parameters()).add_(0.01)

    assert changed() == set()
    assert changed(lambda model: louder(model.lms)) == {"lm"}
    assert changed(lambda model: louder(model.vocoder)) == {"vocoder"}
    assert changed(lambda model: next(iter(model.learned["units"].values())).add_(1)) == {"tokenizer"}


def test_a_setting_changes_its_own_part(changed: Any, tiny: Path) -> None:
    recipe = load(tiny).recipe
    units, lm = recipe.streams["units"], recipe.lms["ulm"]
    assert changed(name="other") == set()
    finer = replace(units, tokenizer=replace(units.tokenizer, layer=1))  # type: ignore[call-arg]
    assert changed(streams={"units": finer}) == {"tokenizer"}
    wider = replace(lm.backbone, rope_theta=5.0)  # type: ignore[call-arg]
    assert changed(lms={"ulm": replace(lm, backbone=wider)}) == {"lm"}
    assert changed(vocoder=replace(recipe.vocoder, num_layers=7)) == {"vocoder"}  # type: ignore[type-var, call-arg]


def test_weights_of_which_nothing_is_known_are_shared_with_none(tiny: Path, tmp_path: Path) -> None:
    assert identities(load(tiny), None) == identities(load(tiny), tmp_path) == {}
    assert same_parts(BENCHMARKS["bit-rate"], {}, [{}]) is None


def test_a_codec_alone_is_like_itself_alone() -> None:
    one, same, other = (Alone(Codec.Config(16_000).tiny().build()) for _ in range(3))
    with torch.no_grad():
        next(other.tokenizer_alone.parameters()).add_(0.01)
    assert identities(one, None) == identities(same, None)
    assert all(identities(one, None)[part] != identities(other, None)[part] for part in PARTS)


@pytest.mark.parametrize(
    ("benchmark", "asked"),
    [("mini-phones", 4), ("bit-rate", 4), ("mini-words", 8), ("resynthesis", 8), ("continuations", 16), ("speed", 16)],
)
def test_a_grid_is_asked_no_more_than_it_has_parts(benchmark: str, asked: int) -> None:
    grid = [dict(zip(PARTS, parts, strict=True)) for parts in product("abcd", "ef", "gh")]
    found = [same_parts(BENCHMARKS[benchmark], grid[i], grid[:i]) for i in range(16)]
    assert sum(x is None for x in found) == asked
    assert all(x is None or found[x] is None for x in found)
