import json
import shutil
from dataclasses import replace
from pathlib import Path

from lalia.data import Manifest
from lalia.evaluation.results import data_identity, save_result


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
