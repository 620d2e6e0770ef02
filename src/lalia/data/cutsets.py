"""Lhotse CutSets as manifests: https://lhotse.readthedocs.io, "Cuts".

A CutSet file is read as the JSON that it is, so Lhotse itself need not be installed.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lalia.data.manifest import Manifest, Skipped, Utterance, Word
from lalia.errors import DataError

__all__ = ["CUT_SET_SUFFIXES", "from_lhotse", "is_cut_set"]

CUT_SET_SUFFIXES = (".jsonl", ".jsonl.gz")

_CUT_TYPES = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut", "Cut")


class _UnusableError(Exception):
    """Why a cut or a supervision has no utterance."""


def is_cut_set(path: Path) -> bool:
    """Whether the first line of a JSON Lines file is a cut rather than an utterance."""
    try:
        with _open(path) as file:
            first = json.loads(file.readline())
    except (OSError, EOFError, ValueError, zlib.error):
        # Whoever reads the file whole says what is wrong with it and on which line.
        return path.name.endswith(".gz")
    return isinstance(first, dict) and first.get("type") in _CUT_TYPES


def from_lhotse(source: Any) -> Manifest:
    """One utterance per supervision of a CutSet, or per cut where a cut has none.

    The id is the cut's, followed by the supervision's where a cut has several. Word times come from the
    alignment named ``word``. What has no single stretch of one file behind it (mixed, padded, speed-perturbed
    or generated cuts, sound in memory) is skipped: save such cuts as audio first.

    :param source: a ``.jsonl`` or ``.jsonl.gz`` file, or a ``lhotse.CutSet``.
    :raises DataError: a file that is not a CutSet (names the line), or nothing in it can be used.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.name.endswith(CUT_SET_SUFFIXES):
            raise DataError(f"{path} is not JSON Lines. Save the CutSet with cuts.to_file('cuts.jsonl.gz').")
        cuts: Iterable[Mapping[str, Any]] = _read(path)
        name, folder = str(path), path.parent
    elif hasattr(source, "to_dicts"):
        cuts, name, folder = source.to_dicts(), "The CutSet", Path()
    else:
        raise DataError(f"{type(source).__name__} is not a CutSet. Give a lhotse.CutSet or the file of one.")
    utterances: list[Utterance] = []
    skipped: list[Skipped] = []
    missing: dict[Path, bool] = {}
    for number, cut in enumerate(cuts, start=1):
        if not isinstance(cut, Mapping) or cut.get("type") not in _CUT_TYPES:
            raise DataError(f"{name}, entry {number} is not a cut. Save the cuts, not the recordings or supervisions.")
        for found in _utterances(cut, folder):
            if isinstance(found, Utterance) and missing.setdefault(found.path, not found.path.is_file()):
                found = Skipped(found.id, str(found.path), "does not exist")
            (utterances if isinstance(found, Utterance) else skipped).append(found)  # type: ignore[arg-type]
    if not utterances:
        why = f": {skipped[0].id} {skipped[0].reason}" if skipped else ""
        raise DataError(f"{name} has no cuts that can be used{why}. Save them with cuts.save_audios() first.")
    return Manifest(utterances, skipped)


def _utterances(cut: Mapping[str, Any], folder: Path) -> Iterator[Utterance | Skipped]:
    key = str(cut.get("id"))
    try:
        supervisions = cut.get("supervisions") or [None]
        for s in supervisions:
            name = key if len(supervisions) == 1 else f"{key}-{s.get('id')}"
            try:
                yield _utterance(name, cut, s, folder)
            except _UnusableError as reason:
                yield Skipped(name, str(_source(cut)), str(reason))
    except (KeyError, TypeError, AttributeError, ValueError, DataError) as error:
        yield Skipped(key, key, f"is not a cut as Lhotse writes it ({str(error) or type(error).__name__})")


def _source(cut: Mapping[str, Any]) -> str:
    sources = (cut.get("recording") or {}).get("sources") or [{}]
    return str(sources[0].get("source", cut.get("id")))


def _utterance(name: str, cut: Mapping[str, Any], s: Mapping[str, Any] | None, folder: Path) -> Utterance:
    if cut["type"] in ("MixedCut", "PaddingCut"):
        raise _UnusableError(f"is a {cut['type']}, not a stretch of one recording")
    recording = cut.get("recording")
    if recording is None:
        raise _UnusableError("has no recording")
    for transform in recording.get("transforms") or ():
        if transform["name"] != "Resample":  # every reader resamples anyway
            raise _UnusableError(f"is changed on the fly ({transform['name']})")
    path, channel = _place(recording, cut["channel"] if s is None else s.get("channel", 0), folder)
    # Supervisions are timed from the cut and may stick out of it; alignments are timed from the recording.
    first, last = float(cut["start"]), float(cut["start"]) + float(cut["duration"])
    if s is not None:
        begin = float(cut["start"]) + float(s["start"])
        first, last = max(first, begin), min(last, begin + float(s["duration"]))
    # Sums of decimal fractions; Lhotse itself keeps 8 digits.
    first, duration = round(first, 8), round(last - first, 8)
    if duration <= 0:
        raise _UnusableError("is empty")
    s = s or {}
    return Utterance(
        name,
        path,
        start=first,
        duration=duration,
        channel=channel,
        text=s.get("text"),
        speaker=s.get("speaker"),
        language=s.get("language"),
        words=_words((s.get("alignment") or {}).get("word"), first, duration),
    )


def _place(recording: Mapping[str, Any], channels: int | list[int], folder: Path) -> tuple[Path, int | None]:
    """The file and the channel within that file (None where all of its channels are meant)."""
    wanted = [channels] if isinstance(channels, int) else list(channels)
    for source in recording["sources"]:
        if set(wanted) <= set(source["channels"]):
            break
    else:
        raise _UnusableError(f"has channels {wanted} in more than one file")
    if source["type"] != "file":
        raise _UnusableError(f"comes from a {source['type']}, not from a file")
    if len(wanted) > 1 and len(wanted) < len(source["channels"]):
        raise _UnusableError(f"has {len(wanted)} of {len(source['channels'])} channels")
    path = Path(source["source"])
    if not path.is_absolute() and not path.exists():
        path = folder / path
    whole = len(source["channels"]) == len(wanted)
    return path, None if whole else source["channels"].index(wanted[0])


def _words(items: Any, start: float, duration: float) -> tuple[Word, ...] | None:
    """Word times from the start of the utterance, cut to it; silences have no symbol."""
    if not items:
        return None
    words = []
    for item in items:
        symbol, begin, length = (
            item[:3] if isinstance(item, list | tuple) else (item["symbol"], item["start"], item["duration"])
        )
        first = min(max(round(begin - start, 8), 0.0), duration)
        last = min(max(round(begin + length - start, 8), 0.0), duration)
        if symbol and first < last:
            words.append(Word(symbol, first, last))
    return tuple(words)


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")


def _read(path: Path) -> Iterator[Mapping[str, Any]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):  # noqa: B007
                if line.strip():
                    yield json.loads(line)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Check the path.") from None
    except ValueError:
        raise DataError(f"{path}, line {number} is not JSON. Save the CutSet again.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} breaks off after line {number} ({error}). Copy or save it again.") from None
