import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.data import Manifest
from lalia.data.synthesis import Espeak, Flite
from lalia.errors import AudioError, ConfigError, DataError, WeightsError
from lalia.evaluation import load_pairs
from lalia.evaluation.sets import MINI_SETS, make_set
from lalia.evaluation.sets.balance import choose
from lalia.evaluation.sets.studio import choose_engine

SMALL = {"mini-words": 12, "mini-grammar": 2, "mini-stories": 8, "mini-acoustics": 2, "mini-phones": 2}
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", MINI_SETS)
def test_every_set_is_made_alike_twice(name: str, tones, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    first, second = (
        make_set(name, tmp_path / f, size=SMALL[name], engine=tones, progress=lambda *n: said.append(n)) for f in "ab"
    )
    assert contents(first) == contents(second)
    assert said[-1][0] == said[-1][1]
    assert sorted(tmp_path.iterdir()) == [first, second]  # nothing temporary is left
    record = json.loads((first / "set.json").read_text())
    assert record["name"] == name
    assert record["engine"] == {"name": "flite", "version": "tones"}
    assert record["voices"] == list(tones.voices[: MINI_SETS[name].num_voices])
    assert record["recordings"] == len(list(first.glob("*.flac")))
    assert sum(Audio.load(p).seconds for p in first.glob("*.flac")) == pytest.approx(record["seconds"])


@pytest.mark.parametrize("name", [n for n in MINI_SETS if n != "mini-phones"])
def test_neither_side_is_longer_or_louder(name: str, tones, tmp_path: Path) -> None:
    folder = make_set(name, tmp_path / "set", size=SMALL[name], engine=tones)
    record = json.loads((folder / "set.json").read_text())
    pairs = load_pairs(folder / "pairs.jsonl")
    for task, found in record["balance"].items():
        of = [p for p in pairs if p.task == task]
        assert found["pairs"] == len(of) == sum(record["pairs"][task].values())
        lengths = np.array([[Audio.load(p.positive).seconds, Audio.load(p.negative).seconds] for p in of])
        assert found["positive_seconds"] == pytest.approx(lengths[:, 0].mean())
        assert found["negative_seconds"] == pytest.approx(lengths[:, 1].mean())
        longer = np.mean((np.sign(lengths[:, 0] - lengths[:, 1]) + 1) / 2)
        assert found["positive_longer"] == pytest.approx(longer)
        assert 0.4 <= longer <= 0.6
        assert abs(lengths[:, 0].mean() / lengths[:, 1].mean() - 1) < 0.01


def test_another_seed_is_another_set(tones, tmp_path: Path) -> None:
    a, b = (make_set("mini-words", tmp_path / str(s), size=4, seed=s, engine=tones) for s in (0, 1))
    assert {p.id for p in load_pairs(a / "pairs.jsonl")} != {p.id for p in load_pairs(b / "pairs.jsonl")}


def test_what_is_there_is_not_made_again(tones, tmp_path: Path) -> None:
    folder = make_set("mini-phones", tmp_path / "set", size=2, engine=tones)
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    tones.speak = None  # whoever reads now fails
    assert make_set("mini-phones", folder, size=2, engine=tones) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    with pytest.raises(DataError, match=r"holds a set of another size, seed\. Choose an empty folder"):
        make_set("mini-phones", folder, size=3, seed=1, engine=tones)
    next(folder.glob("*.flac")).unlink()
    with pytest.raises(DataError, match="files were changed or lost"):
        make_set("mini-phones", folder, size=2, engine=tones)


def test_a_folder_of_something_else_is_left_alone(tones, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no set"):
        make_set("mini-words", tmp_path, size=4, engine=tones)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_a_broken_run_leaves_nothing(tones, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AudioError("flite cannot read out this. Leave it out.")

    tones.speak_phones = refuse
    with pytest.raises(AudioError, match="cannot read out"):
        make_set("mini-words", tmp_path / "set", size=4, engine=tones)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("mini-song", {}, r"There is no set 'mini-song'\. Choose from mini-words"),
        ("mini-words", {"size": 0}, "asked for 0 words. Ask for at least 1"),
        ("mini-words", {"size": 241}, "There are 240"),
        ("mini-stories", {"size": 7}, "Ask for 8, 12, 16, ... up to 64"),
        ("mini-stories", {"size": 68}, "up to 64"),
        ("mini-acoustics", {"size": 3}, "even number"),
        ("mini-phones", {"size": 10_000}, "There are "),
        ("mini-grammar", {"size": 100_000}, "Ask for fewer"),
        ("mini-words", {"voices": ["nobody"]}, "flite has no voice 'nobody'. It has slt, rms"),
        ("mini-words", {"voices": []}, "The voices are none"),
        ("mini-words", {"voices": ["slt", "slt"]}, "each once"),
    ],
)
def test_what_cannot_be_made(name: str, settings: dict, match: str, tones, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        make_set(name, tmp_path / "set", engine=tones, **settings)
    assert not list(tmp_path.iterdir())


def test_without_a_synthesizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WeightsError, match="neither flite nor espeak-ng on the PATH"):
        make_set("mini-words", tmp_path / "set")
    with pytest.raises(WeightsError, match="no program 'flite'"):
        choose_engine("flite")
    with pytest.raises(ConfigError, match="no synthesizer 'parrot'"):
        choose_engine("parrot")  # type: ignore[arg-type]


@given(st.lists(st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=1, max_size=4), max_size=8))
def test_a_choice_is_no_worse_than_the_first(items: list[list[tuple[int, ...]]]) -> None:
    options = [np.array(rows, float) for rows in items]
    chosen = choose(options)
    assert chosen == choose(options)
    if not options:
        assert chosen == []
        return
    scale = np.sqrt(np.mean(np.concatenate(options) ** 2, axis=0))
    parts = [o / np.where(scale > 0, scale, 1) for o in options]
    smallest = [int((p**2).sum(1).argmin()) for p in parts]

    def cost(indices: list[int]) -> float:
        return float((np.sum([p[i] for p, i in zip(parts, indices, strict=True)], axis=0) ** 2).sum())

    assert cost(chosen) <= cost(smallest) + 1e-6


