import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lalia.errors import DataError
from lalia.evaluation.suites import read_dynamic_superb, score_dynamic_superb


def test_metadata_of_the_baselines(tmp_path: Path) -> None:
    folder = tmp_path / "SpeakerVerification_LibriSpeech"
    folder.mkdir()
    data = {
        "a.wav": {"instruction": "One speaker?", "label": "Yes", "file2": "a_pair.wav"},
        "b.wav": {"instruction": "Is it said?", "text": "hello", "label": "no"},
        "c.wav": {"instruction": "Is it?", "label": "no"},
    }
    (folder / "metadata.json").write_text(json.dumps(data))
    items = read_dynamic_superb(folder / "metadata.json")
    assert items[0].audio == (folder / "a.wav", folder / "a_pair.wav")
    assert items[1].text == "Is it said?\nhello"
    assert items[0].choices == ("Yes", "no")
    assert items[0].group == "SpeakerVerification_LibriSpeech"
    found = score_dynamic_superb(items, {"00000": "yes.", "00001": "The answer is no", "00002": "perhaps"})
    assert [x["right"] for x in found.items] == [True, True, False]
    assert (found.value, found.figures["exact_match"].value) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (found.counts.answered, found.counts.unparsable) == (2, 1)
    assert "not confirmed" in found.notes[0]
    (folder / "metadata.json").write_text("[]")
    with pytest.raises(DataError, match="does not map files"):
        read_dynamic_superb(folder / "metadata.json")


def test_labels_have_no_letters(tmp_path: Path) -> None:
    data = {f"{i}.wav": {"instruction": "Is it?", "label": label} for i, label in enumerate(("no", "yes", "yes"))}
    (tmp_path / "metadata.json").write_text(json.dumps(data))
    items = read_dynamic_superb(tmp_path / "metadata.json")
    found = score_dynamic_superb(items, {"00000": "A.", "00001": "(A) Yes.", "00002": "The answer is B."})
    assert [x["right"] for x in found.items] == [False, True, False]
    assert found.counts.unparsable == 2


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    sound = {"bytes": b"fLaC", "path": "x.flac"}
    table = pa.table({
        "file": ["x.flac"], "audio": [sound], "audio2": [sound], "instruction": ["Which?"], "label": ["dog"]
    })  # fmt: skip
    pq.write_table(table, tmp_path / "test-0.parquet")
    (item,) = read_dynamic_superb(tmp_path / "test-0.parquet", name="Sounds_ESC50", sounds=tmp_path / "sounds")
    assert [p.read_bytes() for p in item.audio] == [b"fLaC", b"fLaC"]
    assert (item.group, item.references, item.extra["file"]) == ("Sounds_ESC50", ("dog",), "x.flac")
