"""What a textless model shows: resynthesis that is understood, and a liking for speech as it is spoken."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lalia.audio import Audio
from lalia.data import Manifest, Utterance, Word
from lalia.evaluation.memory import Listener
from lalia.evaluation.pair_scores import score_pairs
from lalia.evaluation.pairs import pairs_identity
from lalia.evaluation.protocols import HasLikelihood, Recognizer, Resynthesizes
from lalia.evaluation.results import FORMAT, data_identity, environment, save_result, tool
from lalia.evaluation.resynthesis import AGREEMENT, REFERENCES, evaluate_resynthesis
from lalia.evaluation.speech_pairs import TASKS, make_speech_pairs
from lalia.evaluation.statistics import RESAMPLES, Estimate
from lalia.evaluation.text import Normalizer, WhisperEnglish

__all__ = ["PARTS", "Textless", "evaluate_gslm", "table"]

PARTS = ("resynthesis", "pairs")

_SHOWN = ("sum", "mean")
"""Reductions; these pairs have no prompts."""


class Textless(HasLikelihood, Resynthesizes, Protocol):
    """Scores speech and resynthesizes it."""


def evaluate_gslm(
    model: Textless,
    manifest: Manifest,
    out: str | Path,
    *,
    name: str,
    identity: str,
    judge: Listener,
    second: Recognizer,
    normalizer: Normalizer | None = None,
    parts: Iterable[str] = PARTS,
    voice: int | str | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure resynthesis and pair accuracies on held-out speech, and write the result.

    The sound that was made lies in a folder named like ``out`` without its suffix.

    :param manifest: utterances of speakers with whom the model was not trained. Where they have no words with
        times, the judge's transcript is aligned.
    :param out: the result, JSON.
    :param name: of the model, for the record.
    :param identity: of its weights, for the record (their SHA-256).
    :param judge: hears originals and resyntheses, and places words.
    :param second: hears originals, as a second opinion.
    :param normalizer: Whisper's for English when not given.
    :param parts: names out of `PARTS`.
    :param voice: of the vocoder.
    :param seed: of orders and resampling.
    :param progress: called with a stage, how much of it is done, and how much there is.
    :returns: what was written.
    """
    report = progress or _silent
    normalizer = normalizer or WhisperEnglish()
    utterances = sorted(manifest, key=lambda u: u.id)
    folder = Path(out).with_suffix("")
    chosen = tuple(parts)
    result: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": "gslm",
        "model": {"name": name, "identity": identity},
        "data": {
            "identity": data_identity(utterances),
            "utterances": len(utterances),
            "seconds": manifest.seconds,
            "speakers": len({u.speaker for u in utterances if u.speaker is not None}),
        },
        "settings": {
            "seed": seed,
            "voice": voice,
            "resamples": RESAMPLES,
            "interval": 0.95,
            "agreement": AGREEMENT,
            "judge": tool(judge),
            "second": tool(second),
            "normalizer": tool(normalizer),
        },
        "environment": environment(),
    }
    if "resynthesis" in chosen:
        result["resynthesis"] = evaluate_resynthesis(
            model,
            utterances,
            judge=judge,
            second=second,
            normalizer=normalizer,
            voice=voice,
            seed=seed,
            folder=folder / "resynthesis",
            progress=lambda done, total: report("resynthesizing", done, total),
        )
    if "pairs" in chosen:
        pairs, left_out = make_speech_pairs(utterances, folder / "pairs", words=_words(judge), seed=seed)
        scored = score_pairs(model, pairs, seed=seed, progress=lambda done, total: report("scoring", done, total))
        result["pairs"] = {
            "identity": pairs_identity(pairs),
            "meaning": {task: TASKS[task].meaning for task in scored["tasks"]},
            **scored,
            "left_out": [{"task": x.task, "id": x.id, "reason": x.reason} for x in left_out],
        }
    save_result(result, out)
    return result


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _words(judge: Listener) -> Callable[[Utterance, Audio], tuple[Word, ...]]:
    def find(u: Utterance, audio: Audio) -> tuple[Word, ...]:
        if u.words is not None:
            return u.words
        text = judge([audio])[0] if u.text is None else u.text
        # Transcripts of corpora are often in capitals, which recognisers hardly ever saw.
        return judge.align(audio, text.lower() if text.isupper() else text)

    return find


def table(result: Mapping[str, Any]) -> str:
    """A result as lines of text: every figure with its 95 % interval."""
    lines = [f"{result['model']['name']}: {result['data']['utterances']} utterances, {result['data']['seconds']:.0f} s"]
    if "resynthesis" in result:
        lines += ["", *_resynthesis_lines(result)]
    if "pairs" in result:
        lines += ["", *_pair_lines(result["pairs"])]
    return "\n".join(lines)


def _resynthesis_lines(result: Mapping[str, Any]) -> list[str]:
    settings, part = result["settings"], result["resynthesis"]
    against = {
        "text": "the text",
        "second": f"{settings['second']['name']} on the original",
        "self": f"{settings['judge']['name']} on the original",
    }
    lines = [
        f"Resynthesis, heard by {settings['judge']['name']} ({part['answered']} of {part['asked']} answered)",
        f"{'':10} {'against':34} {'original':>22} {'resynthesis':>22} {'added':>22}",
    ]
    for subset, rates in part["summary"].items():
        for measure in ("wer", "cer"):
            for reference in REFERENCES:
                if reference in rates:
                    cells = (
                        Estimate(**_numbers(rates[reference][measure][side])).percent()
                        for side in ("original", "resynthesis", "added")
                    )
                    label = f"{measure.upper()} {subset}"
                    lines.append(f"{label:10} {against[reference]:34} " + " ".join(f"{cell:>22}" for cell in cells))
    agreed = part["summary"]["agreed"]
    lines.append(
        f"agreed: the {agreed['utterances']} utterances in whose original the recognisers differ in at most "
        f"{100 * settings['agreement']:.0f} % of the words; {agreed['left_out']} are left out"
    )
    return lines


def _pair_lines(part: Mapping[str, Any]) -> list[str]:
    lines = [f"{'Pairs':12} {'answered':>10} " + " ".join(f"{f'accuracy ({name})':>24}" for name in _SHOWN)]
    for task, found in part["tasks"].items():
        cells = (Estimate(**_numbers(found[name]["accuracy"])).percent() for name in _SHOWN)
        count = f"{found['answered']}/{found['asked']}"
        lines.append(f"{task:12} {count:>10} " + " ".join(f"{cell:>24}" for cell in cells))
    lines += [f"{task}: {meaning}" for task, meaning in part["meaning"].items()]
    return lines


def _numbers(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float("nan") if v is None else v for k, v in estimate.items()}
