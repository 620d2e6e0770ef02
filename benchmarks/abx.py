"""Items per second of ABX: lalia's beside ``zerospeech-libriabx2``, the code of the ZeroSpeech challenge.

Both read the same items and the same files of features, and score them within and across speakers. There are so few
items of a kind that nobody has to draw any, and both must find the same error. The peer leaves out the last frame of
every item: its items are a frame longer.
"""

import importlib.machinery
import sys
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.limits import count_operations
from benchmarks.worker import Gate
from lalia.errors import DataError
from lalia.evaluation.representation import Abx, Item, Representation, abx, load_items, save_items

__all__ = ["lalia", "peer"]

_RATE = 50.0
_SPEAKERS = 6
_FOLLOWING = ("t", "n", "s", "l")


def _write(options: Mapping[str, Any], folder: Path, *, longer: int = 0) -> Path:
    """An ``.item`` file, and beside it a file of features for every speaker: a direction for each phone, and noise."""
    generator = torch.Generator().manual_seed(0)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    phones = {f"p{n}": torch.randn(options["dim"], generator=generator) for n in range(options["phones"])}
    items = []
    for speaker in (f"s{n}" for n in range(_SPEAKERS)):
        frames, at = [], 0
        accent = 0.5 * torch.randn(options["dim"], generator=generator)
        for context in range(options["contexts"]):
            for phone, direction in phones.items():
                for _ in range(number(1, options["most"])):
                    length = number(*options["frames"])
                    noise = torch.randn(length, options["dim"], generator=generator)
                    frames.append(direction + accent + 3.0 * noise)
                    onset, offset = at / _RATE, (at + length + longer) / _RATE
                    around = f"c{context}", _FOLLOWING[context % len(_FOLLOWING)]
                    # A frame belongs to an item whose ends are not in its middle.
                    items.append(Item(speaker, onset, offset - 0.001, phone, *around, speaker))
                    at += length
        frames.append(torch.randn(2, options["dim"], generator=generator))
        torch.save(torch.cat(frames), folder / f"{speaker}.pt")
    return save_items(items, folder / "all.item")


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = _write(options, folder)

        def work() -> list[Abx]:
            items = load_items(path)
            features = {f: torch.load(folder / f"{f}.pt") for f in sorted({item.file for item in items})}
            representation = Representation(features, _RATE)
            return [
                abx(items, representation, speaker=speaker, context=options["context"])
                for speaker in ("within", "across")
            ]

        check = sum(score.error().value for score in work())
        for _ in gate.rounds(amount=len(load_items(path)), check=check):
            work()
        return {"operations": count_operations(work)}


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of ``zerospeech-libriabx2``.

    :raises DataError: it is not installed.
    """
    # It imports torchaudio for a model that is not used here.
    absent = types.ModuleType("torchaudio")
    absent.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules.setdefault("torchaudio", absent)
    try:
        from zrc_abx2 import EvalABX, EvalArgs
    except ImportError as error:
        raise DataError(
            f"The peer cannot be had ({error}). Run: pip install cython pandas psutil setuptools-scm tqdm wheel; "
            "pip install --no-build-isolation --no-deps zerospeech-libriabx2."
        ) from None
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = _write(options, folder, longer=1)
        arguments = EvalArgs(
            path_data=place,
            path_item_file=str(path),
            file_extension=".pt",
            feature_size=1 / _RATE,
            context_mode=options["context"],
        )

        def work() -> list[float]:
            return [float(result["score"]) for result in EvalABX().eval_abx(arguments)]

        for _ in gate.rounds(amount=len(load_items(path)), check=sum(work())):
            work()
    return {}
