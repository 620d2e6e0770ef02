"""Items of the ABX task: stretches of recordings, each with its phone, that phone's neighbours, and who speaks.

On disk they are the ``.item`` files of the ZeroSpeech challenges: a line of column names, then one item a line::

    #file onset offset #phone prev-phone next-phone speaker
    6295-244435-0009 0.2925 0.4725 IH L NG 6295
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lalia.data import Word
from lalia.errors import ConfigError, DataError
from lalia.files import atomic_write

__all__ = ["Item", "items_of", "load_items", "save_items"]

_COLUMNS = ("#file", "onset", "offset", "#phone", "prev-phone", "next-phone", "speaker")


class Item(NamedTuple):
    """A stretch of a recording, from ``onset`` to ``offset`` in seconds.

    ``file`` names the recording without its suffix. ``phone`` is what is told apart from other phones; ``previous`` and
    ``following`` are its neighbours.
    """

    file: str
    onset: float
    offset: float
    phone: str
    previous: str
    following: str
    speaker: str


def load_items(path: str | Path) -> list[Item]:
    """Read an ``.item`` file.

    :raises DataError: names the file and the line.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read ({error}). Name an .item file.") from None
    if not lines or tuple(lines[0].split()) != _COLUMNS:
        raise DataError(f"{source}, line 1 does not name the columns. Write {' '.join(_COLUMNS)!r} there.")
    items = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            items.append(_item(line.split()))
        except DataError as error:
            raise DataError(f"{source}, line {number}: {error}") from None
    if not items:
        raise DataError(f"{source} lists no items. Write one a line.")
    return items


def _item(fields: Sequence[str]) -> Item:
    if len(fields) != len(_COLUMNS):
        raise DataError(f"There are {len(fields)} columns, not {len(_COLUMNS)}. Give {' '.join(_COLUMNS)}.")
    try:
        onset, offset = float(fields[1]), float(fields[2])
    except ValueError:
        raise DataError(f"{fields[1]!r} to {fields[2]!r} are not seconds. Give two numbers.") from None
    if not 0 <= onset < offset < math.inf:
        raise DataError(f"It lasts from {onset} to {offset} s. Give an onset of at least 0 and an offset after it.")
    return Item(fields[0], onset, offset, *fields[3:])


def save_items(items: Iterable[Item], path: str | Path) -> Path:
    """Write an ``.item`` file, from which ``load_items`` reads the same items.

    :raises DataError: a name is empty or has white space in it, which parts the columns.
    :raises OutputError: the folder does not exist or cannot be written.
    """
    lines = [" ".join(_COLUMNS)]
    for item in items:
        for name in (item.file, *item[3:]):
            if len(name.split()) != 1 or name.strip() != name:
                raise DataError(f"{name!r} of an item is no name of one word. Give one.")
        lines.append(" ".join(str(x) if isinstance(x, str) else repr(float(x)) for x in item))
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def items_of(
    phones: Mapping[str, Sequence[Word]],
    speakers: Mapping[str, str],
    *,
    stretch: Literal["triphone", "phone"] = "triphone",
    silences: Iterable[str] = (),
) -> list[Item]:
    """An item for every phone that has a neighbour on both sides.

    :param phones: of each recording in the order in which they are said, with their times.
    :param speakers: of each recording.
    :param stretch: of the recording: all three phones, as in the ``triphone`` files of ZeroSpeech, or the middle one.
    :param silences: what is no phone; none is taken, nor one beside it.
    :raises DataError: nobody is named for a recording.
    """
    if stretch not in {"triphone", "phone"}:
        raise ConfigError(f"Items of {stretch!r} are not known. Take triphone or phone.")
    none = frozenset(silences)

    def found() -> Iterator[Item]:
        for file in sorted(phones):
            if file not in speakers:
                raise DataError(f"Nobody is named who speaks in {file!r}. Add it to speakers.")
            row = phones[file]
            for before, this, after in zip(row, row[1:], row[2:], strict=False):
                if none.isdisjoint((before.text, this.text, after.text)):
                    first, last = (before, after) if stretch == "triphone" else (this, this)
                    yield Item(file, first.start, last.end, this.text, before.text, after.text, speakers[file])

    return list(found())
