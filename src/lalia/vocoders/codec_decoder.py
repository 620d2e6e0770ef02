"""The decoder of a codec as a vocoder: codes to audio directly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.nn.quantize import Quantizer
from lalia.nn.seanet import SEANetDecoder, StackState
from lalia.streaming import State
from lalia.streams import Discrete, Streams, StreamSpec
from lalia.tokenizers.codec import Codec, decode_frames
from lalia.vocoders.base import Vocoder, check_codes, check_speaker, find_spec, find_stream

__all__ = ["CodecDecoder"]


class CodecDecoder(Vocoder):
    """What a codec's tokenizer took apart, put together again by its own decoder; no look-ahead.

    It holds its own quantiser and decoder, to be stored with a model and trained apart from the tokenizer. They begin
    as those of the untrained codec; ``take`` gives them the weights of a trained one.

    :param stream: the stream of codes; it may have fewer codebooks than the codec.
    :param codec: the configuration of the codec.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stream: str
        codec: Configuration

        def __post_init__(self) -> None:
            if not isinstance(getattr(self.codec, "codec", None), Codec.Config):
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
        shape: Codec.Config = config.codec.codec  # type: ignore[attr-defined]
        spec, known = find_spec(specs, config.stream, "CodecDecoder"), shape.spec
        assert isinstance(known.kind, Discrete)
        if (
            not isinstance(spec.kind, Discrete)
            or spec.kind.codebook_size != known.kind.codebook_size
            or spec.kind.num_codebooks > shape.quantizer.num_books
            or not spec.clocked
            or abs((spec.frame_rate or 0) - (known.frame_rate or 0)) > 1e-6
        ):
            raise ConfigError(
                f"CodecDecoder reads {config.stream!r} of {spec}, but its codec makes {known}. Name the codec's stream."
            )
        self.reads, self.stream, self.spec = (config.stream,), config.stream, spec
        self.num_codebooks, self.codebook_size = spec.kind.num_codebooks, spec.kind.codebook_size
        self.sample_rate, self.hop = shape.sample_rate, shape.network.hop
        codec: Codec = shape.build()
        self.quantizer: Quantizer = codec.quantizer
        self.decoder: SEANetDecoder = codec.decoder
        self._block = codec.block

    def take(self, codec: Any) -> "CodecDecoder":
        """Copy the weights of a codec of the same configuration (``Codec``, or an adapter around one).

        :raises ConfigError: it is another.
        """
        source = getattr(codec, "codec", codec)
        if not isinstance(source, Codec) or source.config.network != self.config.codec.codec.network:  # type: ignore[attr-defined]
            raise ConfigError(f"CodecDecoder cannot take the weights of {type(codec).__name__}. Give its own codec.")
        self.quantizer.load_state_dict(source.quantizer.state_dict())
        self.decoder.load_state_dict(source.decoder.state_dict())
        return self

    def init_state(self, batch_size: int) -> StackState:
        return self.decoder.init_state(batch_size)

    @torch.no_grad()
    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        assert state is None or isinstance(state, StackState)
        codes = find_stream(streams, self.stream)
        check_codes(codes, self.stream, self.num_codebooks, self.codebook_size)
        check_speaker(speaker, len(codes), self.num_speakers)
        return decode_frames(
            self.quantizer, self.decoder, codes, self.sample_rate, self._block, self.hop, state, final=final
        )
