import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lalia.errors import DataError
from lalia.evaluation.suites.items import Item, read_keyed, read_rows, replies_of, unique


def test_rows_of_every_form(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": "é"}]
    (tmp_path / "x.json").write_text(json.dumps(rows), "utf-8")
    (tmp_path / "x.jsonl").write_text("\n\n".join(map(json.dumps, rows)), "utf-8")
    assert read_rows(tmp_path / "x.json") == read_rows(tmp_path / "x.jsonl") == rows
    table = pa.table({"a": ["x", "y"], "audio": [{"bytes": b"RIFF", "path": "q.flac"}, {"bytes": b"", "path": None}]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read_rows(tmp_path / "x.parquet") == [{"a": "x", "audio": None}, {"a": "y", "audio": None}]
    found = read_rows(tmp_path / "x.parquet", sounds=tmp_path / "sounds")
    assert Path(found[0]["audio"]).read_bytes() == b"RIFF"
    assert Path(found[0]["audio"]).suffix == ".flac"
    assert found[1]["audio"] is None


def test_other_ends_of_lines_are_part_of_a_text(tmp_path: Path) -> None:
    said = "one\u2028two\x85three\x0b"
    (tmp_path / "x.jsonl").write_text(json.dumps({"a": said}, ensure_ascii=False) + "\r\n", "utf-8")
    assert read_rows(tmp_path / "x.jsonl") == [{"a": said}]
    (tmp_path / "text").write_text("u1 one\u2028two\nu2 three\n", "utf-8")
    assert read_keyed(tmp_path / "text") == {"u1": "one\u2028two", "u2": "three"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.json", "{", "cannot be read"), ("x.json", '{"a": 1}', "not a list of objects"),
        ("x.json", "[1]", "not a list of objects"), ("x.jsonl", '{"a": 1}\nnot', "line 2 is no JSON object"),
        ("x.jsonl", "[1]", "line 1 is no JSON object"), ("x.parquet", "no", "cannot be read"),
        ("x.csv", "a", "no .json, .jsonl or .parquet"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        read_rows(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "absent.json")


def test_replies_and_ids() -> None:
    items = [Item(id="a"), Item(id="b"), Item(id="c")]
    rows = [{"one": "x", "two": "y"}, {"two": "z"}, {"one": None}]
    assert replies_of(rows, items, "one", "two") == {"a": "x", "b": "z"}
    with pytest.raises(DataError, match="1 rows of results for 3 items"):
        replies_of(rows[:1], items, "one")
    with pytest.raises(DataError, match="the id 'a'"):
        unique([*items, Item(id="a")])


def test_names_and_values(tmp_path: Path) -> None:
    file = tmp_path / "test-hyp.ark"
    file.write_text("u1 HELLO  WORLD\nu2\n\nu3\tX\n")
    assert read_keyed(file) == {"u1": "HELLO  WORLD", "u2": "", "u3": "X"}
    file.write_text("u1 A\nu1 B\n")
    with pytest.raises(DataError, match="line 2 has 'u1' a second time"):
        read_keyed(file)
