"""Pairs from whatever folder they are published in."""

from pathlib import Path
from typing import Literal

from lalia.checkpoints.cache import cache_dir
from lalia.errors import DataError
from lalia.evaluation.pairs import Pair, load_pairs
from lalia.evaluation.public_pairs.salmon import find_parts, read_salmon
from lalia.evaluation.public_pairs.story_cloze import find_stories, read_story_cloze
from lalia.evaluation.public_pairs.zerospeech import find_golds, read_gold

__all__ = ["holds_pairs", "read_pairs"]

_Form = Literal["manifest", "gold", "salmon", "stories"]


def _form(path: Path) -> _Form | None:
    """In which form a path holds pairs; None where it holds none that are known."""
    if path.is_file():
        return "gold" if path.name == "gold.csv" else "manifest"
    if not path.is_dir():
        return None
    if (path / "pairs.jsonl").is_file():
        return "manifest"
    if find_golds(path):
        return "gold"
    if find_parts(path):
        return "salmon"
    return "stories" if find_stories(path) else None


def holds_pairs(path: str | Path) -> bool:
    """Whether a folder, or a file, holds pairs in one of the forms that `read_pairs` takes; a file counts as one."""
    return _form(Path(path)) is not None


def read_pairs(path: str | Path, *, sounds: str | Path | None = None) -> list[Pair]:
    """Pairs in any of these forms, by what is there:

    - ``pairs.jsonl``, or another manifest of pairs (see `load_pairs`);
    - ZeroSpeech 2021: ``gold.csv`` beside its recordings, or folders of them (``lexical/dev``, ``syntactic``, the whole
      download): sWUGGY and sBLIMP;
    - SALMon: ``sample_{i}_{0|1}.wav`` or Parquet files, or folders of them, one for each part;
    - StoryCloze as slamkit has it: ``<id>_{correct,incorrect,mutual}.{wav,txt}``, or folders of them.

    :param sounds: where recordings are put that are no file of their own; in the cache when not given.
    :raises DataError: it holds none of these, or one that is not whole.
    """
    source = Path(path)
    place = cache_dir() / "pairs" if sounds is None else Path(sounds)
    match _form(source):
        case "manifest":
            return load_pairs(source / "pairs.jsonl" if source.is_dir() else source)
        case "gold":
            golds = [source] if source.is_file() else find_golds(source)
            pairs = [pair for gold in golds for pair in read_gold(gold)]
            files = [file for pair in pairs for file in (pair.positive, pair.negative)]
            if missing := [file for file in files if not file.is_file()]:
                raise DataError(
                    f"{missing[0]} is not there, nor are {len(missing) - 1} more of {len(files)} recordings. "
                    "Put them beside gold.csv."
                )
            return pairs
        case "salmon":
            return [pair for part in find_parts(source) for pair in read_salmon(part, place)]
        case "stories":
            return [pair for folder in find_stories(source) for pair in read_story_cloze(folder, place)]
    if not source.exists():
        raise DataError(f"{source} does not exist. Name a folder of pairs, or their manifest.")
    raise DataError(
        f"{source} holds no pairs that are known. Name a folder with pairs.jsonl, with gold.csv (sWUGGY, sBLIMP), with "
        "sample_0_0.wav or Parquet files (SALMon), or with <id>_correct.wav (StoryCloze)."
    )
