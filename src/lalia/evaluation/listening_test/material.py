"""What people are to listen to: the same items by several systems, checked before anybody is asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

from lalia.audio import Audio
from lalia.data.importers import SUFFIXES
from lalia.errors import AudioError, ConfigError, DataError

__all__ = ["KINDS", "Item", "Kind", "Material", "scale"]

Kind = Literal["mos", "mmos", "pmos", "smos", "cmos"]
"""Naturalness, meaningfulness of a continuation, prosody, and likeness to a reference speaker, each from 1 to 5; and
which of two is better, from -3 to 3 (the comparison categories of ITU-T P.800, annex E)."""

KINDS: tuple[Kind, ...] = get_args(Kind)


def scale(kind: Kind) -> range:
    """The ratings that may be given."""
    return range(-3, 4) if kind == "cmos" else range(1, 6)


@dataclass(frozen=True)
class Item:
    """One thing that every system said.

    :param sounds: a recording by the name of each system.
    :param prompt: what is continued; heard before.
    :param reference: the speaker who should be heard.
    """

    name: str
    sounds: Mapping[str, Path]
    prompt: Path | None = None
    reference: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of its recordings."""
        return (*self.sounds.values(), *(p for p in (self.prompt, self.reference) if p is not None))


@dataclass(frozen=True)
class Material:
    """Items in the order of their names, and the systems in the order in which they were given."""

    systems: tuple[str, ...]
    items: tuple[Item, ...]

    @classmethod
    def from_folders(
        cls, systems: Mapping[str, Path], *, prompts: Path | None = None, references: Path | None = None
    ) -> "Material":
        """A folder of recordings for each system; files of one name (whatever the suffix) are one item.

        :raises DataError: a folder has no recordings, or other ones than the first.
        """
        found = {name: _recordings(folder) for name, folder in systems.items()}
        _check_names(found)
        first = next(iter(found.values()), {})
        more = [None if folder is None else _recordings(folder) for folder in (prompts, references)]
        for folder, files in zip((prompts, references), more, strict=True):
            if files is not None:
                missing = sorted(set(first) - set(files))
                if missing:
                    raise DataError(f"{folder} has no recording for {_some(missing)}. Add it, by the same name.")
        prompt, reference = more
        return cls(
            tuple(systems),
            tuple(
                Item(
                    item,
                    {name: files[item] for name, files in found.items()},
                    None if prompt is None else prompt[item],
                    None if reference is None else reference[item],
                )
                for item in sorted(first)
            ),
        )

    @classmethod
    def from_manifest(cls, path: Path) -> "Material":
        """Lines of JSON: ``item``, ``system``, ``path``, and where there are any ``prompt`` and ``reference``.

        Paths are relative to the manifest.

        :raises DataError: it cannot be read, a line is wrong, or a system has other items than the first.
        """
        found: dict[str, dict[str, Path]] = {}
        more: dict[str, tuple[Path | None, Path | None]] = {}
        for number, line in enumerate(_lines(path), 1):
            row = _row(path, number, line)
            if row is None:
                continue
            files = found.setdefault(row["system"], {})
            if row["item"] in files:
                raise DataError(f"{path}:{number} gives {row['item']!r} of {row['system']!r} again. Keep one.")
            files[row["item"]] = path.parent / row["path"]
            of_item = tuple(path.parent / row[k] if row.get(k) else None for k in ("prompt", "reference"))
            if more.setdefault(row["item"], (of_item[0], of_item[1])) != of_item:
                raise DataError(
                    f"{path}:{number} gives {row['item']!r} another prompt or reference than before. Give it the same."
                )
        _check_names(found)
        first = next(iter(found.values()), {})
        items = (Item(i, {s: files[i] for s, files in found.items()}, *more[i]) for i in sorted(first))
        return cls(tuple(found), tuple(items))

    def conditions(self, kind: Kind) -> tuple[tuple[str, str], ...]:
        """What is rated of each item: a system (and nothing), or a pair of them."""
        return tuple(combinations(self.systems, 2)) if kind == "cmos" else tuple((s, "") for s in self.systems)

    def check(self, kind: Kind) -> dict[Path, float]:
        """Listen to everything once.

        :returns: how long each recording is, in seconds.
        :raises ConfigError: the kind of test is unknown, or there are too few systems or items for it, or no prompts
            or references.
        :raises DataError: a recording is silent or cannot be read.
        """
        if kind not in KINDS:
            raise ConfigError(f"There is no listening test of kind {kind!r}. Choose {', '.join(KINDS)}.")
        if not self.items:
            raise DataError("There is no item to listen to. Give folders with recordings, or a manifest with lines.")
        if kind == "cmos" and len(self.systems) < 2:
            raise ConfigError(f"Only {self.systems[0]!r} is there to be compared. Give at least two systems.")
        bare = [i.name for i in self.items if kind == "smos" and i.reference is None]
        if bare:
            raise ConfigError(f"There is no reference for {_some(bare)}. Give --references, or a reference each.")
        seconds, wrong = {}, []
        for path in dict.fromkeys(p for item in self.items for p in item.paths):
            try:
                seconds[path] = Audio.load(path).seconds
            except AudioError as error:
                wrong.append(str(error))
        if wrong:
            more = f" So it is with {len(wrong) - 1} more." if len(wrong) > 1 else ""
            raise DataError(f"{wrong[0]}{more}")
        return seconds


def _check_names(systems: Mapping[str, Mapping[str, Path]]) -> None:
    """Names stand in tables and in files of one line each, and systems have the same items.

    :raises DataError: a name cannot stand there, or a system has other items than the first.
    """
    first, items = next(iter(systems.items()), ("", {}))
    for name in (*systems, *(i for files in systems.values() for i in files)):
        if not name.isprintable() or not name.strip():
            raise DataError(f"A system or an item is called {name!r}. Give it a name of letters that are seen.")
    for name, files in systems.items():
        for here, there, lacks, has in ((items, files, name, first), (files, items, first, name)):
            missing = sorted(set(here) - set(there))
            if missing:
                raise DataError(
                    f"System {lacks!r} has no {_some(missing)}, which {has!r} has. Give all systems the same items."
                )


def _recordings(folder: Path) -> dict[str, Path]:
    """By name without suffix."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Give a folder of recordings.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(f"{folder} has {found[path.stem].name} and {path.name}, one item twice. Keep one.")
            found[path.stem] = path
    if not found:
        raise DataError(f"{folder} has no recordings. Give a folder with {', '.join(sorted(SUFFIXES))} files.")
    return found


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Give a manifest of JSON lines.") from None


def _row(path: Path, number: int, line: str) -> dict[str, str] | None:
    if not line.strip():
        return None
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number} is not JSON ({error.msg}). Write one object a line.") from None
    wanted = ("item", "system", "path")
    if not isinstance(row, dict) or not all(isinstance(row.get(k), str) and row[k] for k in wanted):
        raise DataError(f"{path}:{number} lacks one of {', '.join(wanted)}. Give each as text.")
    if not all(isinstance(row.get(k, ""), str | None) for k in ("prompt", "reference")):
        raise DataError(f"{path}:{number} has a prompt or a reference that is no path. Give text.")
    return row


def _some(names: Sequence[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
