import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lalia.data import Word, discover, from_lhotse
from lalia.errors import DataError


def _recording(path: Path, channels: int = 1, **more: Any) -> dict[str, Any]:
    ids = list(range(channels))
    source = {"type": "file", "channels": ids, "source": str(path)}
    facts = {"sampling_rate": 16000, "num_samples": 32000, "duration": 2.0, "channel_ids": ids}
    return {"id": "r", "sources": [source], **facts, **more}


def _supervision(id_: str, start: float, duration: float, **more: Any) -> dict[str, Any]:
    return {"id": id_, "recording_id": "r", "start": start, "duration": duration, "channel": 0, **more}


def _cut(id_: str, recording: dict[str, Any], *supervisions: dict[str, Any], **more: Any) -> dict[str, Any]:
    cut = {"id": id_, "start": 0, "duration": 2.0, "channel": 0, "recording": recording, "type": "MonoCut"}
    return cut | {"supervisions": list(supervisions)} | more


def _save(path: Path, cuts: list[Any]) -> Path:
    data = "".join(json.dumps(c) + "\n" for c in cuts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_supervisions_become_utterances(tmp_path: Path, sound, name: str) -> None:
    file = sound("a.wav", 2.0)
    # Supervisions are timed from the cut, word alignments from the recording.
    alignment = {"word": [["hello", 0.7, 0.3, None], ["", 1.0, 0.1, None], ["world", 1.1, 0.3], ["late", 1.9, 0.1]]}
    spoken = _supervision("s1", 0.1, 1.0, text="hello world", speaker="A", language="English", alignment=alignment)
    cuts = [
        _cut("c1", _recording(file), spoken, start=0.5, duration=1.5),
        _cut("c2", _recording(file)),
        _cut("c3", _recording(file), _supervision("x", -0.5, 1.0), _supervision("y", 1.5, 3.0, text="end")),
    ]
    path = _save(tmp_path / name, cuts)
    for manifest in (from_lhotse(path), discover(path)):
        first, whole, x, y = manifest
        assert (first.id, first.path, first.start, first.duration) == ("c1", file, 0.6, 1.0)
        assert (first.text, first.speaker, first.language) == ("hello world", "A", "English")
        assert first.words == (Word("hello", 0.1, 0.4), Word("world", 0.5, 0.8))
        assert (whole.id, whole.start, whole.duration, whole.text, whole.words) == ("c2", 0.0, 2.0, None, None)
        # What sticks out of the cut is cut off.
        assert (x.id, x.start, x.duration) == ("c3-x", 0.0, 0.5)
        assert (y.id, y.start, y.duration, y.text) == ("c3-y", 1.5, 0.5, "end")
        assert not manifest.skipped


def test_channels(tmp_path: Path, sound) -> None:
    file = sound("st.wav", 2.0, channels=2)
    other = sound("mono.wav", 2.0)
    split = _recording(file)
    split["sources"] = [
        {"type": "file", "channels": [0], "source": str(other)},
        {"type": "file", "channels": [3, 1], "source": str(file)},
    ]
    cuts = [
        _cut("c1", _recording(file, 2), _supervision("l", 0, 1), _supervision("r", 0, 1) | {"channel": 1}),
        _cut("c2", _recording(file, 2), _supervision("b", 0, 1) | {"channel": [0, 1]}, type="MultiCut"),
        _cut("c3", split, _supervision("m", 0, 1) | {"channel": 1}),
        _cut("c4", split, _supervision("n", 0, 1)),
        _cut("c5", split, _supervision("o", 0, 1) | {"channel": [0, 1]}),
        _cut("c6", _recording(file, 4), _supervision("p", 0, 1) | {"channel": [0, 1]}),
    ]
    manifest = from_lhotse(_save(tmp_path / "c.jsonl", cuts))
    assert [(u.id, u.path.name, u.channel) for u in manifest] == [
        ("c1-l", "st.wav", 0),
        ("c1-r", "st.wav", 1),
        ("c2", "st.wav", None),
        ("c3", "st.wav", 1),
        ("c4", "mono.wav", None),
    ]
    assert {s.id: s.reason for s in manifest.skipped} == {
        "c5": "has channels [0, 1] in more than one file",
        "c6": "has 2 of 4 channels",
    }


def test_what_has_no_file_behind_it_is_skipped(tmp_path: Path, sound) -> None:
    file = sound("a.wav", 2.0)
    memory = _recording(file)
    memory["sources"][0]["type"] = "memory"
    slow = [{"name": "Speed", "kwargs": {"factor": 0.9}}]
    resampled = [{"name": "Resample", "kwargs": {"source_sampling_rate": 16000, "target_sampling_rate": 8000}}]
    cuts = [
        {"id": "mixed", "tracks": [], "type": "MixedCut"},
        {"id": "pad", "duration": 1.0, "type": "PaddingCut"},
        _cut("memory", memory),
        _cut("slow", _recording(file, transforms=slow)),
        _cut("ok", _recording(file, transforms=resampled)),
        _cut("gone", _recording(tmp_path / "gone.wav")),
        _cut("outside", _recording(file), _supervision("s", 5.0, 1.0)),
        _cut("features", _recording(file)) | {"recording": None},
        {"id": "odd", "type": "MonoCut", "recording": {"sources": 3}},
    ]
    manifest = from_lhotse(_save(tmp_path / "c.jsonl", cuts))
    assert [u.id for u in manifest] == ["ok"]
    reasons = {s.id: s.reason for s in manifest.skipped}
    assert reasons.pop("odd").startswith("is not a cut as Lhotse writes it")
    assert reasons == {
        "mixed": "is a MixedCut, not a stretch of one recording",
        "pad": "is a PaddingCut, not a stretch of one recording",
        "memory": "comes from a memory, not from a file",
        "slow": "is changed on the fly (Speed)",
        "gone": "does not exist",
        "outside": "is empty",
        "features": "has no recording",
    }


def test_files_that_are_no_cut_sets(tmp_path: Path, sound) -> None:
    file = sound("a.wav", 2.0)
    good = _cut("c", _recording(file))
    with pytest.raises(DataError, match="is not JSON Lines"):
        from_lhotse(tmp_path / "cuts.yaml")
    with pytest.raises(DataError, match="does not exist"):
        from_lhotse(tmp_path / "cuts.jsonl")
    with pytest.raises(DataError, match="int is not a CutSet"):
        from_lhotse(7)
    with pytest.raises(DataError, match="entry 2 is not a cut"):
        from_lhotse(_save(tmp_path / "r.jsonl", [good, _recording(file)]))
    with pytest.raises(DataError, match=r"no cuts that can be used: p is a PaddingCut"):
        from_lhotse(_save(tmp_path / "p.jsonl", [{"id": "p", "type": "PaddingCut"}]))
    (tmp_path / "j.jsonl").write_text(json.dumps(good) + "\n{broken\n")
    with pytest.raises(DataError, match="line 2 is not JSON"):
        discover(tmp_path / "j.jsonl")
    short = _save(tmp_path / "t.jsonl.gz", [good] * 50)
    short.write_bytes(short.read_bytes()[:-30])
    with pytest.raises(DataError, match="breaks off"):
        discover(short)


def test_what_lhotse_itself_writes(tmp_path: Path, sound) -> None:
    lhotse = pytest.importorskip("lhotse", exc_type=ImportError)
    from lhotse.supervision import AlignmentItem

    file = sound("a.wav", 2.0)
    recording = lhotse.Recording.from_file(file)
    words = [AlignmentItem("hello", 0.7, 0.3), AlignmentItem("world", 1.1, 0.3)]
    said = lhotse.SupervisionSegment(
        "s", recording.id, start=0.6, duration=1.0, text="hello world", speaker="A", alignment={"word": words}
    )
    cuts = lhotse.CutSet.from_manifests(
        recordings=lhotse.RecordingSet.from_recordings([recording]),
        supervisions=lhotse.SupervisionSet.from_segments([said]),
    )
    # A window of the cut moves the supervision but not, in Lhotse, the alignment.
    windows = cuts.truncate(max_duration=1.4, offset_type="start").trim_to_supervisions()
    cuts.to_file(tmp_path / "c.jsonl.gz")
    for manifest, duration in (
        (from_lhotse(cuts), 1.0),
        (from_lhotse(tmp_path / "c.jsonl.gz"), 1.0),
        (from_lhotse(windows), 0.8),
    ):
        (u,) = manifest
        assert (u.path, u.start, u.duration, u.text, u.speaker) == (file, 0.6, duration, "hello world", "A")
        assert u.words == (Word("hello", 0.1, 0.4), Word("world", 0.5, 0.8))
    assert [s.reason for s in from_lhotse(cuts + cuts.perturb_speed(1.1)).skipped] == ["is changed on the fly (Speed)"]
