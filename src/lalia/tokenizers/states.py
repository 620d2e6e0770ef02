"""States as a stream: for each frame of another stream that something is said there (Flow-Omni)."""

from dataclasses import dataclass

import torch

from lalia.config import Configurable
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers.base import identity_of

__all__ = ["States"]


class States(Configurable):
    """Speaking, frame by frame, until the stream ends (arXiv:2412.04917 §3.2, "generating" and then "stop").

    It listens to the stream whose frames these are, not to the sound. Where nothing is said, there is no cell, which
    is what the paper's "pad" fills. Features have no end of their own, so a stream of them ends with this one
    (``Parallel(ends_with=...)``).
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param rate: frames per second of the other stream, in Hz.
        """

        rate: float

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Discrete(1), frame_rate=self.rate)

    def __init__(self, config: Config) -> None:
        self.config, self.spec = config, config.spec
        self.identity = identity_of(config, {})

    def along(self, tokens: TokenSequence) -> TokenSequence:
        """The state [B, 1, T] of every frame."""
        return TokenSequence(torch.zeros(len(tokens), 1, tokens.num_tokens, dtype=torch.long), tokens.lengths.cpu())
