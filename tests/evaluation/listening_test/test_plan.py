"""Material and plans: what is wrong is said, and everything is rated as often as everything else."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.listening_test import KINDS, Item, Material, plan
from lalia.evaluation.listening_test.plan import CHECKS, FEWEST, cells
from lalia.evaluation.listening_test.sounds import degrade, sounds_of, wav

Make = Callable[..., Material]


def listed(systems: int, items: int) -> Material:
    names = [f"s{s}" for s in range(systems)]
    return Material(tuple(names), tuple(Item(f"i{i}", {n: Path(n) / str(i) for n in names}) for i in range(items)))


@given(
    systems=st.integers(1, 4),
    items=st.integers(1, 7),
    share=st.floats(0, 1),
    listeners=st.integers(1, 25),
    kind=st.sampled_from(["mos", "cmos"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_whenever_one_stops_ratings_are_balanced(
    systems: int, items: int, share: float, listeners: int, kind: str, seed: int
) -> None:
    material = listed(systems + (kind == "cmos"), items)
    everything = cells(material, kind, seed)  # type: ignore[arg-type]
    assert len(set(everything)) == len(everything) == items * len(material.conditions(kind))  # type: ignore[arg-type]
    ratings = 1 + int(share * (items - 1))
    counts = Counter(dict.fromkeys(everything, 0))
    for slot in range(listeners):
        mine = [
            s
            for s in plan(material, kind, slot=slot, seed=seed, ratings=ratings)  # type: ignore[arg-type]
            if s.role == "rating"
        ]
        assert len({s.item for s in mine}) == len(mine) == ratings, "nobody hears an item of two systems"
        order = material.systems.index
        counts.update(
            (s.item, tuple(sorted((s.system, s.other), key=order)) if s.other else (s.system, "")) for s in mine
        )
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_latin_square() -> None:
    material = listed(4, 8)
    of = [Counter(s.system for s in plan(material, "mos", slot=n, seed=3) if s.role == "rating") for n in range(4)]
    assert all(set(c.values()) == {2} for c in of)


@pytest.mark.parametrize("kind", KINDS)
def test_checks_come_behind_what_they_repeat(kind: str) -> None:
    material = listed(3, 10)
    for slot in range(20):
        screens = plan(material, kind, slot=slot, seed=1)  # type: ignore[arg-type]
        assert screens == plan(material, kind, slot=slot, seed=1)  # type: ignore[arg-type]
        assert sorted(s.role for s in screens if s.role != "rating") == sorted(CHECKS)
        for i, s in enumerate(screens):
            if s.role != "rating":
                before = [x for x in screens[:i] if x.role == "rating" and x.item == s.item]
                assert len(before) == 1
                assert {s.system, s.other} <= {before[0].system, before[0].other}
    assert plan(material, "mos", slot=0, seed=1) != plan(material, "mos", slot=0, seed=2)


def test_few_ratings_have_no_checks() -> None:
    assert all(s.role == "rating" for s in plan(listed(2, FEWEST - 1), "mos", slot=0, seed=0))
    for ratings in (0, 13):
        with pytest.raises(ConfigError, match="Choose from 1 to 12"):
            plan(listed(2, 6), "mos", slot=0, seed=0, ratings=ratings)


def test_folders_and_a_manifest_are_the_same(make: Make, manifest: Callable[..., Path], tmp_path: Path) -> None:
    material = make(2, 3, prompts=True)
    rows = [
        {"item": i.name, "system": s, "path": str(i.sounds[s].relative_to(tmp_path)), "prompt": str(i.prompt)}
        for s in material.systems
        for i in material.items
    ]
    assert Material.from_manifest(manifest(*rows, "")) == material
    seconds = material.check("mmos")
    assert len(seconds) == 9
    assert set(seconds.values()) == {0.3, 0.2}


def test_material_that_is_no_good(make: Make, manifest: Callable[..., Path], tmp_path: Path) -> None:
    make(2, 3)
    one, two = tmp_path / "system0", tmp_path / "system1"
    with pytest.raises(ConfigError, match="no reference for 'phrase00' and 2 more"):
        Material.from_folders({"a": one}).check("smos")
    with pytest.raises(ConfigError, match="at least two systems"):
        Material.from_folders({"a": one}).check("cmos")
    with pytest.raises(ConfigError, match="no listening test of kind 'mush'"):
        Material.from_folders({"a": one}).check("mush")  # type: ignore[arg-type]
    soundfile.write(two / "phrase01.wav", np.zeros(4000), 8000)
    (two / "phrase02.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(DataError, match=r"phrase01.wav is silent .* So it is with 1 more"):
        Material.from_folders({"a": one, "b": two}).check("mos")
    (two / "phrase01.wav").unlink()
    for pair in ({"a": one, "b": two}, {"b": two, "a": one}):
        with pytest.raises(DataError, match="System 'b' has no 'phrase01', which 'a' has"):
            Material.from_folders(pair)
    with pytest.raises(DataError, match="no recording for 'phrase01'"):
        Material.from_folders({"a": one}, prompts=two)
    (one / "phrase00.flac").write_bytes(b"")
    with pytest.raises(DataError, match="one item twice"):
        Material.from_folders({"a": one})
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no recordings"):
        Material.from_folders({"a": tmp_path / "none"})
    with pytest.raises(DataError, match="is no folder"):
        Material.from_folders({"a": tmp_path / "missing"})
    with pytest.raises(DataError, match="letters that are seen"):
        Material.from_folders({"a\nb": two})
    with pytest.raises(DataError, match="no item"):
        Material.from_manifest(manifest("")).check("mos")
    row = {"item": "i", "system": "s", "path": "p.wav"}
    for rows, says in (
        (["{"], r"jsonl:1 is not JSON"),
        ([{"item": "i"}], r"jsonl:1 lacks one of item, system, path"),
        ([row, row], r"jsonl:2 gives 'i' of 's' again"),
        ([row, row | {"system": "t", "prompt": "q"}], "another prompt or reference"),
        ([row | {"prompt": 3}], "is no path"),
    ):
        with pytest.raises(DataError, match=says):
            Material.from_manifest(manifest(*rows))
    with pytest.raises(DataError, match="cannot be read"):
        Material.from_manifest(tmp_path / "nothing.jsonl")


def test_what_is_made_worse() -> None:
    audio = Audio(0.3 * torch.sin(torch.arange(16_000) * 0.2), 16_000)
    for kind in ("mos", "mmos", "pmos", "cmos"):
        worse = degrade(audio, kind)  # type: ignore[arg-type]
        assert worse.samples.shape == audio.samples.shape
        loud, was = (float(x.samples.square().mean()) ** 0.5 for x in (worse, audio))
        assert loud == pytest.approx(was, rel=0.1)
        assert torch.equal(worse.samples, degrade(audio, kind).samples)  # type: ignore[arg-type]
        apart = torch.corrcoef(torch.stack([worse.samples[0, 0], audio.samples[0, 0]]))[0, 1]
        assert abs(apart) < 0.8
    faster = degrade(audio, "smos")
    assert (faster.sample_rate, round(faster.seconds, 2)) == (16_000, round(1 / 1.7, 2))


def test_sounds_of_screens(make: Make) -> None:
    material = make(2, 8, prompts=True, references=True)
    items = {i.name: i for i in material.items}
    for kind, parts in (
        ("mos", ["sound"]),
        ("pmos", ["sound"]),
        ("mmos", ["prompt", "sound"]),
        ("smos", ["reference", "sound"]),
        ("cmos", ["prompt", "first", "second"]),
    ):
        for screen in plan(material, kind, slot=0, seed=0):  # type: ignore[arg-type]
            played = sounds_of(screen, items[screen.item], kind)  # type: ignore[arg-type]
            assert [p.part for p in played] == parts
            assert sum(p.degraded for p in played) == (screen.role == "anchor")
            assert played[-1].path == items[screen.item].sounds[screen.system]
    whole = wav(played[-1], "mos")
    assert whole[:4] == b"RIFF"
    assert len(whole) == 44 + 2 * 2400, "a header and samples, and no tags"
