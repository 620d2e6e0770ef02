"""The tokenizers that a model holds: built when they are needed, one for all streams that have the same."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.errors import CheckpointError
from lalia.recipe import Stream

__all__ = ["HeldTokenizers"]


class HeldTokenizers:
    """The tokenizer of each stream; streams with one configuration share it, and what it learned.

    :param streams: of the recipe.
    :param learned: weights, by stream; one of the streams that share a tokenizer is enough.
    :param identities: SHA-256 of the tokenizer of a stream, where it is known.
    :param ready: what is built already, by configuration.
    :raises CheckpointError: one tokenizer is said to have learned two things.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        *,
        learned: Mapping[str, Mapping[str, Tensor]] | None = None,
        identities: Mapping[str, str] | None = None,
        ready: Mapping[Configuration, Any] | None = None,
    ) -> None:
        self.streams, self.identities = streams, dict(identities or {})
        self._built: dict[Configuration, Any] = dict(ready or {})
        self._learned: dict[Configuration, Mapping[str, Tensor]] = {}
        for name, tensors in (learned or {}).items():
            if name not in streams:
                continue
            known = self._learned.setdefault(streams[name].tokenizer, tensors)
            if known is not tensors and not _same(known, tensors):
                raise CheckpointError(
                    f"The tokenizer of stream {name!r} has learned something else than that of another stream with the "
                    "same configuration. Make both with one tokenizer."
                )

    def __call__(self, stream: str) -> Any:
        """The tokenizer of a stream, built at the first use (its encoder may have to be fetched).

        :raises CheckpointError: it is not the one that is known by its identity.
        """
        config = self.streams[stream].tokenizer
        if config not in self._built:
            tokenizer: Any = config.build()  # type: ignore[attr-defined]
            if self._learned.get(config):
                tokenizer.load_weights(self._learned[config])
            self._built[config] = tokenizer
        found = self._built[config]
        expected = self.identities.get(stream)
        if expected is not None and getattr(found, "identity", expected) != expected:
            cure = "Fetch the encoder again."
            if not getattr(found, "fitted", True):
                cure = "What that had learned was not beside its data: train on data with their tokenizers."
            raise CheckpointError(
                f"The tokenizer of stream {stream!r} is {found.identity[:12]}, but the model was trained with "
                f"{expected[:12]}. {cure}"
            )
        return found

    @property
    def learned(self) -> dict[str, Mapping[str, Tensor]]:
        """What was learned, by the first of the streams that share a tokenizer."""
        first: dict[Configuration, str] = {}
        for name, stream in self.streams.items():
            first.setdefault(stream.tokenizer, name)
        return {first[config]: tensors for config, tensors in self._learned.items()}

    @property
    def learned_of_all(self) -> dict[str, Mapping[str, Tensor]]:
        """What was learned, by every stream."""
        return {n: self._learned[s.tokenizer] for n, s in self.streams.items() if s.tokenizer in self._learned}


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items())
