from typing import Any

from lalia.config import from_dict
from lalia.overview import describe, table
from lalia.recipes import find, names


def test_the_table_has_every_recipe(lalia: Any) -> None:
    ran = lalia("recipes")
    assert ran.status == 0
    head, *rows = ran.out.splitlines()
    assert head.split()[:2] == ["recipe", "paper"]
    assert [row.split()[0] for row in rows] == names()
    assert ran.out == table([describe(find(n)) for n in names()]) + "\n"


def test_one_recipe_in_full(lalia: Any) -> None:
    ran = lalia("recipes", "gslm")
    assert ran.status == 0
    for part in (
        "arXiv:2102.01192",
        "SSLUnits(facebook/hubert-base-ls960, layer 6), 100 codes at 50 Hz, repeats removed",
        "151.3 M parameters",
        "0  1  2",
        "Tacotron2 -> WaveGlow, 116.0 M parameters",
        "stages: pretrain, spectrogram, waveform",
        "offline: tiny only; it needs facebook/hubert-base-ls960 (the hub)",
    ):
        assert part in ran.out


def test_as_data(lalia: Any) -> None:
    rows = lalia("recipes", "--json").json
    assert [row["name"] for row in rows] == names()
    one = lalia("recipes", "mini-gslm", "--json").json
    assert one["offline"] == "whole"
    assert one["needs"] == ["whisper-tiny.en"]
    assert one["layouts"] == {"ulm": "Flat"}
    assert one["heads"] == {"ulm": {"units": "Linear"}}
    assert one["stages"] == ["pretrain", "vocoder"]
    assert from_dict(one["recipe"]) == find("mini-gslm")


def test_a_tiny_recipe_needs_nothing() -> None:
    described = describe(find("gslm").tiny())
    assert described.data["needs"] == []
    assert described.data["offline"] == "whole"
    assert described.text.endswith("offline: whole")


def test_an_unknown_recipe(lalia: Any) -> None:
    ran = lalia("recipes", "gslmm")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "error: There is no recipe 'gslmm'. Did you mean 'gslm'?\n"
