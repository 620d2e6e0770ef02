import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lalia.errors import OutputError
from lalia.files import atomic_write, sha256


def test_file_is_there_only_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_write(target) as part:
        part.write_text("whole")
        assert not target.exists()
        assert part.parent == target.parent  # a rename over a border of file systems would not be atomic
    assert target.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_failed_block_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as part:
            part.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_block_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupt() -> None:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        interrupt()
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("x")
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027, "the umask belongs to the whole process and must not be touched"
    finally:
        os.umask(before)


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "elsewhere" / "real.txt")
    with atomic_write(link) as part:
        part.write_text("x")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "real.txt").read_text() == "x"


def test_relative_path_without_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_write("a.txt") as part:
        part.write_text("x")
    assert (tmp_path / "a.txt").read_text() == "x"


def write(path: Path | str, data: bytes = b"x") -> None:
    with atomic_write(path) as part:
        part.write_bytes(data)


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/a\.txt cannot be written \(No such file.*\)\. Choose another folder\."):
        write(tmp_path / "no" / "a.txt")


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\)"):
        write(tmp_path / "f" / "a.txt")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        write(tmp_path)


def test_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device or a pipe"):
        write(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.fixture
def as_anybody() -> Iterator[Path]:
    """A folder of this user's own, seen with the rights of another user where this one may do everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        privileged = os.geteuid() == 0
        if privileged:
            os.seteuid(65534)
        yield folder
        if privileged:
            os.seteuid(0)
        folder.chmod(0o755)


def test_folder_without_permission(as_anybody: Path) -> None:
    if as_anybody.stat().st_uid == os.geteuid():
        as_anybody.chmod(0o555)
    with pytest.raises(OutputError, match=r"cannot be written \(Permission denied\)"):
        write(as_anybody / "a.txt")


def test_full_disk(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot be written \(File too large\)\. Make room"):
            write(tmp_path / "a.bin", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_killed_writer_leaves_no_file_that_looks_whole(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom lalia.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n    print('writing', flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")], stdout=subprocess.PIPE, env=environment
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
    assert not (tmp_path / "a.txt").exists()


def test_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_write(target) as one, atomic_write(target) as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert target.read_text() == "one"


def test_sha256(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
