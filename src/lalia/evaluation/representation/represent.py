"""What a tokenizer or an encoder makes of recordings, frame by frame."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.data import from_folder
from lalia.errors import ConfigError, DataError
from lalia.streams import StreamSpec, TokenSequence

__all__ = ["Encodes", "Representation", "represent"]


class Encodes(Protocol):
    """A speech tokenizer, or an encoder."""

    spec: StreamSpec

    def encode(self, audio: Audio, /) -> TokenSequence: ...


@dataclass(frozen=True)
class Representation:
    """Recordings by name, each as features [T, D] or units [T], ``frame_rate`` frames a second.

    :raises DataError: a recording is none of these, has no frames, or a value that is no number.
    """

    recordings: Mapping[str, Tensor]
    frame_rate: float

    def __post_init__(self) -> None:
        if not 0 < self.frame_rate < math.inf:
            raise ConfigError(f"A representation has {self.frame_rate} frames a second. Give a rate above 0 Hz.")
        kept = {}
        for name, frames in self.recordings.items():
            x = torch.as_tensor(np.asarray(frames)) if not isinstance(frames, Tensor) else frames.detach().cpu()
            units = x.ndim == 1 and not x.is_floating_point()
            if not units and not (x.ndim == 2 and x.is_floating_point()):
                raise DataError(
                    f"{name!r} has values of shape {tuple(x.shape)} ({x.dtype}). "
                    "Give features [T, D] of real numbers, or units [T] of integers."
                )
            if not x.numel():
                raise DataError(f"{name!r} has no frames. Leave it out.")
            if not units and not bool(torch.isfinite(x).all()):
                raise DataError(f"{name!r} has features that are no numbers. Check what made them.")
            kept[name] = x
        if len({(x.ndim, x.shape[1:]) for x in kept.values()}) > 1:
            raise DataError("Recordings differ in what their frames are. Give features of one width, or units, to all.")
        object.__setattr__(self, "recordings", kept)

    @property
    def discrete(self) -> bool:
        """Whether frames are units."""
        return any(x.ndim == 1 for x in self.recordings.values())

    @property
    def seconds(self) -> float:
        """How long all recordings are."""
        return sum(len(x) for x in self.recordings.values()) / self.frame_rate


def represent(
    encoder: Encodes,
    recordings: str | Path | Sequence[str | Path],
    *,
    names: Iterable[str] | None = None,
    codebook: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Representation:
    """Encode sound files, whose names without suffix are those of the recordings.

    :param encoder: any tokenizer with a clock, or a speech encoder. Units whose repeats it removed are repeated again.
    :param recordings: a folder, which is searched through, or files.
    :param names: which of them; all when not given.
    :param codebook: whose codes are the units, where there are several.
    :param progress: called with how many files are done, and how many there are.
    :raises ConfigError: the stream has no clock, or no such codebook.
    :raises DataError: a file is not there, or two have one name.
    :raises AudioError: a file cannot be heard.
    """
    rate = encoder.spec.frame_rate
    if rate is None:
        raise ConfigError(f"{type(encoder).__name__} has no frame rate. Take one whose stream has a clock.")
    if isinstance(recordings, str | Path):
        found = [u.path for u in from_folder(recordings)]
    else:
        found = [Path(p) for p in recordings]
    files: dict[str, Path] = {}
    wanted = None if names is None else set(names)
    for path in sorted(found):
        if wanted is not None and path.stem not in wanted:
            continue
        if path.stem in files:
            raise DataError(f"{files[path.stem]} and {path} have one name. Rename one of them.")
        files[path.stem] = path
    if wanted is not None and (missing := sorted(wanted - set(files))):
        raise DataError(f"There is no recording {missing[0]!r} ({len(missing)} are missing). Add them.")
    made = {}
    for n, (name, path) in enumerate(sorted(files.items())):
        tokens = encoder.encode(Audio.load(path)).expand().row(0)
        if tokens.discrete and codebook not in range(tokens.values.shape[1]):
            raise ConfigError(f"There is no codebook {codebook}. Name one from 0 to {tokens.values.shape[1] - 1}.")
        made[name] = tokens.values[0, codebook] if tokens.discrete else tokens.values[0]
        if progress is not None:
            progress(n + 1, len(files))
    return Representation(made, rate)
