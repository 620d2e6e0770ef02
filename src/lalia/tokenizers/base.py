"""What every speech tokenizer offers."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.streaming import State
from lalia.streams import StreamSpec, TokenSequence

__all__ = ["Fetched", "Learns", "Levelled", "SpeechTokenizer", "heard", "identity_of", "load_all"]


@runtime_checkable
class SpeechTokenizer(Protocol):
    """Audio to codes or features."""

    spec: StreamSpec
    sample_rate: int
    """In Hz; ``encode`` resamples what comes at another rate."""
    identity: str
    """SHA-256 over everything that decides its output: no two tokenizers that differ share one."""
    config: Configuration

    def encode(self, audio: Audio, state: State | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, 1, N].
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows: give what is still held back.
        """
        ...


@runtime_checkable
class Learns(Protocol):
    """A tokenizer that must hear recordings before its stream says anything: its bins, clusters or statistics."""

    config: Configuration
    fitted: bool
    """Whether it has heard some, or needs none; ``weights`` gives nothing before."""

    def fit(self, recordings: Iterable[Audio]) -> None:
        """Learn from recordings, which are read once.

        :raises DataError: there is too little speech.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """What was learned."""
        ...

    def load_weights(self, tensors: Mapping[str, Tensor], /) -> None:
        """The inverse of ``weights``; it is fitted then."""
        ...


@runtime_checkable
class Levelled(Protocol):
    """A tokenizer whose stream is relative to a level, such as the mean pitch of a voice."""

    by_speaker: bool
    """Whether the level is the speaker's. ``encode`` then takes it as ``level``; without one, it is the recording's."""

    def level(self, recordings: Iterable[Audio]) -> float:
        """The level of somebody's recordings."""
        ...


class Fetched:
    """Part of a tokenizer all of whose weights are fetched: there is nothing of it to store."""

    def weights(self) -> dict[str, Tensor]:
        """Nothing: what it learned is fetched."""
        return {}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``.

        :raises ConfigError: there is something to load.
        """
        if tensors:
            raise ConfigError(
                f"{type(self).__name__} got weights ({min(tensors)!r}), but fetches its own. "
                "They are of another tokenizer."
            )


def load_all(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a codec all its weights.

    :raises ConfigError: they are of another codec; nothing is changed then.
    """
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own or tensors[name].shape != own[name].shape:
            got = tuple(tensors[name].shape) if name in tensors else "nothing"
            wanted = tuple(own[name].shape) if name in own else "nothing"
            raise ConfigError(f"The codec's {name} should be {wanted}, not {got}. It is of another codec.")
    module.load_state_dict(dict(tensors))


def heard(audio: Audio, sample_rate: int, *, streaming: bool) -> Audio:
    """One channel at a tokenizer's rate.

    :raises ConfigError: a stream came at another rate.
    """
    audio = audio.mono()
    if not streaming:
        return audio.to(sample_rate)
    if audio.sample_rate != sample_rate:
        raise ConfigError(f"A stream came at {audio.sample_rate} Hz. Resample it to {sample_rate} Hz as it comes.")
    return audio


def identity_of(config: Configuration, tensors: Mapping[str, Tensor], **more: Any) -> str:
    """A hash over a configuration and weights, the same on every machine."""
    digest = hashlib.sha256(json.dumps({"config": config.to_dict(), **more}, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{t.dtype}:{tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
