"""SALMon (Maimon et al., arXiv:2409.07437): does a model hear what changes in a recording, beside its words?

A part (``speaker_consistency``, ``bg_alignment``, ...) is a folder of ``sample_{i}_{0|1}.wav``, of which 0 is the
positive; on the hub (``slprl/SALMon``, CC BY-NC 4.0) it is a folder of Parquet files with the columns
``positive_audio`` and ``negative_audio``. Its shipped configurations score by the mean over tokens, its code by the
sum unless told.
"""

import re
from pathlib import Path

from lalia.errors import DataError
from lalia.evaluation.folders import make_folder
from lalia.evaluation.pairs import Pair, load_pairs, save_pairs
from lalia.files import sha256

__all__ = ["find_parts", "is_parquet_part", "read_salmon"]

_SAMPLE = re.compile(r"sample_(\d+)_([01])\.wav")
_COLUMNS = ("positive_audio", "negative_audio")
_EVERYTHING = "all"
"""A part of the hub that has the pairs of all the others."""


def find_parts(folder: Path) -> list[Path]:
    """A folder, if it is a part, or the parts that it has."""
    if _is_part(folder):
        return [folder]
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_part(path)]
    return [p for p in found if p.name != _EVERYTHING] or found


def _is_part(folder: Path) -> bool:
    return any(_SAMPLE.fullmatch(p.name) for p in folder.glob("sample_*.wav")) or is_parquet_part(folder)


def is_parquet_part(folder: Path) -> bool:
    """Whether a folder has Parquet files with the columns of SALMon."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = next(iter(sorted(folder.glob("*.parquet"))), None)
    if first is None:
        return False
    try:
        return set(pq.read_schema(first).names) >= set(_COLUMNS)
    except (OSError, pa.ArrowException):
        return False


def read_salmon(part: str | Path, sounds: str | Path) -> list[Pair]:
    """The pairs of a part; the task is ``SALMon-`` and its name.

    :param sounds: a folder for the recordings that are cells of Parquet files. They are put there once.
    :raises DataError: a sample lacks its counterpart, or a file cannot be read.
    """
    folder = Path(part)
    task = f"SALMon-{folder.resolve().name}"
    files = {m.groups(): path for path in folder.glob("sample_*.wav") if (m := _SAMPLE.fullmatch(path.name))}
    if not files:
        return _from_parquet(task, sorted(folder.glob("*.parquet")), Path(sounds))
    pairs = []
    for number in sorted({i for i, _ in files}, key=int):
        for side in "01":
            if (number, side) not in files:
                raise DataError(f"{folder} has no sample_{number}_{side}.wav. Fetch the part again.")
        pairs.append(Pair(task, number, files[number, "0"], files[number, "1"]))
    return pairs


def _from_parquet(task: str, sources: list[Path], sounds: Path) -> list[Pair]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not sources:
        raise DataError(f"{task} has neither sample_*.wav nor Parquet files. Fetch it again.")
    place = make_folder(sounds / f"{task}-{'-'.join(sha256(s)[:12] for s in sources)}")
    # Written last, it says that all recordings are there.
    manifest = place / "pairs.jsonl"
    if manifest.is_file():
        return load_pairs(manifest)
    pairs: list[Pair] = []
    for source in sources:
        try:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=16, columns=list(_COLUMNS)):
                for row in batch.to_pylist():
                    pairs.append(_extracted(task, len(pairs), row, source, place))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{source} cannot be read ({str(error)[:80]}). Fetch it again.") from None
    if not pairs:
        raise DataError(f"{sources[0]} has no rows. Fetch it again.")
    save_pairs(pairs, manifest)
    return pairs


def _extracted(task: str, number: int, row: dict[str, object], source: Path, place: Path) -> Pair:
    files = []
    for side, column in enumerate(_COLUMNS):
        cell = row[column]
        if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes):
            raise DataError(f"{source}, row {number} has no recording in {column}. Fetch it again.")
        suffix = Path(cell.get("path") or "").suffix or ".wav"
        files.append(place / f"sample_{number}_{side}{suffix}")
        files[-1].write_bytes(cell["bytes"])
    return Pair(task, str(number), files[0], files[1])