def test_a_choice_balances() -> None:
    rng = np.random.default_rng(0)
    options = [rng.normal(0.5, 1, (4, 3)) for _ in range(60)]
    taken = np.array([o[i] for o, i in zip(options, choose(options), strict=True)])
    assert np.abs(taken.mean(axis=0)).max() < 0.02
    assert np.mean([o[0] for o in options], axis=0).min() > 0.2


# -- phones -------------------------------------------------------------------------------------


def test_items_are_the_phones(tones, tmp_path: Path) -> None:
    folder = make_set("mini-phones", tmp_path / "set", size=3, voices=["rms", "awb"], engine=tones)
    header, *lines = (folder / "phones.item").read_text().splitlines()
    assert header == "#file onset offset #phone prev-phone next-phone speaker"
    utterances = {u.id: u for u in Manifest.load(folder / "manifest.jsonl")}
    assert len(utterances) == 6
    expected = Counter()
    for u in utterances.values():
        assert u.phones is not None
        assert Audio.load(u.path).seconds == pytest.approx(u.phones[-1].end, abs=1e-3)
        for i in range(1, len(u.phones) - 1):
            before, phone, after = u.phones[i - 1 : i + 2]
            expected[
                u.id, f"{phone.start:.3f}", f"{phone.end:.3f}", phone.text, before.text, after.text, u.speaker
            ] += 1
    # A space is a phone of these tones.
    assert Counter(tuple(line.split(" ", 3)[:3]) for line in lines) == Counter(k[:3] for k in expected.elements())
    assert not [line for line in lines if line.split(" ")[3] == "pau"]


def test_an_engine_that_does_not_tell_its_phones(tones, tmp_path: Path) -> None:
    speak = tones.speak
    tones.speak = lambda *line: type(speak(*line))(speak(*line).audio)
    with pytest.raises(ConfigError, match="does not tell when it says which phone"):
        make_set("mini-phones", tmp_path / "set", size=1, engine=tones)


# -- with the real ones -------------------------------------------------------------------------


@needs_flite
def test_flite_makes_words_and_phones(tmp_path: Path) -> None:
    a, b = (make_set("mini-words", tmp_path / f, size=2, voices=["slt", "kal16"], engine="flite") for f in "ab")
    assert contents(a) == contents(b)
    assert json.loads((a / "set.json").read_text())["engine"]["version"].startswith("flite-")
    folder = make_set("mini-phones", tmp_path / "c", size=1, voices=["rms"])
    audio = Audio.load(folder / "000.rms.flac")
    _, *lines = (folder / "phones.item").read_text().splitlines()
    times = [tuple(map(float, line.split()[1:3])) for line in lines]
    assert len(times) > 8
    assert all(0 < start < end < audio.seconds for start, end in times)
    assert times == sorted(times)


@needs_flite
def test_flite_reads_phones() -> None:
    flite = Flite(segments=True)
    spoken = flite.speak_phones(["AH0", "B", "IH1", "T"], "slt")
    assert spoken.phones is not None
    assert [p.text for p in spoken.phones] == ["pau", "ax", "b", "ih", "t", "pau"]
    assert spoken.phones[-1].end == pytest.approx(spoken.audio.seconds, abs=0.02)
    assert Flite().speak_phones(["B", "IH1", "T"], "slt").phones is None
    with pytest.raises(AudioError, match="flite knows no phone 'QQ'"):
        flite.speak_phones(["B", "QQ"], "slt")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_reads_phones(tmp_path: Path) -> None:
    espeak = Espeak()
    word = espeak.speak_phones(["K", "AH0", "M", "P", "Y", "UW1", "T", "ER0"], "en-us+m3").audio
    assert word.seconds == pytest.approx(espeak.speak("computer", "en-us+m3").audio.seconds, abs=0.1)
    with pytest.raises(AudioError, match="espeak-ng knows no phone 'QQ'"):
        espeak.speak_phones(["QQ"], "en-us+m3")
    folder = make_set("mini-words", tmp_path / "set", size=2, engine="espeak-ng")
    assert len({p.voice for p in load_pairs(folder / "pairs.jsonl")}) == 2
