"""What a vocoder is: streams in, audio out, whole or as they come."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.errors import ConfigError, LayoutError
from lalia.streaming import State
from lalia.streams import Streams, StreamSpec, TokenSequence

__all__ = [
    "LearnsAlone",
    "LearnsFromStreams",
    "Stage",
    "Vocoder",
    "check_codes",
    "check_features",
    "check_speaker",
    "find_spec",
    "find_stream",
    "hop_of",
    "speakers",
]


class Vocoder(Configurable, nn.Module, ABC):
    """The base of every vocoder; ``config.build(specs)`` makes one.

    What the streams hold (codebook size, frame rate) comes from their specs and is not repeated in the config,
    whose first field names the stream that is read.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """Every vocoder's config has its own fields, ``stream`` first."""

        @property
        def reads(self) -> tuple[str, ...]:
            """The streams that ``decode`` needs, known without building anything."""
            return (self.stream,)  # type: ignore[attr-defined]

    reads: tuple[str, ...]
    """The streams that ``decode`` needs."""
    sample_rate: int
    """Of the audio made, in Hz."""
    num_speakers: int = 1
    """Voices to choose from."""
    ahead: int = 0
    """Tokens of what it reads, behind the first, without which a stream gives nothing yet; more may be needed."""

    def adopt(self, learned: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Be told what the tokenizers of the streams have learned, by stream.

        Most vocoders need not know. One of mel spectra that come in standard scores brings them back to their own
        scale; that scale is the tokenizer's, and not saved with the vocoder.
        """

    @abstractmethod
    def init_state(self, batch_size: int) -> State:
        """The state before the first frame, for ``batch_size`` rows."""

    @abstractmethod
    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        """The audio of the streams.

        :param state: updated in place; None when the streams are whole. With a state, what is returned is the
            audio that no later frame can change, which may be none.
        :param final: the streams end here: return the rest and make the state fresh.
        :param speaker: voice, one for all rows or [B]; the first when None.
        """


class Stage(Configurable, nn.Module, ABC):
    """What turns streams into streams on their way to a vocoder; ``config.build(specs)`` makes one.

    :param stream: the stream that is read.
    :param makes: the name of the stream that is made.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        stream: str
        _: KW_ONLY
        makes: str = "mel"

        @property
        def made(self) -> tuple[str, ...]:
            """All streams that it makes."""
            return (self.makes,)

    reads: tuple[str, ...]
    """The streams that ``convert`` needs."""
    makes: dict[str, StreamSpec]
    """The streams that it makes."""
    sample_rate: int = 0
    """Of the audio that ``analyse`` takes, in Hz; 0 where it takes none."""
    num_speakers: int = 1
    """Voices to choose from."""
    ahead: int = 0
    """As for a ``Vocoder``."""

    @abstractmethod
    def init_state(self, batch_size: int) -> State:
        """The state before the first frame, for ``batch_size`` rows."""

    @abstractmethod
    def convert(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Streams:
        """The streams made of these; parameters as for ``Vocoder.decode``."""

    def analyse(self, audio: Audio) -> Streams:
        """The streams of ``makes`` as a recording has them: what this part learns to make, and the next to read.

        :raises LayoutError: a recording does not tell; the shards have them.
        """
        raise LayoutError(
            f"{type(self).__name__} makes {', '.join(self.makes)}, which no recording tells. Tokenize the corpus with "
            "these streams."
        )


@runtime_checkable
class LearnsAlone(Protocol):
    """A part of a vocoder that has losses of its own, and so is trained without the other parts."""

    sample_rate: int
    """Of the audio that it learns from, in Hz."""
    num_speakers: int
    terms: tuple[str, ...]
    """The names of its losses."""

    def counts(self, streams: Streams, audio: Audio | None) -> dict[str, float]:
        """What to divide each loss by."""
        ...

    def losses(self, streams: Streams, audio: Audio | None, speaker: Tensor | None = None) -> dict[str, Tensor]:
        """The sums of its losses.

        :param streams: what it reads and what it makes, as ``Stage.analyse`` gives it.
        :param audio: the recording, [B, 1, N]; None for a part that learns from streams alone.
        :param speaker: voices [B].
        """
        ...


@runtime_checkable
class LearnsFromStreams(Protocol):
    """A part that learns from streams of the shards, without any sound."""

    learns_from: tuple[str, ...]
    """Their names."""


def find_spec(specs: Mapping[str, StreamSpec], stream: str, vocoder: str) -> StreamSpec:
    """The spec of the stream that a vocoder reads.

    :raises ConfigError: there is no such stream.
    """
    if stream not in specs:
        raise ConfigError(f"{vocoder} reads the stream {stream!r}, which does not exist. Name one of {sorted(specs)}.")
    return specs[stream]


def find_stream(streams: Streams, stream: str) -> TokenSequence:
    """The stream that a vocoder reads.

    :raises LayoutError: it was not given.
    """
    if stream not in streams:
        raise LayoutError(f"The vocoder reads the stream {stream!r}, which was not given. Pass streams[{stream!r}].")
    return streams[stream]


def hop_of(sample_rate: int, frame_rate: float | None, vocoder: str, upsample: int = 1) -> int:
    """Samples per frame.

    :param upsample: steps that the vocoder makes of each frame of the stream.
    :raises ConfigError: the stream has no clock, or a frame is no whole number of samples.
    """
    if frame_rate is None:
        raise ConfigError(f"{vocoder} reads a stream without a frame rate. Give it one that has a clock.")
    hop = round(sample_rate / (frame_rate * upsample))
    if abs(hop * frame_rate * upsample - sample_rate) > 1e-6 * sample_rate:
        raise ConfigError(
            f"{vocoder} makes {sample_rate} Hz from {frame_rate:g} frames per second x {upsample}, "
            f"which is no whole number of samples. Choose a sample rate that {frame_rate * upsample:g} divides."
        )
    return hop


def speakers(speaker: int | Tensor | None, batch_size: int, device: torch.device) -> Tensor:
    """``speaker`` as given to ``decode``, as [B]."""
    chosen = torch.as_tensor(0 if speaker is None else speaker, dtype=torch.long, device=device)
    return chosen.reshape(-1).expand(batch_size) if chosen.numel() == 1 else chosen


def check_speaker(speaker: int | Tensor | None, batch_size: int, num_speakers: int) -> None:
    """Refuse a voice that does not exist.

    :raises LayoutError: it is out of range, or there is not one for each row.
    """
    chosen = speakers(speaker, batch_size, torch.device("cpu"))
    if chosen.shape != (batch_size,):
        raise LayoutError(f"{chosen.numel()} speakers for {batch_size} rows. Give one, or one for each row.")
    if batch_size and not 0 <= int(chosen.min()) <= int(chosen.max()) < num_speakers:
        raise LayoutError(f"Speaker {chosen.tolist()} does not exist. Give a number from 0 to {num_speakers - 1}.")


def check_codes(tokens: TokenSequence, stream: str, num_codebooks: int, codebook_size: int) -> None:
    """Refuse codes that the embedding tables do not have.

    :raises LayoutError: names the stream and the code.
    """
    if not tokens.discrete or tokens.values.shape[1] != num_codebooks:
        raise LayoutError(
            f"The stream {stream!r} has values of shape {tuple(tokens.values.shape)}. "
            f"Give codes [B, {num_codebooks}, T]."
        )
    if not tokens.values.numel():
        return
    low, high = int(tokens.values.min()), int(tokens.values.max())
    if low < 0 or high >= codebook_size:
        raise LayoutError(
            f"The stream {stream!r} holds the code {low if low < 0 else high}, outside its codebook of "
            f"{codebook_size}. Remove special tokens before decoding."
        )


def check_features(tokens: TokenSequence, stream: str, dim: int) -> None:
    """Refuse features of another width.

    :raises LayoutError: names the stream and its shape.
    """
    if tokens.discrete or tokens.values.shape[-1] != dim:
        raise LayoutError(
            f"The stream {stream!r} has values of shape {tuple(tokens.values.shape)}. Give features [B, T, {dim}]."
        )
