"""Answers that are kept: a run that was stopped goes on where it stood, and is scored again without the model."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from lalia.audio import Audio
from lalia.data import Utterance
from lalia.errors import DataError, OutputError
from lalia.evaluation.results import FORMAT, file_identity

__all__ = ["Answer", "Item", "Kept"]

Answer = Mapping[str, Any]
"""Whatever a system answers, as JSON."""

_IN_FILES = ("audio", "features")
"""What of an answer is the path of a file, made where the item says (``to``)."""


@dataclass(frozen=True)
class Item:
    """What a system is asked once.

    :param id: unique in its benchmark.
    :param asks: all that it is given, as JSON; files by path.
    :param identity: of what it is given: the same under the same id is the same question (SHA-256).
    """

    id: str
    asks: Mapping[str, Any]
    identity: str

    @classmethod
    def of(cls, name: str, asks: Mapping[str, Any], files: Mapping[str, str] | None = None) -> Self:
        """An item whose identity is that of its words and of the content of its files, wherever they lie.

        :param files: SHA-256 of those named in ``asks``, by name there.
        """
        seen = json.dumps({**asks, **(files or {})}, sort_keys=True, ensure_ascii=False)
        return cls(name, asks, hashlib.sha256(seen.encode()).hexdigest()[:32])

    @classmethod
    def hearing(cls, name: str, utterance: Utterance, **asks: Any) -> Self:
        """An item about a recording, with what else is asked; see `heard`."""
        plain = replace(utterance, text=None, speaker=None, language=None, words=None, phones=None).to_dict()
        sound = file_identity(utterance.path)
        seen = json.dumps({**plain, "path": sound}, sort_keys=True)
        return cls(name, {"recording": plain, **asks}, hashlib.sha256(seen.encode()).hexdigest()[:32])

    def heard(self, *, mono: bool = True) -> Audio:
        """The recording of an item that is about one.

        :param mono: [1, 1, N]; else with the channels that it has.
        :raises AudioError: it cannot be read, or holds no speech.
        """
        u = Utterance.from_dict(self.asks["recording"])
        if mono or u.channel is not None:
            return u.load()
        return Audio.load(u.path, start=u.start, seconds=u.duration)


@dataclass
class Kept:
    """Answers of one system to the items of one benchmark, in a file that grows with each of them, or nowhere.

    The file is JSON Lines: first who answers and how it was asked, then a line for each item.

    :param path: None where they are not to be kept.
    :param header: who answers, and what moves the answers.
    """

    path: Path | None
    header: Mapping[str, Any]
    answers: dict[str, Answer] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Why an item has no answer."""
    identities: dict[str, str] = field(default_factory=dict)
    """Of the items that have an answer, or a reason why not."""
    peer: "Kept | None" = None
    """What another system answers to the same items."""

    def __post_init__(self) -> None:
        self.header = {"format": FORMAT, **json.loads(json.dumps(self.header))}
        if self.path is None:
            return
        lines = list(_lines(self.path))
        if not lines:
            self._write(self.header, mode="w")
            return
        if lines[0] != self.header:
            raise DataError(f"{self.path} has answers of another run: {_difference(lines[0], self.header)}.")
        for line in lines[1:]:
            self._take(line)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a file has, whoever answered; nothing where there is none."""
        lines = list(_lines(path))
        found = cls(None, lines[0] if lines else {})
        for line in lines[1:]:
            found._take(line)
        return found

    def of(self, items: Sequence[Item]) -> "Kept":
        """What is kept of these items, in their order and in memory alone; files are where they lie now."""
        by_name = {i.id: i for i in items}
        return Kept(
            None,
            self.header,
            {n: {**self.answers[n], **_files(self.answers[n], i)} for n, i in by_name.items() if n in self.answers},
            {n: self.failed[n] for n in by_name if n in self.failed},
        )

    def counts(self) -> dict[str, Any]:
        """How many items were ``asked``, ``answered`` and ``failed``; ``failures``: why, by id; ``peer``: so of the
        other system, where there is one.
        """
        found = {
            "asked": len(self.answers) + len(self.failed),
            "answered": len(self.answers),
            "failed": len(self.failed),
            "failures": dict(self.failed),
        }
        return found | ({} if self.peer is None else {"peer": self.peer.counts()})

    def missing(self, items: list[Item]) -> list[Item]:
        """Those that have neither an answer, with the file that it is in, nor a reason why not."""

        def is_whole(item: Item) -> bool:
            return all(Path(file).is_file() for file in _files(self.answers.get(item.id, {}), item).values())

        return [i for i in items if self.identities.get(i.id) != i.identity or not is_whole(i)]

    def add(self, item: Item, answer: Answer | None = None, *, failure: str | None = None) -> None:
        """Keep an answer, or why there is none."""
        said = {"failure": failure} if answer is None else {"answer": json.loads(json.dumps(answer))}
        line = {"id": item.id, "of": item.identity, **said}
        self._take(line)
        if self.path is not None:
            self._write(line, mode="a")

    def _take(self, line: Mapping[str, Any]) -> None:
        self.answers.pop(line["id"], None)
        self.failed.pop(line["id"], None)
        self.identities[line["id"]] = line["of"]
        if line.get("failure") is None:
            self.answers[line["id"]] = line["answer"]
        else:
            self.failed[line["id"]] = line["failure"]

    def _write(self, line: Mapping[str, Any], mode: str) -> None:
        assert self.path is not None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written ({error.strerror}). Choose another place.") from None


def _files(answer: Answer, item: Item) -> dict[str, str]:
    """The files of an answer: the run that made them may have been begun in another folder, or been moved since."""
    to = item.asks.get("to")
    return {} if to is None else {name: to for name in _IN_FILES if answer.get(name) is not None}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """What is whole in the file; a run that was killed leaves its last line in two, which is cut off."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Choose another place.") from None
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    # At line feeds alone: what a model says may have other ends of lines in it.
    for number, line in enumerate(data[:whole].decode("utf-8", "replace").split("\n")[:-1], start=1):
        try:
            yield json.loads(line)
        except ValueError:
            raise DataError(f"{path}, line {number} is not JSON. Remove the line, or the file.") from None


def _difference(there: Mapping[str, Any], here: Mapping[str, Any], path: str = "") -> str:
    for key in sorted({*there, *here}):
        a, b = there.get(key), here.get(key)
        if a != b:
            name = f"{path}.{key}" if path else key
            if isinstance(a, Mapping) and isinstance(b, Mapping):
                return _difference(a, b, name)
            return f"its {name} is {a!r}, and here it is {b!r}. Name another file with -o, or remove it"
    return ""
