"""What s3prl (ec8064b) leaves of a task of SUPERB in its folder of results (``expdir``), to references and predictions.

- PR, SF: ``{split}-hyp.ark`` and ``-ref.ark``; ASR the same with the name of its language model before;
- KS, SID: ``{split}_predict.txt`` and ``_truth.txt``; IC the same as CSV with three slots; ER with a fold in the name;
- ASV: ``{split}_predict.txt``; its ``_truth.txt`` is left empty there, so that VoxCeleb's list of trials is needed;
- SD: a ``hyp*.rttm`` beside ``rttm``, that of the test set; ST: ``output-st-{split}.tsv``.

QbE leaves NIST's XML, SE and SS their figures and no sound, so that there is nothing to score: see `score_superb`.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lalia.errors import DataError
from lalia.evaluation.downstream import read_rttm
from lalia.evaluation.suites.items import read_keyed
from lalia.evaluation.suites.superb import SuperbTask

__all__ = ["TASKS", "read_superb"]

TASKS: tuple[SuperbTask, ...] = ("PR", "ASR", "KS", "IC", "SID", "ER", "ASV", "SD", "SF", "ST")
"""Those of which there are tables."""

Tables = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]
"""References and predictions by id, and what else the scorer is to be given."""


def read_superb(task: SuperbTask, folder: str | Path) -> Tables:
    """The tables of a task; of several splits or decoders, ``test``, and the first by name.

    :raises DataError: there are none, or one cannot be read; says what is looked for.
    """
    source = Path(folder)
    match task:
        case "PR" | "ASR" | "SF":
            return read_keyed(_one(source, "*-ref.ark")), read_keyed(_one(source, "*-hyp.ark")), {}
        case "KS" | "SID":
            return read_keyed(_one(source, "*_truth.txt")), read_keyed(_one(source, "*_predict.txt")), {}
        case "IC":
            return _intents(_one(source, "*_truth.csv")), _intents(_one(source, "*_predict.csv")), {}
        case "ER":
            return _folds(source)
        case "ASV":
            return _trials(source)
        case "SD":
            return read_rttm(_one(source, "*rttm", but="hyp")), read_rttm(_single(source, "hyp*.rttm")), {}
        case "ST":
            return _translations(_one(source, "*st-*.tsv"))
    raise DataError(f"s3prl leaves no tables of {task}. Choose one of {', '.join(TASKS)}.")


def _one(folder: Path, pattern: str, but: str = "\0") -> Path:
    files = sorted(p for p in folder.glob(pattern) if p.is_file() and not p.name.startswith(but))
    if not files:
        raise DataError(f"{folder} has no {pattern}. Name the folder in which s3prl left its results (expdir).")
    return next((p for p in files if p.name.startswith("test")), files[0])


def _single(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) > 1:
        raise DataError(f"{folder} has {len(files)} of {pattern}. Leave the one that was best on the development set.")
    return _one(folder, pattern)


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}). Name the folder in which s3prl left its results.") from None


def _intents(path: Path) -> dict[str, tuple[str, ...]]:
    rows = _rows(path, ",")
    for number, row in enumerate(rows, start=1):
        if len(row) != 4:
            raise DataError(f"{path}, line {number} is no file with an action, an object and a location. Write all.")
    return {row[0]: tuple(row[1:]) for row in rows}


def _folds(folder: Path) -> Tables:
    references: dict[str, str] = {}
    predictions: dict[str, str] = {}
    folds: dict[str, str] = {}
    _one(folder, "test_*_truth.txt")
    for truth in sorted(folder.glob("test_*_truth.txt")):
        fold = truth.name.removeprefix("test_").removesuffix("_truth.txt")
        for key, label in read_keyed(truth).items():
            references[f"{fold}/{key}"], folds[f"{fold}/{key}"] = label, fold
        said = read_keyed(truth.with_name(f"test_{fold}_predict.txt"))
        predictions |= {f"{fold}/{key}": label for key, label in said.items()}
    return references, predictions, {"folds": folds}


def _trials(folder: Path) -> Tables:
    path = _one(folder, "*_predict.txt")
    try:
        scores = {key: float(score.strip("[]")) for key, score in read_keyed(path).items()}
    except ValueError as error:
        raise DataError(f"{path} has a score that is no number ({error}). Name s3prl's results.") from None
    lists = sorted(folder.glob("veri_test*.txt"))
    if not lists:
        raise DataError(
            f"{folder} has no veri_test*.txt, and s3prl leaves no truth. Put VoxCeleb's list of trials there."
        )
    targets = {}
    for number, line in enumerate(lists[0].read_text("utf-8").splitlines(), start=1):
        fields = line.split()
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise DataError(f"{lists[0]}, line {number} is no trial. Write 0 or 1 and two recordings.")
        targets["_".join("-".join(name.split("/")[-3:]).split(".")[0] for name in fields[1:])] = fields[0] == "1"
    return targets, scores, {}


def _translations(path: Path) -> Tables:
    header, *rows = _rows(path, "\t") or [[]]
    if header != ["utt_id", "hyp", "ref"]:
        raise DataError(f"{path} has the columns {', '.join(header) or 'of no table'}, not utt_id, hyp and ref.")
    for number, row in enumerate(rows, start=2):
        if len(row) != 3:
            raise DataError(f"{path}, line {number} has {len(row)} fields, not 3. Test the model again.")
    return {r[0]: r[2] for r in rows}, {r[0]: r[1] for r in rows}, {}
