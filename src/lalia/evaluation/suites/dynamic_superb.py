"""Dynamic-SUPERB, phase 1 (Huang et al., arXiv:2309.09510): spoken tasks as instructions, answered with a label.

An instance is a data set of the hub (``DynamicSuperb/...``, Parquet with ``file``, ``audio``, perhaps ``audio2`` and
``text``, ``instruction`` and ``label``), or, as its authors' baselines read it (dynamic-superb/multimodal-llama), a
``metadata.json`` of ``{file: {"instruction", "label", "text", "file2"}}``. The metric code of the benchmark itself is
not confirmed; that of the baselines (``cal_acc_to_sheet.py``) compares reply and label as strings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lalia.errors import DataError
from lalia.evaluation.downstream.choices import read_choice
from lalia.evaluation.scored import Scored
from lalia.evaluation.statistics import share
from lalia.evaluation.suites.choosing import score_choices
from lalia.evaluation.suites.items import Item, of_row, read_rows, text_of
from lalia.evaluation.text import Basic

__all__ = ["read_dynamic_superb", "score_dynamic_superb"]

_USED = ("file", "file2", "audio", "audio2", "instruction", "label")


def read_dynamic_superb(path: str | Path, *, name: str | None = None, sounds: str | Path | None = None) -> list[Item]:
    """One instance. Its choices are all labels that it has, in alphabetical order.

    :param name: of the instance, for the record; that of its folder when not given.
    :param sounds: a folder for the recordings that a Parquet file holds.
    :raises DataError: it is neither a file of the hub nor a ``metadata.json``.
    """
    source = Path(path)
    rows = _metadata(source) if source.suffix == ".json" else read_rows(source, sounds=sounds)
    group = name or source.parent.name
    found = []
    for number, row in enumerate(rows):
        where = f"{source}, row {number}"
        audio = [row.get(k) for k in (("file", "file2") if source.suffix == ".json" else ("audio", "audio2"))]
        text = row.get("text")
        asked = text_of(row, "instruction", where)
        found.append(
            Item(
                id=f"{number:05}",
                audio=tuple(source.parent / str(a) for a in audio if a),
                text=f"{asked}\n{text}" if text else asked,
                references=(text_of(row, "label", where),),
                group=group,
                extra=of_row(row, *_USED) | {"file": row.get("file")},
            )
        )
    labels = tuple(sorted({item.references[0] for item in found}))
    return [replace(item, choices=labels) for item in found]


def _metadata(source: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(source.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read ({str(error)[:80]}). Fetch it again.") from None
    if not isinstance(data, dict) or not all(isinstance(row, dict) for row in data.values()):
        raise DataError(f"{source} does not map files to objects. Name the metadata.json of an instance.")
    return [{**row, "file": file} for file, row in data.items()]


def score_dynamic_superb(items: Sequence[Item], replies: Mapping[str, str | None]) -> Scored:
    """Accuracy of replies in which exactly one label can be read, and of those that are the label and nothing else.

    The first is `read_choice` without letters. ``exact_match`` compares normalised text, and is the closer of the two
    to the baselines' rule. Labels that no item of the instance has are no choices here.

    :raises DataError: there are no items, or a reply is for none.
    """
    result = score_choices(items, replies, read=lambda item, reply: read_choice(reply, item.choices, letters=False))
    normalize = Basic()
    exact = [
        (reply := replies.get(item.id)) is not None and normalize(reply) == normalize(item.references[0])
        for item in items
    ]
    accuracy, *others = result.figures.items()
    return replace(
        result,
        figures=dict([accuracy, ("exact_match", share(exact)), *others]),
        notes=("The benchmark's own metric code is not confirmed; its authors' baselines compare strings.",),
    )
