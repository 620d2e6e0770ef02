"""Channels: one vocoder for each speaker of a conversation, heard side by side (dGSLM)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.streaming import State
from lalia.streams import Streams, StreamSpec
from lalia.vocoders.base import Vocoder

__all__ = ["Channels"]


@dataclass
class ChannelStates(State):
    """One state for each channel."""

    channels: list[State]


class Channels(Vocoder):
    """The same vocoder on several streams: audio with a channel for each.

    :param streams: of the channels, alike in what they hold.
    :param vocoder: which speaks each of them; its own stream is the first of these.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        streams: tuple[str, ...]
        vocoder: Vocoder.Config

        @property
        def stream(self) -> str:
            """The stream that the vocoder is trained on."""
            return self.streams[0]

        @property
        def reads(self) -> tuple[str, ...]:
            return self.streams

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        """
        :raises ConfigError: a stream is missing, or not like the first.
        """
        super().__init__()
        for stream in config.streams:
            if stream not in specs or specs[stream] != specs[config.streams[0]]:
                raise ConfigError(
                    f"Channels speaks {', '.join(config.streams)} with one vocoder, but {stream!r} is not like the "
                    "first or does not exist. Name streams of one tokenizer."
                )
        self.config, self.reads = config, config.reads
        self.vocoder: Vocoder = config.vocoder.build(specs)
        self._inner = self.vocoder.reads[0]
        self.sample_rate, self.num_speakers = self.vocoder.sample_rate, self.vocoder.num_speakers

    def adopt(self, learned: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.vocoder.adopt(learned)

    def init_state(self, batch_size: int) -> ChannelStates:
        return ChannelStates([self.vocoder.init_state(batch_size) for _ in self.reads])

    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        assert state is None or isinstance(state, ChannelStates)
        made = []
        for i, name in enumerate(self.reads):
            own = None if state is None else state.channels[i]
            # Another speaker for each channel, where there are several, so that they can be told apart.
            voice = i % self.num_speakers if speaker is None and self.num_speakers > 1 else speaker
            made.append(self.vocoder.decode({self._inner: streams[name]}, own, final=final, speaker=voice))
        longest = max(a.samples.shape[-1] for a in made)
        samples = [torch.nn.functional.pad(a.samples, (0, longest - a.samples.shape[-1])) for a in made]
        lengths = torch.stack([a.lengths for a in made]).amax(dim=0)
        return Audio(torch.cat(samples, dim=1), self.sample_rate, lengths)
