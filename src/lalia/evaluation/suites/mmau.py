"""MMAU (Sakshi et al., arXiv:2410.19168): 10,000 questions with choices on speech, sounds and music.

Its file (``mmau-test-mini.json``; Sakshi113/MMAU at 110127f) is a list of objects with ``id``, ``audio_id`` (a path),
``question``, ``choices``, ``answer``, ``task``, ``difficulty``, ``category`` and ``sub-category``. The answers of
``mmau-test.json`` are hidden. A quarter of the questions was revised in v05.15.25: figures before and after are not to
be compared. Apple's benchmark of the same name is another.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lalia.evaluation.downstream.choices import token_set_match
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import share
from lalia.evaluation.suites.choosing import score_choices
from lalia.evaluation.suites.items import Item, of_row, read_rows, replies_of, text_of, unique

__all__ = ["read_mmau", "read_mmau_replies", "score_mmau"]

_KEYS = ("model_prediction", "model_output")
"""Where replies stand: the README names the first, the script reads the second."""


def read_mmau(path: str | Path) -> list[Item]:
    """The questions; sound files are named relative to the file.

    :raises DataError: it is not the published file.
    """
    source = Path(path)
    return [_item(row, source, number) for number, row in enumerate(read_rows(source))]


def _item(row: Mapping[str, object], source: Path, number: int) -> Item:
    where = f"{source}, question {number}"
    choices, answer = row.get("choices"), row.get("answer")
    return Item(
        id=text_of(row, "id", where),
        audio=(source.parent / text_of(row, "audio_id", where),),
        text=text_of(row, "question", where),
        choices=tuple(map(str, choices)) if isinstance(choices, list) else (),
        references=(answer,) if isinstance(answer, str) and answer else (),
        group=text_of(row, "task", where),
        extra=of_row(row, "id", "audio_id", "question", "choices", "answer", "task", *_KEYS),
    )


def read_mmau_replies(path: str | Path) -> dict[str, str]:
    """The replies in a file of results, under ``model_prediction`` or ``model_output``.

    :raises DataError: it is not such a file.
    """
    return replies_of(read_rows(path), read_mmau(path), *_KEYS)


def score_mmau(items: Sequence[Item], replies: Mapping[str, str | None], *, version: str = "unknown") -> Scored:
    """Accuracy by the published rule (`token_set_match`), over all, by task, difficulty and sub-category.

    A missing reply is wrong; the published script leaves it out of the mean. ``accuracy_as_read`` is by `read_choice`,
    which also takes letters: the published rule finds none in "(B)".

    :param version: of the questions, such as ``v05.15.25``.
    :raises DataError: there are no items, their answers are hidden, or a reply is for none.
    """
    read = score_choices(items, replies)  # it checks the answers, too
    rows = by_id(unique(items), replies)
    found = [
        {
            "id": key,
            "right": reply is not None and token_set_match(reply, item.references[0], item.choices),
            "as_read": other["right"],
            "reply": reply,
        }
        for (key, item, reply), other in zip(rows, read.items, strict=True)
    ]
    members: dict[str, list[bool]] = {}
    for (_, item, _), x in zip(rows, found, strict=True):
        for kind, value in (
            ("task", item.group),
            ("difficulty", item.extra.get("difficulty")),
            ("sub-category", item.extra.get("sub-category")),
        ):
            if value:
                members.setdefault(f"accuracy/{kind}/{value}", []).append(bool(x["right"]))
    failed = sum(reply is None for *_, reply in rows)
    # By the published rule every reply with a word in it is an answer, right or wrong.
    empty = sum(reply is not None and not any(c.isalnum() for c in reply) for *_, reply in rows)
    return Scored(
        figures={
            "accuracy": share([bool(x["right"]) for x in found]),
            **{name: share(members[name]) for name in sorted(members)},
            "accuracy_as_read": read.figures["accuracy"],
        },
        counts=Counts(len(rows), len(rows) - failed - empty, empty, failed),
        items=found,
        settings={"rule": "token sets, MMAU 110127f", "version": version},
        notes=("A missing reply is wrong here; the published script leaves it out.",),
    )
