from pathlib import Path

import numpy as np
import pytest
import soundfile

from lalia.data import Manifest, Utterance, discover, from_folder, from_librispeech
from lalia.errors import DataError


def test_a_folder(tmp_path: Path, sound) -> None:
    for name in ("b.wav", "a/x.flac", "a/x.ogg", "a/B.WAV", "c d/ü.mp3", ".hidden/h.wav", ".h.wav"):
        sound(f"in/{name}", 0.4, rate=22050)
    (tmp_path / "in/notes.txt").write_text("not sound")
    manifest = from_folder(tmp_path / "in")
    assert [u.id for u in manifest] == ["a/B", "a/x.flac", "a/x.ogg", "b", "c d/ü"]
    assert [u.path for u in manifest][3] == tmp_path / "in/b.wav"
    assert manifest[3].duration == 0.4
    assert {u.speaker for u in manifest} == {None}
    assert not manifest.skipped
    assert [u.speaker for u in from_folder(tmp_path / "in", speaker="parent")] == ["a", "a", "a", "in", "c d"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path, sound) -> None:
    sound("store/a.wav")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data").symlink_to(tmp_path / "store")
    (tmp_path / "store/up").symlink_to(tmp_path / "in")
    assert [u.id for u in from_folder(tmp_path / "in")] == ["data/a"]


def test_what_cannot_be_used_is_recorded(tmp_path: Path, sound) -> None:
    sound("in/good.wav")
    (tmp_path / "in/empty.wav").write_bytes(b"")
    (tmp_path / "in/text.flac").write_text("this is not sound")
    soundfile.write(tmp_path / "in/none.wav", np.zeros(0, np.float32), 16000)
    soundfile.write(tmp_path / "in/one.wav", np.ones(1, np.float32) / 2, 16000)
    (tmp_path / "in/gone.wav").symlink_to(tmp_path / "nowhere.wav")
    manifest = from_folder(tmp_path / "in")
    assert [u.id for u in manifest] == ["good"]
    reasons = {s.id: s.reason for s in manifest.skipped}
    assert reasons.pop("text").startswith("is not a sound file (")
    assert reasons.pop("gone").startswith("is not a sound file (")
    assert reasons == {"empty": "is empty", "none": "is empty", "one": "is too short (1 samples)"}
    assert manifest.skipped[0].path == str(tmp_path / "in/empty.wav")


def test_nothing_to_use(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no sound files"):
        from_folder(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.wav is empty \(and 1 more\)"):
        from_folder(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        from_folder(tmp_path / "a.wav")
    with pytest.raises(DataError, match="does not exist"):
        from_folder(tmp_path / "none")
    with pytest.raises(DataError, match="no files named SPEAKER-CHAPTER-UTTERANCE"):
        from_librispeech(tmp_path)


def test_librispeech_with_transcripts(tmp_path: Path, sound) -> None:
    for name in ("19/198/19-198-0001", "19/198/19-198-0000", "26/495/26-495-0000"):
        sound(f"train/{name}.flac")
    (tmp_path / "train/19/198/19-198.trans.txt").write_text("19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS WORK\n")
    (tmp_path / "train/SPEAKERS.TXT").write_text("19 | F")
    manifest = from_librispeech(tmp_path / "train")
    facts = [(u.id, u.speaker, u.text, u.language) for u in manifest]
    assert facts == [
        ("19-198-0000", "19", "NORTHANGER ABBEY", "en"),
        ("19-198-0001", "19", "THIS WORK", "en"),
        ("26-495-0000", "26", None, "en"),
    ]
    assert discover(tmp_path / "train").utterances == manifest.utterances


def test_a_broken_transcript_costs_the_text_only(tmp_path: Path, sound) -> None:
    sound("19-198-0000.flac")
    (tmp_path / "19-198.trans.txt").write_bytes(b"19-198-0000 \xff\xfe")
    manifest = from_librispeech(tmp_path)
    assert [u.text for u in manifest] == [None]
    assert [s.id for s in manifest.skipped] == ["19-198.trans.txt"]


def test_the_real_recordings(speech: Path) -> None:
    manifest = discover(speech)
    assert len(manifest) == len(list(speech.glob("*.flac")))
    assert len({u.speaker for u in manifest}) == len(manifest)
    assert 3000 < manifest.seconds < 3300
    assert manifest[0].load().samples.shape[-1] == round(manifest[0].duration * 16000)


def test_discover_tells_things_apart(tmp_path: Path, sound) -> None:
    file = sound("one/a.wav", 0.3)
    assert [(u.id, u.path) for u in discover(file)] == [("a", file)]
    assert discover([tmp_path / "one"]).utterances == discover(str(tmp_path / "one")).utterances
    # A manifest in the folder is what counts, wherever it is named.
    Manifest([Utterance("part", file, start=0.1, duration=0.2)]).save(tmp_path / "one/manifest.jsonl")
    for path in (tmp_path / "one", tmp_path / "one/manifest.jsonl"):
        assert [(u.id, u.start) for u in discover(path)] == [("part", 0.1)]


def test_discover_keeps_ids_apart(tmp_path: Path, sound) -> None:
    for name in ("x/a.wav", "y/a.wav", "y/b.wav"):
        sound(name)
    assert [u.id for u in discover([tmp_path / "x", tmp_path / "y"])] == ["x/a", "y/a", "b"]
    assert [u.id for u in discover([tmp_path / "x/a.wav", tmp_path / "y/a.wav"])] == ["x/a", "y/a"]
    with pytest.raises(DataError, match="occurs twice"):
        discover([tmp_path / "x/a.wav", tmp_path / "x/a.wav"])


def test_discover_says_what_is_wrong(tmp_path: Path, sound) -> None:
    with pytest.raises(DataError, match="No recordings were named"):
        discover([])
    with pytest.raises(DataError, match=r"gone\.wav does not exist"):
        discover([tmp_path / "gone.wav"])
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(DataError, match=r"text\.txt is not a sound file"):
        discover(tmp_path / "text.txt")
    # One bad file among good ones is skipped.
    manifest = discover([tmp_path / "text.txt", sound("ok.wav")])
    assert [u.id for u in manifest] == ["ok"]
    assert [s.id for s in manifest.skipped] == ["text"]
