"""Resynthesis: what of the words survives the way to tokens and back, heard by a recogniser.

``WER = (substitutions + deletions + insertions) / words of the reference``, summed over all utterances
before dividing; ``CER`` the same over characters. The judge makes errors of its own, so the original is
judged beside the resynthesis, and the difference of the two, resampled in pairs, is what the model adds.

References, by what there is:

- ``text``: the transcript. Absolute error rates.
- ``second``: what a second recogniser hears in the original. Its errors are in both rates, and not in their
  difference; the rate of the original is the noise floor, the disagreement of two recognisers on real speech.
- ``self``: what the judge hears in the original. The original is right by definition, so what is added is
  overestimated where the judge is unsure of the original itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lalia.audio import Audio
from lalia.data import Utterance
from lalia.errors import LaliaError
from lalia.evaluation.protocols import Recognizer
from lalia.evaluation.statistics import bootstrap_ratio
from lalia.evaluation.text import Edits, Normalizer, character_edits, word_edits

__all__ = ["AGREEMENT", "REFERENCES", "disagreement", "evaluate_resynthesis", "summarize"]

AGREEMENT = 0.3
"""Two recognisers agree on an utterance where at most this share of its words differ."""

REFERENCES = ("text", "second", "self")
_CHUNK = 16
"""Utterances in memory at once."""

_SIDES = ("original", "resynthesis")
_MEASURES: Mapping[str, Callable[[str, str], Edits]] = {"wer": word_edits, "cer": character_edits}


def evaluate_resynthesis(
    made: Callable[[Utterance, Audio], Audio],
    utterances: Sequence[Utterance],
    *,
    judge: Recognizer,
    second: Recognizer,
    normalizer: Normalizer,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compare what is heard before and after.

    Where there is no resynthesis, or it is silence or no sound, nothing is heard: all words are lost, so that
    failing never pays. An original that cannot be read is left out.

    :param made: gives the resynthesis of an utterance and its sound, or raises a LaliaError where there is none.
    :param judge: hears originals and resyntheses.
    :param second: hears originals only.
    :param seed: of the bootstrap over utterances.
    :param progress: called with how many utterances are judged, and how many there are.
    :returns: ``asked``, ``answered``, ``failed``; ``summary`` as `summarize` gives it; ``items``: what was
        heard, and the edits; ``failures``: why an utterance has no answer.
    """
    items: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    ordered = sorted(utterances, key=lambda u: u.id)
    for start in range(0, len(ordered), _CHUNK):
        kept: list[tuple[Utterance, Audio, Audio | None]] = []
        for u in ordered[start : start + _CHUNK]:
            try:
                original = u.load()
            except LaliaError as error:
                failures.append({"id": u.id, "reason": str(error)})
                continue
            try:
                after = made(u, original)
                after.check(f"the resynthesis of {u.id}")
                kept.append((u, original, after))
            except LaliaError as error:
                failures.append({"id": u.id, "reason": str(error)})
                kept.append((u, original, None))
        originals = [original for _, original, _ in kept]
        first, other = judge(originals), second(originals)
        heard = iter(judge([sound for *_, sound in kept if sound is not None]))
        for (u, _, sound), a, b in zip(kept, first, other, strict=True):
            items.append(_item(u, normalizer, original=a, second=b, resynthesis="" if sound is None else next(heard)))
        if progress is not None:
            progress(min(start + _CHUNK, len(ordered)), len(ordered))
    return {
        "asked": len(ordered),
        "answered": len(ordered) - len(failures),
        "failed": len(failures),
        "summary": summarize(items, seed=seed),
        "items": items,
        "failures": failures,
    }


def disagreement(one: str, other: str) -> float:
    """The share of words in which two normalised transcripts differ, of the longer one; symmetric."""
    longest = max(len(one.split()), len(other.split()))
    return word_edits(one, other).errors / longest if longest else 0.0


def _item(u: Utterance, normalizer: Normalizer, *, original: str, second: str, resynthesis: str) -> dict[str, Any]:
    heard = {"original": original, "second": second, "resynthesis": resynthesis}
    norm = {name: normalizer(text) for name, text in heard.items()}
    references = {"second": norm["second"], "self": norm["original"]}
    if u.text is not None:
        references["text"] = normalizer(u.text)
    return {
        "id": u.id,
        "speaker": u.speaker,
        "seconds": u.duration,
        "text": u.text,
        "heard": heard,
        "disagreement": disagreement(norm["original"], norm["second"]),
        "edits": {
            name: {
                measure: {side: asdict(count(reference, norm[side])) for side in _SIDES}
                for measure, count in _MEASURES.items()
            }
            for name, reference in references.items()
        },
    }


def summarize(items: Sequence[Mapping[str, Any]], *, seed: int = 0) -> dict[str, Any]:
    """Error rates over all items, and over those on whose original the two recognisers agree.

    :returns: ``{"all" | "agreed": {"utterances", "left_out", reference: {"wer" | "cer": {"original" |
        "resynthesis" | "added": estimate}}}}``; a reference that no item has is left out.
    """
    agreed = [item for item in items if item["disagreement"] <= AGREEMENT]
    return {
        name: {"utterances": len(part), "left_out": len(items) - len(part), **_rates(part, seed)}
        for name, part in (("all", items), ("agreed", agreed))
    }


def _rates(items: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for reference in REFERENCES:
        with_it = [item["edits"][reference] for item in items if reference in item["edits"]]
        if not with_it:
            continue
        result[reference] = {}
        for measure in _MEASURES:
            errors = {
                side: [Edits(**edits[measure][side]).errors for edits in with_it]
                for side in ("original", "resynthesis")
            }
            errors["added"] = [b - a for a, b in zip(errors["original"], errors["resynthesis"], strict=True)]
            lengths = [edits[measure]["original"]["length"] for edits in with_it]
            result[reference][measure] = {
                side: bootstrap_ratio(counts, lengths, seed=seed).to_dict() for side, counts in errors.items()
            }
    return result
