"""Sets of pairs that are made where they are needed: what there is, and the command that makes it."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalia.checkpoints.cache import cache_dir
from lalia.data.synthesis import PhoneSynthesizer
from lalia.errors import ConfigError, DataError, OutputError
from lalia.evaluation.folders import make_folder
from lalia.evaluation.results import code_identity, save_result
from lalia.evaluation.sets.acoustics import make_acoustics
from lalia.evaluation.sets.grammar import make_grammar
from lalia.evaluation.sets.phones import make_phones
from lalia.evaluation.sets.stories import make_stories
from lalia.evaluation.sets.studio import EngineName, Studio, choose_engine
from lalia.evaluation.sets.words import make_words
from lalia.evaluation.sets.writing import Writer
from lalia.files import sha256
from lalia.version import __version__

__all__ = ["MINI_SETS", "SET_NAME", "MiniSet", "cached_set", "make_set", "set_place"]

FORMAT = 1
"""Of what is made: another number where the same settings no longer give the same sound."""

SET_NAME = "set.json"


@dataclass(frozen=True)
class MiniSet:
    """A set that lalia makes. It is named ``mini-`` so that nobody takes its figures for those of the original.

    :param asks: what it asks of a model.
    :param made: how.
    :param original: what it is like.
    :param size: of what, and how many where nobody says.
    :param num_voices: the same of voices.
    :param chance: how often a model that knows nothing is right; None where nothing is compared in pairs.
    """

    asks: str
    made: str
    original: str
    make: Callable[[Studio, Writer, int, int], None]
    size: tuple[int, str]
    num_voices: int
    chance: float | None = 0.5


MINI_SETS: Mapping[str, MiniSet] = {
    "mini-words": MiniSet(
        "Is a word likelier than a nonword?",
        "words of the CMU dictionary against the same with a third of their phones changed, as likely by phone "
        "bigrams; both are synthesised from phones",
        "sWUGGY",
        make_words,
        (120, "words"),
        2,
    ),
    "mini-grammar": MiniSet(
        "Is a sentence likelier than one with a wrong word?",
        "templates of 9 phenomena; most sentences are in twos in which either form is once right and once wrong",
        "sBLIMP",
        make_grammar,
        (180, "sentences"),
        2,
    ),
    "mini-stories": MiniSet(
        "Is the ending of a story likelier than one that contradicts it (spoken), or that of another story (topic)?",
        "stories of four sentences in twos that begin alike; each ending is once right and once wrong",
        "sSC and tSC (StoryCloze)",
        make_stories,
        (48, "stories"),
        2,
    ),
    "mini-acoustics": MiniSet(
        "Is a voice likelier that goes on as it began than one that changes in the middle?",
        "sentences joined of two recordings at a comma; the second has, or has not, the same speaker, gender, rate, "
        "background or room",
        "SALMon (consistency)",
        make_acoustics,
        (40, "pairs of each task"),
        4,
    ),
    "mini-phones": MiniSet(
        "Is a phone nearer to itself than to another (ABX)?",
        "sentences with the times of phones as the synthesizer made them",
        "ABX of Libri-light",
        make_phones,
        (40, "sentences"),
        4,
        None,
    ),
}
"""The sets by name."""


def make_set(
    name: str,
    folder: str | Path,
    *,
    voices: Sequence[str] | None = None,
    size: int | None = None,
    seed: int = 0,
    engine: EngineName | PhoneSynthesizer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a set, or find it made: one synthesizer gives the same set of the same settings, bit for bit.

    It is made beside the folder and moved there when it is whole. With the recordings there are ``pairs.jsonl``
    (for `load_pairs`; mini-phones has ``phones.item`` and ``manifest.jsonl``) and ``set.json``, which says how they
    were made, and how long and loud positives and negatives are.

    :param name: one of `MINI_SETS`.
    :param folder: of this set alone.
    :param voices: of the synthesizer; some of different sound when not given.
    :param size: how many words, sentences, stories or pairs, before voices; see `MINI_SETS`.
    :param seed: of every choice.
    :param engine: flite where it is installed, else espeak-ng.
    :param progress: called with how many lines were read out, and how many there are.
    :returns: the folder.
    :raises WeightsError: no synthesizer is installed.
    :raises ConfigError: a set, a size or voices that there are not.
    :raises DataError: the folder holds something else.
    :raises OutputError: the folder cannot be written.
    """
    if name not in MINI_SETS:
        raise ConfigError(f"There is no set {name!r}. Choose from {', '.join(MINI_SETS)}.")
    chosen = MINI_SETS[name]
    synthesizer = choose_engine(engine)
    studio = Studio(synthesizer, voices, num_voices=chosen.num_voices, progress=progress)
    if size is not None and size < 1:
        raise ConfigError(f"{name} was asked for {size} {chosen.size[1]}. Ask for at least 1.")
    number = size or chosen.size[0]
    settings = {
        "name": name,
        "format": FORMAT,
        "engine": {"name": synthesizer.name, "version": synthesizer.version},
        "voices": list(studio.voices),
        "size": number,
        "seed": seed,
    }
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()):
        _check(target, settings)
        return target
    make_folder(target.parent)
    place = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        writer = Writer(make_folder(place))
        chosen.make(studio, writer, number, seed)
        if writer.pairs:
            writer.write_pairs()
        record = {
            **settings,
            "lalia": {"version": __version__, "code": code_identity()},
            "asks": chosen.asks,
            "chance": chosen.chance,
            "recordings": len(writer),
            "seconds": writer.seconds,
            "pairs": writer.kinds(),
            "left_out": writer.left_out,
            "balance": writer.balance(),
            "identity": _identity(place),
        }
        save_result(record, place / SET_NAME)
        try:
            place.replace(target)
        except OSError as error:
            raise OutputError(f"{target} cannot be written ({error.strerror}). Choose another folder.") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return target


def cached_set(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The set of this name as it is by default, in the cache of lalia: made where it is asked for first.

    :raises LaliaError: as `make_set`.
    """
    return make_set(name, set_place(name), progress=progress)


def set_place(name: str) -> Path:
    """Where a set lies in the cache, or what belongs to one."""
    return cache_dir() / "sets" / name


def _identity(folder: Path) -> str:
    """SHA-256 of all files of a set but its record, shortened to 128 bits."""
    lines = (f"{sha256(p)} {p.name}" for p in sorted(folder.iterdir()) if p.name != SET_NAME)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _check(folder: Path, settings: Mapping[str, Any]) -> None:
    """Whether what is there is what would be made."""
    try:
        before = json.loads((folder / SET_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict):
        raise DataError(f"{folder} is not empty and holds no set. Choose an empty folder.")
    if changed := [key for key, value in settings.items() if before.get(key) != value]:
        raise DataError(f"{folder} holds a set of another {', '.join(changed)}. Choose an empty folder.")
    if before.get("identity") != _identity(folder):
        raise DataError(f"{folder} holds a set of which files were changed or lost. Delete it, and make it again.")
