"""Pairs under a model: kept answers, batches, processes, and what the model is compared with."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks import Bench, evaluate, table
from lalia.evaluation.benchmarks.baselines import chance
from lalia.evaluation.benchmarks.kept import Item, Kept
from lalia.evaluation.benchmarks.minimal_pairs import MinimalPairs
from lalia.evaluation.benchmarks.steps import collect
from lalia.evaluation.benchmarks.told import Told
from lalia.evaluation.pairs import Pair, load_pairs, save_pairs

RATE = 16_000


class Likes:
    """A model that finds loud sound likely: a token of 0.1 s costs what it lacks of full scale."""

    def __init__(self, hates: float = math.inf) -> None:
        self.hates, self.asked = hates, 0

    def score(self, audio: Audio) -> Told:
        return self.score_all([audio])[0]

    def score_all(self, recordings: Sequence[Audio]) -> list[Told]:
        self.asked += len(recordings)
        if any(abs(a.seconds - self.hates) < 1e-3 for a in recordings):
            raise DataError("Not this one. Give another.")
        return [self._one(a.samples[0, 0]) for a in recordings]

    def _one(self, x: torch.Tensor) -> Told:
        loud = [float(piece.abs().max()) for piece in x.split(RATE // 10)]
        # As if the rest of a batch showed in the last digits.
        noise = 1e-7 * self.asked
        return Told([v - 1 + noise for v in loud], [0.1 * i for i in range(len(loud))], -1.0)


class Reads:
    """A text model that likes short words."""

    name, version = "reads", "1"

    def log_probs(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[torch.Tensor]:
        return [torch.tensor([-float(len(w)) for w in text.split()]) for text in texts]


class Hears:
    """A recogniser that hears one word for each loud tenth of a second."""

    name, version = "hears", "1"

    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        return [
            " ".join("a" * (1 + int(4 * float(p.abs().max()))) for p in a.samples[0, 0].split(RATE // 10))
            for a in recordings
        ]


def sound(path: Path, *levels: float) -> Path:
    x = torch.cat([level * torch.cos(torch.arange(RATE // 10) * 0.3) for level in levels])
    return Audio(x, RATE).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pairs in two tasks, some with two voices, some with a prompt; the louder is better in most of them."""
    pairs = []
    for i in range(6):
        for voice in ("v", "w"):
            files = [sound(tmp_path / f"{i}{voice}{s}.wav", 0.5, 0.1 * (i + 2 * s) + 0.05) for s in (0, 1)]
            better, worse = files if i == 3 else files[::-1]
            pairs.append(
                Pair("loud", f"{i}", better, worse, voice, "k" + str(i % 2), None, None, None, "a b", "abc bcd")
            )
    for i in range(6):
        files = [sound(tmp_path / f"s{i}{s}.wav", 0.9 - 0.5 * s, 0.1 * (i + 1), 0.3 + 0.1 * s) for s in (0, 1)]
        pairs.append(Pair("after", f"{i}", files[1], files[0], split=0.2))
    save_pairs(pairs, tmp_path / "pairs.jsonl")
    return tmp_path


def bench(model: Any, at: Path, **settings: Any) -> Bench:
    made = Bench(model, "likes", "likes", path=at, **settings)
    made.__dict__ |= {"text_lm": Reads(), "hearing": Hears()}
    return made


