"""Durations as a stream: how long each unit of another stream lasts (pGSLM, arXiv:2109.03264 §2.1)."""

from dataclasses import dataclass

from lalia.config import Configurable
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.tokenizers.base import identity_of
from lalia.tokenizers.runs import durations_of

__all__ = ["Durations"]


class Durations(Configurable):
    """One step for each run of units; it listens to the units, not to the sound."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param bins: codes for 1 to ``bins`` frames (pGSLM: 32); the logarithm of the frames as a feature when None.
        """

        bins: int | None = 32

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Continuous(1) if self.bins is None else Discrete(self.bins), frame_rate=None)

    def __init__(self, config: Config) -> None:
        self.config, self.spec = config, config.spec
        self.identity = identity_of(config, {})

    def per_run(self, units: TokenSequence) -> TokenSequence:
        """Of units without repeats: codes [B, 1, T] or features [B, T, 1]."""
        return durations_of(units, self.config.bins)
