"""What every speech tokenizer offers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.config import Configuration
from lalia.streaming import State
from lalia.streams import StreamSpec, TokenSequence

__all__ = ["SpeechTokenizer", "identity_of"]


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


def identity_of(config: Configuration, tensors: Mapping[str, Tensor], **more: Any) -> str:
    """A hash over a configuration and weights, the same on every machine."""
    digest = hashlib.sha256(json.dumps({"config": config.to_dict(), **more}, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{t.dtype}:{tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
