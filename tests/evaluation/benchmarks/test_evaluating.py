"""The result of several benchmarks: what is in it, what is left out, and how it is shown."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.errors import ConfigError
from lalia.evaluation.benchmarks import BENCHMARKS, Bench, evaluate, find, goals, table
from lalia.evaluation.benchmarks.report import verdict
from lalia.evaluation.benchmarks.scene_kinds import scene
from lalia.model import Model
from lalia.recipes import find as find_recipe

LIKELY = {"mini-words", "mini-grammar", "mini-stories", "mini-acoustics", "mini-phones", "bit-rate"}
ALL = [benchmark.name for benchmark in find([]) if benchmark.name not in LIKELY]
"""What is measured where nothing is named, of a model that is talked to."""


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lalia.evaluation.benchmarks.memory.peak_of", lambda words: 2_000_000_000)


def test_everything_of_a_model_that_can_do_all(fake: Any, make_bench: Any, no_processes: None, tmp_path: Path) -> None:
    model, peer = fake(), fake(ms=lambda _: 200.0)
    bench = make_bench(model, name="mini", peer=peer, peer_name="cascade", limit=3)
    begun: list[str] = []
    result = evaluate(bench, out=tmp_path / "r.json", identity="abc", tell=begun.append)
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(result))
    assert list(result["results"]) == ALL
    assert [line.partition(":")[0] for line in begun] == ALL
    assert set(result["left_out"]) == LIKELY
    assert result["model"] == {"name": "mini", "source": "fake", "identity": "abc"}
    assert {"seed", "limit", "against", "interval", "resamples", "normalizer"} <= result["settings"].keys()
    found = {f"{n}.{f['key']}": f for n, part in result["results"].items() for f in part["figures"]}
    assert goals("mini").keys() <= found.keys(), "a goal that no benchmark measures"
    assert all(("floor" in f) == (key in goals("mini")) for key, f in found.items())
    lines = table(result).splitlines()
    (peak,) = (line for line in lines if "peak of resident memory" in line)
    assert "2000 MB [2000, 2000]" in peak
    assert "floor 3000 MB, aim 1500 MB  over the floor" in peak
    (first,) = (line for line in lines if line.startswith("  first sound, median"))
    assert first.endswith("reached")


def test_what_a_model_cannot_do_is_left_out(fake: Any, make_bench: Any) -> None:
    class Reader:
        """Reads out, and nothing else."""

        def say(self, text: str) -> Any:
            return fake().say(text)

    bench = make_bench(fake(), limit=1)
    bench.model = Reader()
    result = evaluate(bench)
    assert list(result["results"]) == ["say"]
    assert set(result["left_out"]) == {*ALL, *LIKELY} - {"say"}
    assert "answers was left out: fake cannot be asked for answers" in table(result)
    with pytest.raises(ConfigError, match="fake cannot be asked for turns"):
        evaluate(bench, ["say", "turns"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("answer", "Did you mean 'answers'"), ("latencies", "Did you mean 'latency'"), ("xyz", "There are answers, ")],
)
def test_unknown_benchmarks(name: str, message: str, fake: Any, make_bench: Any) -> None:
    with pytest.raises(ConfigError, match=f"There is no benchmark '{name}'. {message}"):
        evaluate(make_bench(fake()), [name])


@pytest.mark.parametrize(
    ("value", "floor", "aim", "expected"),
    [
        (0.9, 0.8, 0.95, "over the floor"),
        (0.95, 0.8, 0.95, "reached"),
        (0.7, 0.8, 0.95, "SHORT OF THE FLOOR"),
        (0.7, 0.8, 0.4, "over the floor"),
        (0.9, 0.8, 0.4, "SHORT OF THE FLOOR"),
        (None, 0.8, 0.4, ""),
        (0.1, "shown", "beats the cascade", ""),
    ],
)
def test_verdicts(value: float | None, floor: float, aim: float, expected: str) -> None:
    assert verdict({"value": value, "floor": floor, "aim": aim}) == expected


# -- the command, with a real model of random weights ----------------------------------------------


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lalia.model import Model
    from lalia.recipes import find

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("talker")
    Model(find("mini").tiny()).save(folder)
    return folder


def test_the_command_measures_a_model(lalia: Any, talker: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    ran = lalia("eval", talker, "answers", "turns", "robustness", "--limit", 2, "-o", out, "--json")
    assert ran.status == 0, ran.err
    assert json.loads(out.read_text()) == ran.json
    assert list(ran.json["results"]) == ["answers", "turns", "robustness"]
    assert [len(part["items"]) for part in ran.json["results"].values()] == [2, 2, 2]
    assert len(ran.json["model"]["identity"]) == 64
    assert ran.json["results"]["robustness"]["figures"][0]["value"] == 1.0
    item = ran.json["results"]["answers"]["items"][0]
    assert item["question"] == "What is the capital of France?"
    assert ran.json["results"]["answers"]["counts"] == {"asked": 2, "answered": 2, "failed": 0, "failures": {}}
    words = ("answers", "robustness", "--limit", 2, "-o", out, "--score-only", "--json")
    again = lalia("eval", talker, *words)
    assert again.status == 0, again.err
    assert again.json["results"] == {k: ran.json["results"][k] for k in ("answers", "robustness")}
    ran = lalia("eval", talker, "turns", "-o", out, "--score-only")
    assert "turns measures a model that works. Run it without --score-only." in ran.err


def test_answers_of_a_model_that_was_changed_are_not_those_of_this_one(lalia: Any, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny, folder)
    words = ("eval", folder, "likelihood", "--limit", 2, "-o", tmp_path / "r.json", "--json")
    assert lalia(*words).status == 0
    assert lalia(*words, "--score-only").status == 0
    ran = lalia(*words, "--dtype", "bfloat16")
    assert "has answers of another run: its model.dtype is None, and here it is 'bfloat16'" in ran.err
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({**recipe, "note": "something else"}))
    ran = lalia(*words, "--score-only")
    assert "has answers of another run: its model.identity is" in ran.err


def test_a_model_that_hears_as_it_speaks_plays_scenes() -> None:
    from lalia.evaluation.benchmarks.conversing import in_real_time
    from lalia.evaluation.scenes.playing import play

    torch.manual_seed(0)
    model = Model(find_recipe("moshi").tiny())
    with in_real_time(model, Bench(model, "moshi", "moshi").in_session) as session:
        played = play(scene("turn", 0, 0), session, frame=0.08)
    assert played.seconds > 0


def test_the_command_refuses_before_it_works(lalia: Any, tiny: Path, tmp_path: Path) -> None:
    for words, message in (
        (("answer",), "There is no benchmark 'answer'. Did you mean 'answers'?"),
        (("answers", "-o", tmp_path / "no" / "r.json"), "cannot be written"),
        (("transcribe", "--data", tmp_path / "none"), "does not exist"),
        (("answers",), "keeps no conversation of turns"),
    ):
        ran = lalia("eval", tiny, *words)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
        assert message in ran.err
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_benchmark_or_its_kind(lalia: Any) -> None:
    told = re.sub(r"-\s+", "-", lalia("eval", "--help").out)  # a line may end in a name
    for name in BENCHMARKS:
        public = name.partition("-")[0] in ("voicebench", "sd", "mmau", "air", "dynamic", "voxeval", "superb")
        assert name in told or (public and "suites" in told), name
