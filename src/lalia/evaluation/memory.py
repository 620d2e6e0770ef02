"""Recognisers that remember, so that a broken run goes on and a second model is judged for its own part only."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lalia.audio import Audio
from lalia.data import Word
from lalia.errors import DataError
from lalia.evaluation.folders import make_folder
from lalia.evaluation.protocols import Aligner, Recognizer
from lalia.files import atomic_write

__all__ = ["Remembered", "fingerprint"]


class Listener(Recognizer, Aligner, Protocol):
    """A recogniser that also finds words."""


class Remembered:
    """A recogniser whose answers are kept in a file of a folder, one file per name and version.

    A recording is known by its samples, whatever file they came from. The file is written after each batch.

    :param listener: asked for what is not known.
    :param folder: it is made where it does not exist.
    :param batch_size: how many recordings are asked for between two writes.
    :param progress: called with how many of the recordings asked for are done, and how many there are.
    :raises OutputError: the folder cannot be made.
    :raises DataError: the file there is damaged.
    """

    def __init__(
        self,
        listener: Listener,
        folder: str | Path,
        *,
        batch_size: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.listener, self.batch_size, self.progress = listener, batch_size, progress
        self.name, self.version = listener.name, listener.version
        place = make_folder(folder)
        identity = hashlib.sha256(f"{self.name}\n{self.version}".encode()).hexdigest()[:12]
        self.path = place / f"{self.name}-{identity}.json"
        self._texts: dict[str, str] = {}
        self._words: dict[str, list[list[Any]]] = {}
        if self.path.exists():
            data = _read(self.path)
            self._texts, self._words = dict(data["texts"]), dict(data["words"])

    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        """The text of each recording."""
        keys = [fingerprint(audio) for audio in recordings]
        missing = {key: audio for key, audio in zip(keys, recordings, strict=True) if key not in self._texts}
        todo = list(missing.items())
        for start in range(0, len(todo), self.batch_size):
            batch = todo[start : start + self.batch_size]
            texts = self.listener([audio for _, audio in batch])
            self._texts.update({key: text for (key, _), text in zip(batch, texts, strict=True)})
            self._save()
            if self.progress is not None:
                self.progress(len(keys) - len(todo) + start + len(batch), len(keys))
        return [self._texts[key] for key in keys]

    def align(self, audio: Audio, text: str) -> tuple[Word, ...]:
        """The words of a text with their times in seconds."""
        key = f"{fingerprint(audio)} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if key not in self._words:
            self._words[key] = [list(word) for word in self.listener.align(audio, text)]
            self._save()
        return tuple(Word(*word) for word in self._words[key])

    def _save(self) -> None:
        data = {"name": self.name, "version": self.version, "texts": self._texts, "words": self._words}
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def fingerprint(audio: Audio) -> str:
    """SHA-256 of the rate and the samples of row 0, shortened to 128 bits."""
    row = audio.row(0)
    digest = hashlib.sha256(f"{row.sample_rate} {row.samples.shape[1]} ".encode())
    digest.update(np.ascontiguousarray(row.samples[0].detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:32]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Remove it.") from None
    if not isinstance(data, dict) or not {"texts", "words"} <= set(data):
        raise DataError(f"{path} does not hold transcripts. Remove it.")
    return data
