"""The decoder of a codec as a vocoder: codes to audio directly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lalia.audio import Audio
from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.streaming import State
from lalia.streams import Discrete, Streams, StreamSpec
from lalia.vocoders.base import Vocoder, check_codes, check_speaker, find_spec, find_stream

__all__ = ["CodecDecoder"]


class CodecDecoder(Vocoder):
    """What a codec's tokenizer took apart, put together again by its own decoder.

    It holds its own quantiser and decoder, to be stored with a model and trained apart from the tokenizer. They begin
    as those of the untrained codec; ``take`` gives them the weights of a trained one.

    :param stream: the stream of codes; it may have fewer codebooks than the codec.
    :param codec: the configuration of the codec: ``Codec``, ``Mimi``, ``SNAC``, ``EnCodec`` or ``DAC``.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stream: str
        codec: Configuration

        def __post_init__(self) -> None:
            if not hasattr(self.codec, "build_synthesizer"):
                raise ConfigError(
                    f"CodecDecoder has the decoder of {type(self.codec).__qualname__}, which is no codec. "
                    "Give the configuration of one."
                )

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        """
        :raises ConfigError: the stream is not of this codec.
        """
        super().__init__()
        self.config = config
        shape: Any = config.codec
        spec, known = find_spec(specs, config.stream, "CodecDecoder"), shape.spec
        self.synthesizer = shape.build_synthesizer()
        if (
            not isinstance(spec.kind, Discrete)
            or spec.kind.codebook_size != known.kind.codebook_size
            or spec.kind.num_codebooks > self.synthesizer.num_codebooks
            or not spec.clocked
            or abs((spec.frame_rate or 0) - known.frame_rate) > 1e-6
        ):
            raise ConfigError(
                f"CodecDecoder reads {config.stream!r} of {spec}, but its codec makes {known}. Name the codec's stream."
            )
        self.reads, self.stream, self.spec = config.reads, config.stream, spec
        self.num_codebooks, self.codebook_size = spec.kind.num_codebooks, spec.kind.codebook_size
        self.sample_rate, self.hop = self.synthesizer.sample_rate, self.synthesizer.hop

    def take(self, codec: Any) -> "CodecDecoder":
        """Copy the weights of a codec of the same configuration.

        :raises ConfigError: it is another.
        """
        given = codec.synthesizer.state_dict() if hasattr(codec, "synthesizer") else {}
        own = self.synthesizer.state_dict()
        if {n: t.shape for n, t in given.items()} != {n: t.shape for n, t in own.items()}:
            raise ConfigError(f"CodecDecoder cannot take the weights of {type(codec).__name__}. Give its own codec.")
        self.synthesizer.load_state_dict(given)
        return self

    def init_state(self, batch_size: int) -> State:
        state: State = self.synthesizer.init_state(batch_size)
        return state

    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        codes = find_stream(streams, self.stream)
        check_codes(codes, self.stream, self.num_codebooks, self.codebook_size)
        check_speaker(speaker, len(codes), self.num_speakers)
        made: Audio = self.synthesizer.decode(codes, state, final=final)
        return made
