"""Importers: what lies on disk as a manifest. Only headers are read, so a corpus takes seconds.

Nothing found in a file is fatal: what cannot be used is recorded in ``Manifest.skipped`` with the reason.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import soundfile

from lalia.audio import SHORTEST_SECONDS
from lalia.data.cutsets import CUT_SET_SUFFIXES, from_lhotse, is_cut_set
from lalia.data.manifest import Manifest, Skipped, Utterance, absolute
from lalia.errors import DataError

__all__ = ["MANIFEST_NAME", "SUFFIXES", "discover", "from_folder", "from_librispeech"]

MANIFEST_NAME = "manifest.jsonl"
"""A folder with this file in it is what the file says."""

_SUFFIXES_OF = {
    "WAV": ("wav", "wave"), "FLAC": ("flac",), "OGG": ("ogg", "oga", "opus"), "MP3": ("mp3", "mp2"),
    "AIFF": ("aif", "aiff", "aifc"), "AU": ("au", "snd"), "CAF": ("caf",), "W64": ("w64",), "RF64": ("rf64",),
    "NIST": ("sph", "nist"), "VOC": ("voc",), "AVR": ("avr",), "IRCAM": ("sf",), "PAF": ("paf", "fap"),
    "SVX": ("svx", "8svx", "iff"), "PVF": ("pvf",), "SDS": ("sds",), "HTK": ("htk",), "WVE": ("wve",), "XI": ("xi",),
}  # fmt: skip

SUFFIXES = frozenset(
    f".{s}" for name, suffixes in _SUFFIXES_OF.items() if name in soundfile.available_formats() for s in suffixes
)
"""The suffixes of sound files: every format that libsndfile knows from its header here."""

_LIBRISPEECH = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d+")

# libsndfile reports this many frames where the header does not say.
_UNKNOWN_FRAMES = 2**62


def from_folder(path: str | Path, *, speaker: Literal["parent"] | None = None) -> Manifest:
    """Every sound file in a folder and the folders in it, ordered by path; hidden ones are left alone.

    The id is the path without its suffix (with it, where two files differ in nothing else).

    :param speaker: take the name of the folder that holds the file as the speaker.
    :raises DataError: not a folder, or nothing in it can be used.
    """
    root = _folder(path)
    files = list(_sound_files(root))
    stems = Counter(f.relative_to(root).with_suffix("") for f in files)
    found = []
    for file in files:
        relative = file.relative_to(root)
        name = relative if stems[relative.with_suffix("")] > 1 else relative.with_suffix("")
        found.append((name.as_posix(), file))
    return _checked(root, _probe_all(found, parents=speaker == "parent"))


def from_librispeech(path: str | Path, *, language: str | None = "en") -> Manifest:
    """A corpus in the layout of LibriSpeech, with speakers, and transcripts where they lie beside the sound.

    Sound files are named ``SPEAKER-CHAPTER-UTTERANCE.flac`` (or another suffix), in folders
    ``SPEAKER/CHAPTER/`` with ``SPEAKER-CHAPTER.trans.txt``, or all in one folder without transcripts.
    Source: Panayotov et al. 2015, section 5, and the README of the corpus.

    :raises DataError: not a folder, or nothing in it has such a name and can be used.
    """
    root = _folder(path)
    files = [f for f in _sound_files(root) if _LIBRISPEECH.fullmatch(f.stem)]
    if not files:
        raise DataError(f"{root} holds no files named SPEAKER-CHAPTER-UTTERANCE. Import it as a plain folder.")
    texts: dict[Path, dict[str, str]] = {}
    manifest = _probe_all([(f.stem, f) for f in files])
    unreadable: list[Skipped] = []

    def complete(u: Utterance) -> Utterance:
        match = _LIBRISPEECH.fullmatch(u.path.stem)
        assert match is not None
        transcript = u.path.with_name(f"{match['speaker']}-{match['chapter']}.trans.txt")
        if transcript not in texts:
            try:
                lines = transcript.read_text(encoding="utf-8").splitlines() if transcript.exists() else []
            except (OSError, UnicodeDecodeError):
                unreadable.append(Skipped(transcript.name, str(transcript), "transcript cannot be read as UTF-8"))
                lines = []
            texts[transcript] = dict(_key_and_text(line) for line in lines if line.strip())
        return replace(u, speaker=match["speaker"], text=texts[transcript].get(u.id), language=language)

    utterances = [complete(u) for u in manifest]
    return _checked(root, Manifest(utterances, (*manifest.skipped, *unreadable)))


def discover(paths: str | Path | Sequence[str | Path]) -> Manifest:
    """One manifest of everything named: sound files, folders, manifests, Lhotse CutSets.

    A folder is what its ``manifest.jsonl`` says if it has one, LibriSpeech if its files are named so, and
    otherwise every sound file in it. An id that two of the paths have in common is made unique by the name
    of the folder it comes from.

    :raises DataError: a path that does not exist, or nothing that can be used.
    """
    roots = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    if not roots:
        raise DataError("No recordings were named. Name a sound file, a folder or a manifest.")
    parts = [_one(root) for root in roots]
    skipped = [s for part in parts for s in part.skipped]
    ids = Counter(u.id for part in parts for u in part)
    utterances = []
    for root, part in zip(roots, parts, strict=True):
        place = absolute(root if root.is_dir() else root.parent)
        utterances += [u if ids[u.id] == 1 else replace(u, id=f"{place.name}/{u.id}") for u in part]
    return _checked(roots[0] if len(roots) == 1 else "what was named", Manifest(utterances, skipped))


def _one(root: Path) -> Manifest:
    if not root.exists():
        raise DataError(f"{root} does not exist. Check the path.")
    if root.is_dir():
        if (root / MANIFEST_NAME).is_file():
            return Manifest.load(root / MANIFEST_NAME)
        names = [f.stem for f in _sound_files(root)]
        if names and all(_LIBRISPEECH.fullmatch(name) for name in names):
            return from_librispeech(root)
        return from_folder(root)
    if root.name.endswith(CUT_SET_SUFFIXES):
        return from_lhotse(root) if is_cut_set(root) else Manifest.load(root)
    return _probe_all([(root.stem, root)])


# -- files ------------------------------------------------------------------------------------------


def _folder(path: str | Path) -> Path:
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root} does not exist. Check the path.")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Name the folder that holds the recordings.")
    return root


def _sound_files(root: Path) -> Iterator[Path]:
    """Sound files under ``root`` in an order that is the same everywhere."""
    found = []
    seen = set()
    # Corpora are often assembled from links, and a link may lead back up.
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [Path(folder, f) for f in files if not f.startswith(".") and Path(f).suffix.lower() in SUFFIXES]
    return iter(sorted(found, key=lambda f: f.relative_to(root).as_posix()))


def _probe_all(found: Sequence[tuple[str, Path]], *, parents: bool = False) -> Manifest:
    # Headers are many small reads: on a network file system threads hide most of the waiting.
    with ThreadPoolExecutor(8) as pool:
        probed = list(pool.map(lambda item: _probe(*item), found))
    utterances = [u for u in probed if isinstance(u, Utterance)]
    if parents:
        utterances = [replace(u, speaker=absolute(u.path).parent.name) for u in utterances]
    return Manifest(utterances, [s for s in probed if isinstance(s, Skipped)])


def _probe(name: str, file: Path) -> Utterance | Skipped:
    try:
        if file.stat().st_size == 0:
            return Skipped(name, str(file), "is empty")
        info = soundfile.info(str(file))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rsplit(":", 1)[-1].strip().rstrip(".")
        return Skipped(name, str(file), f"is not a sound file ({reason})")
    if info.frames >= _UNKNOWN_FRAMES:
        return Skipped(name, str(file), "does not say how long it is")
    if info.frames < SHORTEST_SECONDS * info.samplerate:
        reason = f"is too short ({info.frames} samples)" if info.frames else "is empty"
        return Skipped(name, str(file), reason)
    return Utterance(name, file, duration=info.frames / info.samplerate)


def _key_and_text(line: str) -> tuple[str, str]:
    key, _, text = line.strip().partition(" ")
    return key, text.strip()


def _checked(root: str | Path, manifest: Manifest) -> Manifest:
    if len(manifest):
        return manifest
    if not manifest.skipped:
        raise DataError(f"{root} holds no sound files. Name a folder with recordings in it.")
    first = manifest.skipped[0]
    rest = f" (and {len(manifest.skipped) - 1} more)" if len(manifest.skipped) > 1 else ""
    raise DataError(f"Nothing in {root} can be used: {first.path} {first.reason}{rest}. Check the recordings.")
