"""StoryCloze across modalities: the beginning is heard or read, and so is each ending (slamkit)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError, LaliaError
from lalia.evaluation.pair_scores import Member, judge_pairs
from lalia.evaluation.pairs import Pair
from lalia.evaluation.protocols import Likelihood
from lalia.evaluation.public_pairs.story_cloze import story_files

__all__ = ["Crossed", "Modality", "ScoresParts", "read_cross_modal", "score_cross_modal"]

Modality = Literal["text", "speech"]
_SUFFIXES = {"text": "txt", "speech": "wav"}


class ScoresParts(Protocol):
    """A model that says how likely it finds recordings and texts one after another."""

    def score_parts(self, parts: Sequence[Audio | str], /) -> Likelihood: ...


@dataclass(frozen=True)
class Crossed:
    """A beginning and its two endings; files that end in ``.txt`` are read, others heard."""

    prompt: Path
    pair: Pair


def read_cross_modal(folder: str | Path, prompt: Modality, continuation: Modality) -> list[Crossed]:
    """The stories of a folder (``<id>_{correct,incorrect,mutual}.{wav,txt}``), by their ids.

    :returns: with the task ``StoryCloze-<folder>-<prompt>-<continuation>``.
    :raises ConfigError: a modality is neither text nor speech.
    :raises DataError: there are no stories, or one lacks a file.
    """
    for given in (prompt, continuation):
        if given not in get_args(Modality):
            raise ConfigError(f"There is no modality {given!r}. Choose text or speech.")
    source = Path(folder)
    task = f"StoryCloze-{source.resolve().name}-{prompt}-{continuation}"
    wanted = [("mutual", _SUFFIXES[prompt]), *((part, _SUFFIXES[continuation]) for part in ("correct", "incorrect"))]
    found = []
    for name, files in story_files(source).items():
        for part, suffix in wanted:
            if (part, suffix) not in files:
                raise DataError(f"{source} has no {name}_{part}.{suffix}. Every story needs the same files.")
        beginning, right, wrong = (files[key] for key in wanted)
        found.append(Crossed(beginning, Pair(task, name, right, wrong)))
    return found


def score_cross_modal(
    model: ScoresParts,
    stories: Sequence[Crossed],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """How often the right ending makes the whole, beginning and all, more likely; see `judge_pairs`.

    slamkit compares means over all tokens unless told otherwise.

    :param stories: of one or of several tasks.
    :param progress: called with how many stories are scored, and how many there are.
    """
    members: dict[tuple[str, str, str], tuple[Member | None, Member | None]] = {}
    reasons: dict[tuple[str, str, str], str] = {}
    for n, story in enumerate(stories, start=1):
        try:
            beginning = _content(story.prompt)
            right, wrong = (
                Member(_finite(model.score_parts([beginning, _content(path)]), path))
                for path in (story.pair.positive, story.pair.negative)
            )
            members[story.pair.key] = right, wrong
        except LaliaError as error:
            members[story.pair.key], reasons[story.pair.key] = (None, None), str(error)
        if progress is not None:
            progress(n, len(stories))
    return judge_pairs([s.pair for s in stories], members, reasons, seed=seed)


def _content(path: Path) -> Audio | str:
    if path.suffix != ".txt":
        return Audio.load(path, mono=True)
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Give a text in UTF-8.") from None
    if not text:
        raise DataError(f"{path} is empty. Write what is said.")
    return text


def _finite(told: Likelihood, path: Path) -> Likelihood:
    if not math.isfinite(told.sum):
        raise DataError(f"The model scores {path.name} with {told.sum}. Check its weights.")
    return told
