"""Slot filling (SUPERB): which slots an utterance has, and what is in them."""

import re
from collections.abc import Mapping, Sequence

from lalia.errors import DataError
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import bootstrap_ratio, mean
from lalia.evaluation.text import Edits, character_edits

__all__ = ["Slots", "read_slots", "slot_filling"]

Slots = Mapping[str, Sequence[str]]
"""The values of each type of slot, in order."""

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1(?!\S)")
_TAG = re.compile(r"(?<!\S)[BE]-\S+")


def read_slots(text: str) -> dict[str, list[str]]:
    """The slots of a text in which ``B-type`` and ``E-type`` are words around each value, as SUPERB writes SNIPS.

    A slot that is not closed is none; tags within a value are taken out of it.
    """
    found: dict[str, list[str]] = {}
    for kind, value in _SLOT.findall(" ".join(text.split())):
        found.setdefault(kind, []).append(" ".join(_TAG.sub(" ", value).split()))
    return found


def slot_filling(references: Mapping[str, Slots], predictions: Mapping[str, Slots | None], *, seed: int = 0) -> Scored:
    """Slot-type F1 and slot-value CER by the definitions of SUPERB (s3prl ec8064b, ``metric/slot_filling.py``).

    F1 is of the set of types in an utterance, whatever their values and number, 1 where neither side has any; its
    mean is over utterances. CER is over all values of the references: each against the closest value, by its error
    rate, of the same type in the prediction (one may serve several times), or against nothing. Values that were made
    up cost no CER. Spaces count. A missing prediction has no slots.

    :raises DataError: a prediction has no reference.
    """
    rows = by_id(references, predictions)
    items, scores, errors, lengths = [], [], [], []
    for key, said, heard in rows:
        f1 = _f1(set(said), set(heard or {}))
        values = [_closest(value, (heard or {}).get(kind, ())) for kind in said for value in said[kind]]
        scores.append(f1)
        errors.append(sum(e.errors for e in values))
        lengths.append(sum(e.length for e in values))
        items.append({
            "id": key, "answered": heard is not None, "f1": f1, "errors": errors[-1], "characters": lengths[-1]
        })  # fmt: skip
    missing = sum(heard is None for _, _, heard in rows)
    if not sum(lengths):
        raise DataError("The references have no slot with a value. Check their form: B-type value E-type.")
    return Scored(
        figures={
            "slot_type_f1": mean(scores, seed=seed),
            "slot_value_cer": bootstrap_ratio(errors, lengths, seed=seed),
        },
        counts=Counts(len(rows), len(rows) - missing, failed=missing),
        items=items,
    )


def _f1(said: set[str], heard: set[str]) -> float:
    return 2 * len(said & heard) / (len(said) + len(heard)) if said or heard else 1.0


def _closest(value: str, among: Sequence[str]) -> Edits:
    return min((character_edits(value, other) for other in among or ("",)), key=lambda e: e.errors)
