import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lalia.data import Manifest
from lalia.evaluation.gslm import evaluate_gslm, table
from lalia.evaluation.memory import Remembered
from lalia.evaluation.results import code_identity, data_identity, save_result
from lalia.evaluation.text import Basic


def run(model, manifest, out, listener, **kwargs):
    return evaluate_gslm(
        model,
        manifest,
        out,
        name="toy",
        identity="0" * 64,
        judge=listener,
        second=listener,
        normalizer=Basic(),
        **kwargs,
    )


def test_a_result_says_everything(scales: Manifest, tmp_path: Path, listener, likes_rising) -> None:
    stages = []
    out = tmp_path / "result.json"
    result = run(likes_rising(), scales, out, listener, seed=5, progress=lambda *x: stages.append(x[0]))
    written = json.loads(out.read_text())
    assert written == json.loads(json.dumps(result))
    assert written["model"] == {"name": "toy", "identity": "0" * 64}
    assert written["data"]["utterances"] == written["data"]["speakers"] == 10
    settings = written["settings"]
    assert settings["seed"] == 5
    assert settings["judge"] == {"name": "listens", "version": "1"}
    assert settings["normalizer"] == {"name": "basic", "version": "1"}
    assert written["environment"]["code"] == code_identity()
    assert written["pairs"]["tasks"]["reordered"]["sum"]["accuracy"]["value"] == 1
    assert len(written["pairs"]["items"]) == 40
    assert written["resynthesis"]["summary"]["all"]["text"]["wer"]["added"]["value"] == 0
    assert len(written["resynthesis"]["items"]) == 10
    assert set(stages) == {"resynthesizing", "scoring"}
    assert len(list((tmp_path / "result/resynthesis").glob("*.wav"))) == 10
    assert (tmp_path / "result/pairs/pairs.jsonl").exists()


def test_the_table_has_the_figures(scales: Manifest, tmp_path: Path, listener, likes_rising) -> None:
    result = run(likes_rising(), scales, tmp_path / "r.json", listener)
    lines = table(result).splitlines()
    assert lines[0].startswith("toy: 10 utterances")
    row = next(line for line in lines if line.startswith("reversed "))
    assert "10/10" in row
    assert row.count("100.0 % [100.0, 100.0]") == 2
    assert next(line for line in lines if line.startswith("WER all")).count("0.0 % [0.0, 0.0]") == 3
    # A result read from its file gives the same table.
    assert table(json.loads((tmp_path / "r.json").read_text())) == table(result)


def test_a_part_alone(scales: Manifest, tmp_path: Path, listener, likes_rising) -> None:
    result = run(likes_rising(), scales[:3], tmp_path / "r.json", listener, parts=["pairs"])
    assert "resynthesis" not in result
    assert "WER" not in table(result)
    assert "reversed" in table(result)
    result = run(likes_rising(), scales[:3], tmp_path / "r.json", listener, parts=["resynthesis"])
    assert "pairs" not in result


def test_a_permuted_manifest_gives_the_same(scales: Manifest, tmp_path: Path, listener, likes_rising) -> None:
    results = [
        run(likes_rising(shift=300.0), m, tmp_path / f"{n}.json", listener)
        for n, m in enumerate((scales[:4], Manifest(list(scales[:4])[::-1])))
    ]
    assert results[0] == results[1]


def test_words_are_found_where_they_are_not_known(scales: Manifest, tmp_path: Path, listener, likes_rising) -> None:
    bare = Manifest([replace(u, words=None, text=None) for u in scales[:4]])
    result = run(likes_rising(), bare, tmp_path / "r.json", listener, parts=["pairs"])
    assert result["pairs"]["tasks"]["reordered"]["sum"]["accuracy"]["value"] == 1


def test_a_second_run_asks_the_recogniser_nothing(scales: Manifest, tmp_path: Path, listener, likes_rising) -> None:
    first = run(likes_rising(), scales[:3], tmp_path / "1.json", Remembered(listener, tmp_path / "cache"))
    asked = listener.asked
    assert asked > 0
    second = run(likes_rising(), scales[:3], tmp_path / "2.json", Remembered(listener, tmp_path / "cache"))
    assert listener.asked == asked
    assert first == second


def test_data_identity(scales: Manifest, tmp_path: Path) -> None:
    found = data_identity(scales)
    assert found == data_identity(list(scales)[::-1])
    moved = [replace(u, path=shutil.copy(u.path, tmp_path / f"moved-{u.path.name}"), words=None) for u in scales]
    assert found == data_identity(moved)
    assert found != data_identity(scales[:9])
    shutil.copy(scales[0].path, moved[1].path)
    assert found != data_identity(moved)


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    path = save_result({"a": float("nan"), "b": [1.5, float("inf")], "c": ("x", None)}, tmp_path / "r.json")
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, None], "c": ["x", None]}


def test_a_tiny_model_is_measured(recordings: list[Path], tmp_path: Path, listener) -> None:
    """The real model, with random weights: what it is asked for is what it has."""
    lalia_model = pytest.importorskip("lalia.model")
    from lalia.data import Utterance, Word
    from lalia.recipes.mini_gslm import mini_gslm

    model = lalia_model.Model(mini_gslm().tiny())
    words = tuple(Word(f"w{i}", 0.3 * i, 0.3 * (i + 1)) for i in range(10))
    manifest = Manifest(
        Utterance(path.stem, path, duration=3.0, speaker=path.stem, words=words) for path in recordings[:3]
    )
    result = run(model, manifest, tmp_path / "r.json", listener)
    assert result["resynthesis"]["asked"] == 3
    for task in ("reversed", "reordered"):
        assert result["pairs"]["tasks"][task]["answered"] == 3
        assert 0 <= result["pairs"]["tasks"][task]["mean"]["accuracy"]["value"] <= 1
    assert all(item["positive"]["tokens"] > 0 for item in result["pairs"]["items"])