@pytest.fixture(autouse=True)
def _kept_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench under which others are asked has the same tools."""
    whole = Bench.instead

    def instead(self: Bench, other: Any) -> Bench:
        made = whole(self, other)
        made.__dict__ |= {"text_lm": Reads(), "hearing": Hears()}
        return made

    monkeypatch.setattr(Bench, "instead", instead)


def figures(found: Any) -> dict[str, float]:
    return {f.key: f.estimate.value for f in found.figures}


def test_every_reduction_and_every_baseline(folder: Path) -> None:
    found = MinimalPairs().run(bench(Likes(), folder))
    values = figures(found)
    assert values["loud.sum"] == values["loud.mean"] == pytest.approx(5 / 6)
    assert values["loud.chance"] == values["after.chance"] == 0.5
    # What differs first is the prompt, and what differs behind it goes the other way.
    assert values["after.sum"] == 0.0
    assert values["after.continuation"] == values["after.continuation_mean"] == 1.0
    assert values["after.pmi"] == 0.5
    assert values["loud.text_lm_sum"] == 1.0
    assert "after.text_lm_sum" not in values
    assert values["loud.cascade_sum"] == pytest.approx(1 - values["loud.sum"], abs=0.34)
    assert "6 pairs have no text for reads to read" in found.notes
    assert found.settings["counts"]["loud"] == {"asked": 12, "answered": 12, "failed": 0}
    assert set(found.details["kinds"]["loud"]) == {"k0", "k1"}
    estimate = next(f.estimate for f in found.figures if f.key == "loud.sum")
    assert estimate.n == 6


def test_a_cascade_hears_each_part_of_a_set_whatever_its_files_are_called(tmp_path: Path) -> None:
    data, place = tmp_path / "SALMon", tmp_path / "kept"
    for part, levels in (("gender_consistency", (0.1, 0.9)), ("rir_consistency", (0.9, 0.1))):
        (data / part).mkdir(parents=True)
        for i in range(3):
            for side, level in enumerate(levels):
                sound(data / part / f"sample_{i}_{side}.wav", level, 0.2 + 0.1 * i)
    values = figures(MinimalPairs().run(bench(Likes(), data, folder=place)))
    # The text model likes what is short, which is what is quiet.
    assert values["SALMon-gender_consistency.cascade_sum"] == 1.0
    assert values["SALMon-rir_consistency.cascade_sum"] == 0.0
    again = bench(None, data, folder=place, score_only=True)
    assert figures(MinimalPairs().run(again)) == values


def test_another_version_of_a_judge_answers_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "kept"
    values = figures(MinimalPairs().run(bench(Likes(), folder, folder=place)))
    monkeypatch.setattr(Reads, "version", "2")
    monkeypatch.setattr(Hears, "version", "2")
    monkeypatch.setattr(Hears, "__call__", lambda self, recordings: ["a" for _ in recordings])
    found = figures(MinimalPairs().run(bench(Likes(), folder, folder=place)))
    assert found["loud.text_lm_sum"] == values["loud.text_lm_sum"]
    assert found["loud.cascade_sum"] == 0.5 != values["loud.cascade_sum"]


def test_order_batches_and_processes_change_nothing(folder: Path, tmp_path: Path) -> None:
    alone = MinimalPairs().run(bench(Likes(), folder, batch_size=1))
    pairs = (folder / "pairs.jsonl").read_text().splitlines()
    (folder / "pairs.jsonl").write_text("\n".join(pairs[::-1]) + "\n")
    for settings in ({"batch_size": 5}, {"batch_size": 3, "workers": 2, "load": Likes}):
        again = MinimalPairs().run(bench(Likes(), folder, **settings))
        assert again.figures == alone.figures
        for a, b in zip(again.items, alone.items, strict=True):
            assert a["wins"] == b["wins"]
            assert a["positive"] == pytest.approx(b["positive"], abs=1e-4)


def test_a_run_goes_on_where_it_stopped_and_is_scored_without_the_model(folder: Path, tmp_path: Path) -> None:
    model = Likes()
    place = tmp_path / "kept"
    whole = MinimalPairs().run(bench(model, folder, folder=place))
    file = place / "pairs" / "answers.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:10]) + lines[10][:15])
    asked = model.asked
    again = MinimalPairs().run(bench(model, folder, folder=place))
    assert model.asked - asked == len(lines) - 10
    assert again.figures == whole.figures
    assert MinimalPairs().run(bench(None, folder, folder=place, score_only=True)).figures == whole.figures
    # Another sound of the same name is another question.
    sound(folder / "0v1.wav", 0.5, 0.9)
    with pytest.raises(ConfigError, match="1 of 48 items have no answer"):
        MinimalPairs().run(bench(None, folder, folder=place, score_only=True))
    with pytest.raises(DataError, match=r"its model.name is 'likes', and here it is 'other'"):
        MinimalPairs().run(replace(bench(model, folder, folder=place), name="other"))


def test_what_fails_is_counted_and_takes_nothing_with_it(folder: Path) -> None:
    sound(folder / "2w1.wav", 0.5, 0.5, 0.5, 0.5, 0.5)
    found = MinimalPairs().run(bench(Likes(hates=0.5), folder, batch_size=7))
    assert found.settings["counts"]["loud"] == {"asked": 12, "answered": 11, "failed": 1}
    assert any("1 of 18 pairs have no score: Not this one." in note for note in found.notes)
    (folder / "0v0.wav").unlink()
    with pytest.raises(DataError, match=r"0v0\.wav cannot be read"):
        MinimalPairs().run(bench(Likes(), folder))


def test_the_first_pairs_of_each_task_with_all_their_voices(folder: Path) -> None:
    found = MinimalPairs().run(bench(Likes(), folder, limit=2))
    assert found.settings["counts"] == {
        "after": {"asked": 2, "answered": 2, "failed": 0},
        "loud": {"asked": 4, "answered": 4, "failed": 0},
    }


def test_the_table_says_what_it_is_compared_with(folder: Path, tmp_path: Path) -> None:
    result = evaluate(bench(Likes(), folder), ["pairs"], out=tmp_path / "r.json")
    lines = table(result).splitlines()
    assert any("loud: chance" in line and "50.0 %" in line for line in lines)
    assert any("loud: reads reads the text, log p" in line for line in lines)
    assert any("loud: reads reads what hears hears, per token" in line for line in lines)
    assert json.loads((tmp_path / "r.json").read_text())["results"]["pairs"]["details"]["failures"] == []


def test_who_has_no_likelihood_is_told_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be asked for pairs"):
        evaluate(bench(SimpleNamespace(), folder), ["pairs"])
    with pytest.raises(DataError, match="Name their manifest"):
        evaluate(Bench(Likes(), "likes", "likes"), ["pairs"])


def test_workers_need_to_know_how_to_load(folder: Path) -> None:
    with pytest.raises(ConfigError, match="2 workers were asked for"):
        MinimalPairs().run(bench(Likes(), folder, workers=2))


def test_chance_has_the_interval_of_a_coin() -> None:
    found = chance(100)
    assert (found.value, found.n) == (0.5, 100)
    assert (found.low, found.high) == pytest.approx((0.402, 0.598), abs=1e-3)
    assert math.isnan(chance(0).value)


def test_what_is_kept_says_where_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "k.jsonl"
    kept = Kept(file, {"a": 1})
    kept.add(Item("x", {}, "1"), {"v": 2})
    kept.add(Item("y", {}, "1"), failure="No.")
    again = Kept(file, {"a": 1})
    assert again.answers == {"x": {"v": 2}}
    assert again.failed == {"y": "No."}
    assert [i.id for i in again.missing([Item("x", {}, "1"), Item("y", {}, "2"), Item("z", {}, "1")])] == ["y", "z"]
    file.write_text(file.read_text() + "nonsense\n")
    with pytest.raises(DataError, match="line 4 is not JSON"):
        Kept(file, {"a": 1})


def test_whatever_is_said_is_kept(tmp_path: Path) -> None:
    said = "one\u2028two\x85three\x0b"
    kept = Kept(tmp_path / "k.jsonl", {"a": 1})
    kept.add(Item("x", {}, "1"), {"text": said})
    assert Kept(tmp_path / "k.jsonl", {"a": 1}).answers == {"x": {"text": said}}
    files = [sound(tmp_path / f"{i}.wav", 0.1 * (i + 1)) for i in range(2)]
    save_pairs([Pair("t", "1", *files, positive_text=said)], tmp_path / "pairs.jsonl")
    assert load_pairs(tmp_path / "pairs.jsonl")[0].positive_text == said


def test_asking_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    made = Bench(None, "n", "s", batch_size=2, progress=lambda *a: told.append(a))
    items = [Item(str(i), {"i": i}, "1") for i in range(5)]
    kept = collect(lambda model, batch: [{"i": x.asks["i"]} for x in batch], items, Kept(None, {}), made)
    assert told == [("asking", 2, 5), ("asking", 4, 5), ("asking", 5, 5)]
    assert kept.answers == {str(i): {"i": i} for i in range(5)}
