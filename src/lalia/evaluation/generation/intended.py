"""Whether generated speech says what it was meant to: the words that a recogniser hears beside the text.

``WER = (substitutions + deletions + insertions) / words of the text``, summed over all texts before dividing; ``CER``
the same over characters. The recogniser's own errors are part of both: it is named in the result, as is what makes
words equal.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lalia.audio import Audio, AudioLike
from lalia.errors import DataError
from lalia.evaluation.generation.recordings import each
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.results import tool
from lalia.evaluation.statistics import bootstrap_ratio
from lalia.evaluation.text import Normalizer, WhisperEnglish, character_edits, word_edits

__all__ = ["evaluate_intended"]

_CHUNK = 16
"""Recordings in memory at once."""


def evaluate_intended(
    recordings: Mapping[str, AudioLike],
    texts: Mapping[str, str],
    recognizer: Recognizer,
    *,
    normalizer: Normalizer | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Error rates of recordings by id against what they should say.

    Where there is no recording of a text, or silence, nothing is heard and all its words are lost: failing never pays.

    :param normalizer: Whisper's for English when not given.
    :param seed: of the bootstrap over texts.
    :returns: ``asked``, ``answered``, ``failed``; ``summary``: ``wer`` and ``cer``; ``items``: what was heard and the
        edits; ``failures``.
    :raises DataError: a recording has no text.
    """
    if alone := sorted(set(recordings) - set(texts)):
        raise DataError(f"The recording {alone[0]!r} has no text. Give one for each id.")
    normalizer = normalizer or WhisperEnglish()
    ids = sorted(texts)
    failures = [{"id": key, "reason": "There is no recording of it."} for key in ids if key not in recordings]
    heard = dict.fromkeys(ids, "")
    spoken = sorted(recordings)
    for start in range(0, len(spoken), _CHUNK):
        loaded, failed = each({key: recordings[key] for key in spoken[start : start + _CHUNK]}, _itself)
        heard.update(zip(loaded, recognizer(list(loaded.values())), strict=True))
        failures += failed
    items = []
    for key in ids:
        meant, said = normalizer(texts[key]), normalizer(heard[key])
        edits = {"wer": asdict(word_edits(meant, said)), "cer": asdict(character_edits(meant, said))}
        items.append({"id": key, "text": texts[key], "heard": heard[key], "edits": edits})
    return {
        "asked": len(texts),
        "answered": len(texts) - len(failures),
        "failed": len(failures),
        "settings": {"recognizer": tool(recognizer), "normalizer": tool(normalizer)},
        "summary": {name: _rate(items, name, seed) for name in ("wer", "cer")},
        "items": items,
        "failures": sorted(failures, key=lambda f: f["id"]),
    }


def _itself(audio: Audio) -> Audio:
    return audio


def _rate(items: list[dict[str, Any]], name: str, seed: int) -> dict[str, Any]:
    counts = [item["edits"][name] for item in items]
    errors = [sum(count[kind] for kind in ("substitutions", "deletions", "insertions")) for count in counts]
    return bootstrap_ratio(errors, [count["length"] for count in counts], seed=seed).to_dict()
