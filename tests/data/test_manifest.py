import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lalia.data import Manifest, Utterance, Word
from lalia.errors import AudioError, DataError

seconds = st.floats(0.01, 1e5, allow_nan=False)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
utterances = st.builds(
    Utterance,
    texts,
    st.sampled_from([Path("a.wav"), Path("/elsewhere/b.flac"), Path("sub/ü c.ogg")]),
    duration=seconds,
    start=st.floats(0, 1e4),
    channel=st.none() | st.integers(0, 7),
    text=st.none() | texts,
    speaker=st.none() | texts,
    language=st.none() | st.sampled_from(["en", "zh-TW"]),
    words=st.none() | st.lists(st.builds(Word, texts, st.just(0.25), st.floats(0.25, 1)), max_size=3).map(tuple),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(items=st.lists(utterances, min_size=1, max_size=6, unique_by=lambda u: u.id))
def test_what_is_saved_is_read_back(tmp_path: Path, items: list[Utterance]) -> None:
    path = Manifest(items).save(tmp_path / "m.jsonl")
    # Relative paths are relative to where the program runs until they are written.
    expected = [Path.cwd() / u.path for u in items]
    back = Manifest.load(path)
    assert [u.path for u in back] == expected
    again = Manifest.load(back.save(tmp_path / "n.jsonl"))
    for a, b, c in zip(items, back, again, strict=True):
        assert {**a.to_dict(), "path": ""}.items() == {**b.to_dict(), "path": ""}.items()
        assert b == c
    assert list(Manifest.read(path)) == list(back)


def test_sound_under_the_manifest_moves_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "wav").mkdir(parents=True)
    inside = Utterance("a", folder / "wav" / "a.wav", duration=1.0)
    outside = Utterance("b", tmp_path / "b.wav", duration=1.0)
    Manifest([inside, outside]).save(folder / "m.jsonl")
    lines = [json.loads(line) for line in (folder / "m.jsonl").read_text().splitlines()]
    assert lines[0] == {"id": "a", "path": "wav/a.wav", "duration": 1.0}
    assert lines[1]["path"] == str(tmp_path / "b.wav")
    folder.rename(tmp_path / "moved")
    assert [u.path for u in Manifest.load(tmp_path / "moved" / "m.jsonl")] == [
        tmp_path / "moved" / "wav" / "a.wav",
        tmp_path / "b.wav",
    ]


GOOD = '{"id": "a", "path": "a.wav", "duration": 1}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", "path": "b.wav"}', "'duration' is missing"),
        ('{"id": "b", "path": "b.wav", "duration": "1"}', "lasts '1'"),
        ('{"id": "b", "path": "b.wav", "duration": NaN}', "lasts nan"),
        ('{"id": "b", "path": "b.wav", "duration": true}', "lasts True"),
        ('{"id": "b", "path": "b.wav", "duration": 0}', "lasts 0"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "start": -1}', "starts at -1"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "channel": "A"}', "channel 'A'"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "speaker": 3}', "speaker 3"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "speeker": "x"}', "'speeker' is unknown"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "words": [["x", 2, 1]]}', "not a word with its times"),
        ('{"id": "", "path": "b.wav", "duration": 1}', "id ''"),
        ('{"id": "b", "path": 7, "duration": 1}', "path is 7"),
        ('["b"]', "not an object"),
        ('{"id": "b", ', "is not JSON"),
        ('{"id": "\xff"}', "is not JSON"),
        ('{"id": "a", "path": "c.wav", "duration": 1}', "already on line 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(f"{GOOD}\n\n{line}\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"m\.jsonl, line 3") as error:
        Manifest.load(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_manifests(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, message in {"none.jsonl": "does not exist", "": "cannot be read", "empty.jsonl": "no utterances"}.items():
        with pytest.raises(DataError, match=message):
            Manifest.load(tmp_path / name)


def test_ids_are_unique() -> None:
    with pytest.raises(DataError, match=r"'a' occurs twice, for x\.wav and for y\.wav"):
        Manifest([Utterance("a", Path("x.wav"), duration=1.0), Utterance("a", Path("y.wav"), duration=1.0)])


def _people(n: int) -> list[Utterance]:
    return [Utterance(f"u{i}", Path("x.wav"), duration=1.0, speaker=f"s{i // 3}") for i in range(n)]


def test_a_split_is_disjoint_by_speaker_and_of_the_asked_size() -> None:
    parts = Manifest(_people(6000)).split(fractions={"train": 0.8, "dev": 0.2}, seed=1)
    people = {name: {u.speaker for u in part} for name, part in parts.items()}
    assert not people["train"] & people["dev"]
    assert sum(len(part) for part in parts.values()) == 6000
    assert abs(len(parts["dev"]) / 6000 - 0.2) < 0.03
    assert [u.id for u in parts["dev"]] == sorted((u.id for u in parts["dev"]), key=lambda i: int(i[1:]))


@given(st.integers(0, 3), st.integers(1, 60), st.integers(0, 60))
def test_more_data_moves_nobody(seed: int, n: int, more: int) -> None:
    before = Manifest(_people(n)).split(seed=seed)
    after = Manifest(_people(n + more)).split(seed=seed)
    for name in before:
        assert {u.id for u in before[name]} <= {u.id for u in after[name]}


def test_splits_by_id_and_without_speakers() -> None:
    items = [Utterance(f"u{i}", Path("x.wav"), duration=1.0) for i in range(500)]
    assert Manifest(items).split(by="id")["dev"].utterances == Manifest(items).split()["dev"].utterances
    one = [Utterance(f"u{i}", Path("x.wav"), duration=1.0, speaker="s") for i in range(500)]
    assert sum(len(p) > 0 for p in Manifest(one).split().values()) == 1
    assert all(len(p) > 0 for p in Manifest(one).split(by="id").values())
    assert len(Manifest(one).split(fractions={"all": 1.0, "none": 0.0})["all"]) == 500


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}])
def test_shares_must_sum_to_one(fractions: dict[str, float]) -> None:
    with pytest.raises(DataError, match="do not sum to 1"):
        Manifest(_people(2)).split(fractions=fractions)


def test_an_utterance_is_its_stretch_of_its_channel(sound) -> None:
    path = sound("st.wav", 2.0, channels=2)
    whole = Utterance("w", path, duration=2.0).load(check=False)
    assert whole.samples.shape == (1, 1, 32000)
    part = Utterance("p", path, start=0.5, duration=1.0, channel=1).load()
    left, right = (Utterance("c", path, duration=2.0, channel=c).load().samples for c in (0, 1))
    assert part.samples.equal(right[..., 8000:24000])
    assert not left.equal(right)
    assert whole.samples.allclose((left + right) / 2, atol=1e-6)
    assert Utterance("r", path, duration=2.0).load(sample_rate=8000).samples.shape[-1] == 16000
    with pytest.raises(AudioError, match="not channel 5"):
        Utterance("x", path, duration=1.0, channel=5).load()
