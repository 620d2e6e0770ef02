"""Word, character and phone error rates over a corpus: all edits over the length of all references."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lalia.errors import DataError
from lalia.evaluation.results import tool
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import bootstrap_ratio
from lalia.evaluation.text import Edits, Normalizer, character_edits, edits, word_edits

__all__ = ["character_error_rate", "phone_error_rate", "word_error_rate"]


def word_error_rate(
    references: Mapping[str, str], predictions: Mapping[str, str | None], *, normalizer: Normalizer, seed: int = 0
) -> Scored:
    """WER, with its bootstrap over utterances. A missing prediction is an empty one: all deletions.

    :param normalizer: applied to both sides. There is no default, for it moves the figure more than most models do.
    :raises DataError: no reference has a word, or a prediction has no reference.
    """
    found = {
        key: word_edits(normalizer(said), normalizer(heard or ""))
        for key, said, heard in by_id(references, predictions)
    }
    return _rate("wer", found, predictions, {"normalizer": tool(normalizer)}, seed)


def character_error_rate(
    references: Mapping[str, str],
    predictions: Mapping[str, str | None],
    *,
    normalizer: Normalizer,
    spaces: bool = True,
    seed: int = 0,
) -> Scored:
    """CER, the same; for Chinese without ``spaces``.

    :param spaces: whether the spaces between words count.
    :raises DataError: no reference has a character, or a prediction has no reference.
    """
    found = {
        key: character_edits(normalizer(said), normalizer(heard or ""), spaces=spaces)
        for key, said, heard in by_id(references, predictions)
    }
    return _rate("cer", found, predictions, {"normalizer": tool(normalizer), "spaces": spaces}, seed)


def phone_error_rate(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, Sequence[str] | None], *, seed: int = 0
) -> Scored:
    """PER over phones as they are given: stress marks and silences count where they are not taken out before.

    :param references: phones; a text is parted at white space.
    :raises DataError: no reference has a phone, or a prediction has no reference.
    """
    found = {key: edits(_phones(a), _phones(b or ())) for key, a, b in by_id(references, predictions)}
    return _rate("per", found, predictions, {}, seed)


def _phones(said: Sequence[str]) -> list[str]:
    return said.split() if isinstance(said, str) else list(said)


def _rate(
    name: str, found: Mapping[str, Edits], predictions: Mapping[str, Any], settings: Mapping[str, Any], seed: int
) -> Scored:
    if not any(e.length for e in found.values()):
        raise DataError("All references are empty once normalised. Check them, and the normaliser.")
    kinds = {
        kind: bootstrap_ratio([getattr(e, kind) for e in found.values()], [e.length for e in found.values()], seed=seed)
        for kind in ("errors", "substitutions", "deletions", "insertions")
    }
    missing = sum(predictions.get(key) is None for key in found)
    return Scored(
        figures={name: kinds.pop("errors"), **kinds},
        counts=Counts(len(found), len(found) - missing, failed=missing),
        items=[
            {"id": key, **asdict(e), "errors": e.errors, "answered": predictions.get(key) is not None}
            for key, e in found.items()
        ],
        settings=settings,
    )
