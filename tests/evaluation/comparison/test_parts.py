"""Parts are read from recipes: what is alike but for one part is found, whatever its name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.evaluation.alone import Alone
from lalia.evaluation.comparison.parts import AXES, alike_but_for, labels, parts_of
from lalia.layouts import Parallel
from lalia.lm import HF, Linear, Lookup
from lalia.model import Model
from lalia.recipe import Recipe, Stream
from lalia.recipes import find
from lalia.tokenizers import Codec
from lalia.vocoders import CodecDecoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recipe() -> Any:
    return find("mini-gslm").tiny()


def parts(recipe: Any) -> dict[str, Any]:
    return parts_of(Model(recipe))


def sliced(codebooks: tuple[int, int] | None) -> Any:
    """A recipe over codebooks of a tiny codec."""
    codec = Codec.Config(16_000).tiny()
    stream = Stream(codec, codebooks=codebooks)
    count = 8 if codebooks is None else codebooks[1] - codebooks[0]
    lm = replace(
        find("mini-gslm").tiny().lms["ulm"],
        layout=Parallel(("speech",), delays=tuple(range(count))),
        inputs={"speech": Lookup()},
        heads={"speech": Linear.Config()},
    )
    return Recipe(
        name="sliced",
        paper="",
        streams={"speech": stream},
        lms={"lm": lm},
        vocoder=CodecDecoder.Config("speech", codec),
    )


def test_parts_of_a_tiny_model(recipe: Any) -> None:
    model = Model(recipe)
    found = parts_of(model)
    assert {a: found["axes"][a]["label"].split("(")[0].split(" ")[0] for a in AXES} == {
        "tokenizer": "SSLUnits",
        "lm": "Transformer",
        "start": "cold",
        "layout": "Flat",
        "vocoder": "UnitVocos",
    }
    assert found["stream"]["codebook_size"] == recipe.streams["units"].tokenizer.clusters
    count = sum(p.numel() for p in model.module.parameters())
    assert found["parameters"]["lm"] + found["parameters"]["vocoder"] == count
    assert found["parameters"]["tokenizer"] == sum(p.numel() for p in model.tokenizer("units").parameters())


def test_neither_the_name_of_the_model_nor_that_of_a_stream_matters(recipe: Any) -> None:
    lm = recipe.lms["ulm"]
    other = replace(
        recipe,
        name="other",
        streams={"codes": recipe.streams["units"]},
        lms={
            "lm": replace(
                lm,
                layout=replace(lm.layout, stream="codes"),
                inputs={"codes": lm.inputs["units"]},
                heads={"codes": lm.heads["units"]},
            )
        },
        vocoder=replace(recipe.vocoder, stream="codes"),
        stages=(),
    )
    assert parts(other)["axes"] == parts(recipe)["axes"]


def test_models_that_differ_in_one_part_are_found(recipe: Any) -> None:
    units = recipe.streams["units"]
    coarse = replace(
        recipe, streams={"units": replace(units, tokenizer=replace(units.tokenizer, clusters=20))}, stages=()
    )
    wide = replace(recipe, vocoder=replace(recipe.vocoder, num_layers=recipe.vocoder.num_layers + 1))
    both = replace(coarse, vocoder=wide.vocoder)
    models = [parts(r) for r in (recipe, coarse, wide, both, recipe)]
    assert alike_but_for(models, "tokenizer") == [[0, 1], [2, 3]]
    assert alike_but_for(models, "vocoder") == [[0, 2], [1, 3]]
    assert alike_but_for(models, "lm") == []
    names = labels(models)
    assert names[0] == names[4]
    assert names[0]["vocoder"] != names[2]["vocoder"]
    assert "num_layers" in names[2]["vocoder"]
    assert names[2]["vocoder"] == names[3]["vocoder"]
    assert "20 clusters" in names[1]["tokenizer"]


def test_a_layout_goes_with_a_tokenizer_that_has_no_other(recipe: Any) -> None:
    units, lm, paper = recipe.streams["units"], recipe.lms["ulm"], find("pgslm").tiny()
    names = ("units", "durations", "log_f0")

    def timed(delays: tuple[int, ...]) -> Any:
        return replace(
            recipe,
            streams={n: units if n == "units" else paper.streams[n] for n in names},
            lms={
                "ulm": replace(
                    lm,
                    layout=Parallel(names, delays=delays),
                    inputs=dict.fromkeys(names, Lookup()),
                    heads=dict.fromkeys(names, Linear.Config(tied=True)),
                )
            },
            vocoder=replace(recipe.vocoder, predict_durations=False, durations="durations", conditions=("log_f0",)),
            stages=(),
        )

    plain, prosody, delayed = parts(recipe), parts(timed((0, 0, 0))), parts(timed((0, 1, 1)))
    assert alike_but_for([plain, prosody], "tokenizer") == [[0, 1]]
    assert alike_but_for([plain, delayed], "tokenizer") == [[0, 1]]
    # Where there is a choice of layouts, the two are not compared through one another.
    assert alike_but_for([plain, prosody, delayed], "tokenizer") == []
    assert alike_but_for([plain, prosody, delayed], "layout") == [[1, 2]]
    coarse = replace(
        recipe, streams={"units": replace(units, tokenizer=replace(units.tokenizer, clusters=20))}, stages=()
    )
    assert alike_but_for([plain, parts(coarse), prosody], "tokenizer") == [[0, 1, 2]]
    # A model that is another in all its parts gives none of them a choice.
    assert alike_but_for([plain, parts(find("cascade").tiny()), prosody], "tokenizer") == [[0, 2]]


def test_a_start_is_read_from_the_backbone(recipe: Any) -> None:
    lm = recipe.lms["ulm"]

    def over(name: str) -> dict[str, Any]:
        backbone = HF.Config(name, new_vocabulary=True).tiny()
        model = Model(replace(recipe, lms={"ulm": replace(lm, backbone=backbone)}, stages=()))
        found = parts_of(model)
        # A tiny one is never pretrained; what a recipe says of a full one is read without its weights.
        warm = replace(model.recipe.lms["ulm"], backbone=replace(backbone, pretrained=True))
        model.recipe = replace(model.recipe, lms={"ulm": warm})
        return {"cold": found, "warm": parts_of(model)}

    found = over("facebook/opt-1.3b")
    assert found["cold"]["axes"]["start"]["label"] == "cold"
    assert found["warm"]["axes"]["start"]["label"] == "continued from opt-1.3b"
    assert alike_but_for([found["cold"], found["warm"]], "start") == [[0, 1]]


def test_trained_tokenizers_with_one_configuration_are_two(recipe: Any) -> None:
    found = []
    for factor in (1.0, 2.0):
        tokenizer = recipe.streams["units"].tokenizer.build()
        tokenizer.load_weights({n: factor * t for n, t in tokenizer.named_buffers(recurse=False)})
        learned, identities = {"units": tokenizer.weights()}, {"units": tokenizer.identity}
        found.append(parts_of(Model(recipe, learned=learned, identities=identities)))
    one, two = found
    assert alike_but_for([one, two], "tokenizer") == [[0, 1]]
    assert "identity" in labels([one, two])[0]["tokenizer"]


def test_a_codec_alone_has_a_tokenizer_and_a_vocoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = Codec.Config().tiny().build()
    found = parts_of(Alone(codec))
    assert found["axes"]["lm"]["label"] == "none"
    assert found["axes"]["vocoder"]["label"] == "CodecDecoder"
    assert sum(found["parameters"].values()) == sum(p.numel() for p in codec.parameters())
    assert found["parameters"]["vocoder"] == sum(p.numel() for p in codec.decoder.parameters())
    assert found["stream"]["nominal_bit_rate"] > 0


def test_a_codec_of_which_fewer_codebooks_are_taken_is_another() -> None:
    fewer, all_of_it, none_left_out = (parts(sliced(books)) for books in ((0, 2), None, (0, 8)))
    assert "(8 × " in all_of_it["axes"]["tokenizer"]["label"]
    assert "(2 of 8 × " in fewer["axes"]["tokenizer"]["label"]
    assert none_left_out["axes"]["tokenizer"] == all_of_it["axes"]["tokenizer"]
    assert labels([fewer, all_of_it])[0]["tokenizer"] != labels([fewer, all_of_it])[1]["tokenizer"]
    assert fewer["stream"]["nominal_bit_rate"] == all_of_it["stream"]["nominal_bit_rate"] / 4


@pytest.mark.parametrize("name", ["mini", "cascade", "moshi", "dgslm", "pgslm", "spirit-lm", "llama-omni", "audiolm"])
def test_every_kind_of_recipe_has_parts(name: str) -> None:
    found = parts(find(name).tiny())
    assert set(found["axes"]) == set(AXES)
    assert all(part["label"] for part in found["axes"].values())
    assert labels([found])[0]["lm"] == found["axes"]["lm"]["label"]
