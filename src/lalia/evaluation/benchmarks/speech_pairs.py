"""Whether speech is found more likely as it was spoken than backwards, or with its words in another order."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.data import Utterance, Word
from lalia.evaluation.benchmarks.base import Found
from lalia.evaluation.benchmarks.kept import Kept
from lalia.evaluation.benchmarks.minimal_pairs import MinimalPairs
from lalia.evaluation.folders import file_name
from lalia.evaluation.memory import Listener
from lalia.evaluation.results import data_identity, save_result, tool
from lalia.evaluation.speech_pairs import TASKS, make_speech_pairs

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["SpeechPairs"]

_MADE = "made.json"


class SpeechPairs(MinimalPairs):
    """Pairs made of recordings, see `evaluation.speech_pairs`; where words have no times, the judge finds them.

    They are of speech that the model was not trained on where its recordings are.
    """

    def __init__(self) -> None:
        super().__init__("speech-pairs", "speech as it was spoken is found more likely than spliced")

    def manifest(self, bench: "Bench") -> Path:
        folder = Path(tempfile.gettempdir()) / f"lalia-{self.name}-{file_name(bench.name)}"
        if bench.folder is not None:
            folder = bench.folder / self.name / "made"
        recordings = bench.recordings
        whence = {
            "data": data_identity(recordings),
            "words": {u.id: [list(w) for w in u.words] for u in recordings if u.words is not None},
            "seed": bench.seed,
            "judge": tool(bench.judge),
        }
        path = folder / "pairs.jsonl"
        if not path.is_file() or _made(folder).get("of") != whence:
            _, left_out = make_speech_pairs(recordings, folder, words=_words(bench.judge), seed=bench.seed)
            reasons = [{"task": x.task, "id": x.id, "reason": x.reason} for x in left_out]
            save_result({"of": whence, "left_out": reasons}, folder / _MADE)
        return path

    def score(self, bench: "Bench", kept: Kept) -> Found:
        found = super().score(bench, kept)
        left_out = _made(self.manifest(bench).parent)["left_out"]
        meaning = {task: TASKS[task].meaning for task in found.settings["counts"]}
        notes = [f"{len(left_out)} pairs could not be made: {left_out[0]['reason']}"] if left_out else []
        return replace(
            found,
            settings={**found.settings, "meaning": meaning},
            notes=[*found.notes, *(f"{task}: {words}" for task, words in meaning.items()), *notes],
            details={**found.details, "left_out": left_out},
        )


def _made(folder: Path) -> dict[str, Any]:
    path = folder / _MADE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _words(judge: Listener) -> Callable[[Utterance, Audio], tuple[Word, ...]]:
    def find(u: Utterance, audio: Audio) -> tuple[Word, ...]:
        if u.words is not None:
            return u.words
        text = judge([audio])[0] if u.text is None else u.text
        # Transcripts of corpora are often in capitals, which recognisers hardly ever saw.
        return judge.align(audio, text.lower() if text.isupper() else text)

    return find
