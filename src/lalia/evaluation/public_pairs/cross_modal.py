"""StoryCloze across modalities: the beginning is heard or read, and so is each ending (slamkit)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.pairs import Pair
from lalia.evaluation.public_pairs.story_cloze import story_files

__all__ = ["Crossed", "Modality", "read_cross_modal", "read_part"]

Modality = Literal["text", "speech"]
_SUFFIXES = {"text": "txt", "speech": "wav"}


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


def read_part(path: Path) -> Audio | str:
    """What a file says: a text, or a recording mixed to mono.

    :raises DataError: a text cannot be read, or is empty.
    :raises AudioError: a recording cannot be used.
    """
    if path.suffix != ".txt":
        return Audio.load(path, mono=True)
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Give a text in UTF-8.") from None
    if not text:
        raise DataError(f"{path} is empty. Write what is said.")
    return text
