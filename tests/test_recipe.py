from dataclasses import replace

import pytest

from lalia.config import from_dict, to_dict
from lalia.errors import RecipeError
from lalia.layouts import Flat
from lalia.lm import Linear, Lookup, Weight
from lalia.recipe import Recipe, count_parameters
from lalia.recipes import find, names
from lalia.streams import Discrete, StreamSpec
from lalia.training import PredictTokens, TrainPart
from lalia.vocoders import UnitVocos

MINI = find("mini-gslm")


def test_recipes_are_found_by_name() -> None:
    assert {"gslm", "mini_gslm"} <= set(names())
    assert find("mini_gslm") == find("mini-gslm") == find("Mini-GSLM")
    with pytest.raises(RecipeError, match=r"There is no recipe 'mini-gslmm'. Did you mean 'mini_gslm'?"):
        find("mini-gslmm")
    with pytest.raises(RecipeError, match=r"There is .*gslm"):
        find("../../etc")


def test_a_recipe_is_plain_data() -> None:
    assert from_dict(to_dict(MINI)) == MINI
    assert MINI.specs == {"units": StreamSpec(kind=Discrete(500), frame_rate=50.0, deduplicated=True)}
    assert MINI.streams["units"].sample_rate == 16000


def test_what_older_files_say_is_still_read() -> None:
    """The names under which the first models were saved."""
    data = to_dict(MINI)
    del data["voices"]
    for stage in data["stages"]:
        stage["type"] = "lalia.training.stages.TrainStage"
        stage["task"]["type"] = "lalia.training.stages." + stage["task"]["type"].rpartition(".")[2]
    assert from_dict(data) == MINI


def refused(match: str, **changes: object) -> None:
    with pytest.raises(RecipeError, match=match):
        replace(MINI, **changes)  # type: ignore[arg-type]


def test_parts_that_do_not_fit_are_refused() -> None:
    lm = MINI.lms["ulm"]
    refused("'mini_gslm', LM 'ulm': .*'codes'", lms={"ulm": replace(lm, layout=Flat("codes"))})
    refused("inputs of LM 'ulm' name stream 'text'", lms={"ulm": replace(lm, inputs={"text": Lookup()})})
    refused("heads of LM 'ulm' name stream 'text'", lms={"ulm": replace(lm, heads={"text": Linear.Config()})})
    refused("the vocoder reads stream 'codes', but there is units", vocoder=UnitVocos.Config("codes"))
    refused("stages pretrain, pretrain. Give each a name", stages=(MINI.stages[0], MINI.stages[0]))
    refused("stage 'pretrain' trains LM None, but there is none", lms={})
    two = {"a": lm, "b": lm}
    refused("stage 'pretrain' trains LM None, but there is a, b", lms=two)
    refused("stage 'vocoder' trains a vocoder of units or mel, but there is none", vocoder=None)
    refused("stage 'vocoder' trains a vocoder of units or mel, but it is WaveGlow", vocoder=find("gslm").vocoder)
    few = replace(MINI.vocoder, num_speakers=2)  # type: ignore[type-var, call-arg]
    refused("stage 'vocoder' names 8 voices, but the vocoder has 2. Raise num_speakers", vocoder=few)


def test_weights_that_do_not_fit_are_refused() -> None:
    def weighed(name: str, match: str, **weights: float | Weight) -> None:
        base = find(name)
        stage = replace(base.stages[0], task=PredictTokens(lm=next(iter(base.lms)), weights=weights))
        with pytest.raises(RecipeError, match=f"Recipe {name!r}, stage .*{match}"):
            replace(base, stages=(stage,))

    weighed("moshi", "weighs 3 codebooks of 'moshi', which has 8. Give one", moshi=Weight(codebooks=(100.0, 1.0, 1.0)))
    weighed("moshi", "weighs id 32001 of 'text', which has ids 0 to 32000", text=Weight(ids=((3, 0.5), (32001, 0.5))))
    weighed("moshi", "weighs 'sound', but the LM predicts text, moshi. Name one", sound=0.5)
    weighed("flow_omni", "weighs cells of 'mel', whose loss is not one of cells", mel=Weight(codebooks=(1.0,)))
    with pytest.raises(RecipeError, match=r"A loss has weight -1.0. Give 0 or more"):
        Weight(codebooks=(1.0, -1.0))
    # What is not for cells alone is for any term, and in a tiny form ids are others.
    base = find("flow_omni")
    plain = PredictTokens(weights={"mel": Weight(0.5), "mel.stop": 0.1, "text": Weight(ids=((5, 0.5),))})
    tiny = replace(base, stages=(replace(base.stages[0], task=plain),)).tiny()
    assert tiny.stages[0].task.weights == {**plain.weights, "text": Weight()}  # type: ignore[attr-defined]
    assert from_dict(to_dict(tiny)) == tiny


def test_parts_of_vocoders_that_cannot_be_trained_so() -> None:
    vocoder = MINI.stages[1]
    refused("trains what makes 'mel', but the vocoder makes audio", stages=(replace(vocoder, task=TrainPart("mel")),))
    refused("UnitVocos, which has no losses of its own", stages=(replace(vocoder, task=TrainPart()),))
    gslm = find("gslm")
    with pytest.raises(RecipeError, match="makes 'units', but the vocoder makes mel, audio"):
        replace(gslm, stages=(replace(gslm.stages[1], task=TrainPart("units")),))


def test_counting_needs_no_memory() -> None:
    counts = count_parameters(find("gslm"))
    assert counts["ulm"] == pytest.approx(151e6, rel=0.01)
    # The public Tacotron 2 and WaveGlow, with a table of units in place of letters.
    assert counts["vocoder"] == 28_193_153 - 48 * 512 + 87_879_272


def test_a_tiny_recipe_is_a_recipe() -> None:
    for name in names():
        tiny = find(name).tiny()
        assert isinstance(tiny, Recipe)
        assert from_dict(to_dict(tiny)) == tiny
        assert sum(count_parameters(tiny).values()) < 10e6
