"""Spoken and topic StoryCloze (Hassid et al., arXiv:2305.13009): which ending follows the story?

In slamkit's folder a story has ``<id>_correct.wav`` and ``<id>_incorrect.wav``, and where the two begin alike apart,
``<id>_mutual.wav``, the four sentences before; ``.txt`` of the same names are the texts. In the spoken set (sSC) the
wrong ending is that of its story, in the topic set (tSC) that of another. Stories are paired by their ids, never by
the order of the files.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.folders import file_name, make_folder
from lalia.evaluation.pairs import Pair, load_pairs, save_pairs

__all__ = ["find_stories", "read_story_cloze", "story_files"]

_NAME = re.compile(r"(.+)_(correct|incorrect|mutual)\.(wav|txt)")

Files = Mapping[tuple[str, str], Path]
"""Of one story, by part (correct, incorrect, mutual) and suffix (wav, txt)."""


def find_stories(folder: Path) -> list[Path]:
    """A folder of stories itself, or those that it has."""
    candidates = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    found = [p for p in candidates if any(p.glob("*_correct.wav"))]
    return found[:1] if found[:1] == [folder] else found


def story_files(folder: Path) -> dict[str, Files]:
    """The files of each story, by id.

    :raises DataError: there is none.
    """
    stories: dict[str, dict[tuple[str, str], Path]] = {}
    for path in sorted(folder.iterdir()):
        if m := _NAME.fullmatch(path.name):
            stories.setdefault(m[1], {})[m[2], m[3]] = path
    if not stories:
        raise DataError(f"{folder} has no stories. Each is <id>_correct.wav and <id>_incorrect.wav.")
    return dict(stories)


def read_story_cloze(folder: str | Path, sounds: str | Path) -> list[Pair]:
    """The pairs of a folder, heard; the task is ``StoryCloze-`` and its name.

    Where the beginning is a file of its own, it is joined to both endings, at its sample rate and without a pause as
    slamkit joins them, and the pair knows where it ends (``split``).

    :param sounds: a folder for what is joined. It is put there once.
    :raises DataError: a story lacks a recording, or one cannot be read.
    """
    source = Path(folder)
    stories = story_files(source)
    joined = any(("mutual", "wav") in files for files in stories.values())
    for name, files in stories.items():
        for part in ("correct", "incorrect", *(["mutual"] if joined else [])):
            if (part, "wav") not in files:
                raise DataError(f"{source} has no {name}_{part}.wav. Every story needs the same files.")
    task = f"StoryCloze-{source.resolve().name}"
    if not joined:
        return [_pair(task, name, files) for name, files in stories.items()]
    place = make_folder(Path(sounds) / f"{task}-{_identity(stories)}")
    # Written last, it says that all recordings are there.
    manifest = place / "pairs.jsonl"
    if not manifest.is_file():
        save_pairs([_joined(task, name, files, place) for name, files in stories.items()], manifest)
    return load_pairs(manifest)


def _identity(stories: Mapping[str, Files]) -> str:
    """Of the files as they lie there: to hash hours of sound takes longer than to join it."""
    lines = [f"{p.resolve()} {p.stat().st_size} {p.stat().st_mtime_ns}" for f in stories.values() for p in f.values()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def _pair(task: str, name: str, files: Files) -> Pair:
    return Pair(
        task,
        name,
        files["correct", "wav"],
        files["incorrect", "wav"],
        positive_text=_text(files, "correct"),
        negative_text=_text(files, "incorrect"),
    )


def _joined(task: str, name: str, files: Files, place: Path) -> Pair:
    prompt = Audio.load(files["mutual", "wav"], mono=True)

    def told(part: str) -> Path:
        ending = Audio.load(files[part, "wav"], mono=True, sample_rate=prompt.sample_rate)
        whole = Audio(torch.cat([prompt.samples, ending.samples], dim=-1), prompt.sample_rate)
        return whole.save(place / f"{file_name(name)}_{part}.flac")

    return Pair(
        task,
        name,
        told("correct"),
        told("incorrect"),
        split=prompt.seconds,
        prompt_text=_text(files, "mutual"),
        positive_text=_text(files, "correct"),
        negative_text=_text(files, "incorrect"),
    )


def _text(files: Files, part: str) -> str | None:
    path = files.get((part, "txt"))
    if path is None:
        return None
    try:
        return path.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Give a text in UTF-8.") from None
