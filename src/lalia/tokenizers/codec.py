"""Neural codecs: audio to codes of one or several codebooks, and back (SoundStream, EnCodec, Mimi and their kin)."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.nn.conv import fuse_weight_norm
from lalia.nn.frame_net import FrameNet
from lalia.nn.fsq import FSQ
from lalia.nn.pieces import run_rows
from lalia.nn.quantize import Quantized, Quantizer, ResidualVQ
from lalia.nn.quantize_parts import GroupedResidualVQ, SplitResidualVQ
from lalia.nn.seanet import SEANet
from lalia.nn.stack import Stack, StackState
from lalia.streaming import State
from lalia.streams import Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import identity_of, load_all

__all__ = ["AnyQuantizer", "Codec", "CodecEncoderState", "CodecSynthesizer"]

AnyQuantizer = ResidualVQ.Config | GroupedResidualVQ.Config | SplitResidualVQ.Config | FSQ.Config

_BLOCK_SECONDS = 30.0
"""What is computed at once; of an hour the first layer alone would make tens of gigabytes."""


@dataclass
class CodecEncoderState(State):
    """``network``: of the encoder; ``held`` [B, 1, hop]: samples of a frame that is not whole, ``count`` [B] each."""

    network: StackState
    held: Tensor
    count: Tensor


class Codec(Configurable, nn.Module):
    """Encoder, quantiser, decoder, causal and streaming both ways; a frame needs no audio beyond its own end.

    Weights are drawn anew the same each time, until they are trained (``lalia.train.train_codec``) or loaded.

    :param sample_rate: of the audio, in Hz.
    :param network: what makes frames of samples, and samples of frames.
    :param quantizer: what makes codes of frames.
    :param num_codebooks: of the codes; the first of the quantiser's, all when None.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        sample_rate: int = 24000
        network: SEANet | FrameNet = field(default_factory=SEANet)
        quantizer: AnyQuantizer = field(default_factory=ResidualVQ.Config)
        _: KW_ONLY
        num_codebooks: int | None = None

        def __post_init__(self) -> None:
            if self.num_codebooks is not None and not 1 <= self.num_codebooks <= self.quantizer.num_books:
                raise ConfigError(
                    f"Codec uses {self.num_codebooks} codebooks of {self.quantizer.num_books}. "
                    f"Give num_codebooks from 1 to {self.quantizer.num_books}."
                )

        def tiny(self) -> "Codec.Config":
            return replace(self, network=self.network.tiny(), quantizer=self.quantizer.tiny())

        @property
        def books(self) -> int:
            """K, of the codes."""
            return self.num_codebooks or self.quantizer.num_books

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            return StreamSpec(
                kind=Discrete(self.quantizer.num_codes, self.books), frame_rate=self.sample_rate / self.network.hop
            )

        def build_synthesizer(self) -> "CodecSynthesizer":
            """The half that speaks, untrained."""
            codec: Codec = self.build()
            return codec.synthesizer

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec, self.sample_rate, self.hop = config.spec, config.sample_rate, config.network.hop
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder: Stack = config.network.encoder(config.sample_rate)
            self.quantizer: Quantizer = config.quantizer.build(config.network.dim)
            self.decoder: Stack = config.network.decoder()
        self.eval()

    # -- weights ----------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and all weights."""
        return identity_of(self.config, self.weights())

    def weights(self) -> dict[str, Tensor]:
        """All that it learned."""
        return dict(self.state_dict())

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``.

        :raises ConfigError: they are of another codec; nothing is changed then.
        """
        load_all(self, tensors)
        self.__dict__.pop("identity", None)

    @torch.no_grad()
    def plain(self) -> "Codec":
        """The same codec for use: normalised weights replaced by their values, so that nothing is computed anew."""
        trained = Codec(self.config)
        trained.load_state_dict({name: t.detach().cpu() for name, t in self.state_dict().items()})
        fuse_weight_norm(trained)
        made = Codec(replace(self.config, network=self.config.network.plain()))
        made.load_state_dict(trained.state_dict())
        return made

    # -- training ---------------------------------------------------------------------------------

    def forward(self, samples: Tensor) -> tuple[Tensor, Quantized]:
        """Samples [B, N] to what is made of them [B, N], and what the quantiser did; N a multiple of the hop."""
        made = self.quantizer(self.frames(samples))
        return self.decoder(made.values.transpose(1, 2))[:, 0], made

    def frames(self, samples: Tensor) -> Tensor:
        """Samples [B, N] to frames [B, T, D], before the quantiser."""
        return self.encoder(samples[:, None]).transpose(1, 2)

    # -- use --------------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> CodecEncoderState:
        """An empty stream for each row."""
        network = self.encoder.init_state(batch_size)
        like = next(self.encoder.parameters())
        return CodecEncoderState(
            network, like.new_zeros(batch_size, 1, self.hop), torch.zeros(batch_size, dtype=torch.long)
        )

    @torch.no_grad()
    def encode(self, audio: Audio, state: CodecEncoderState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N], channels are averaged; at any rate when whole, at the codec's when streaming.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows: a last frame that is not whole is filled with silence.
        :returns: codes [B, K, T] on the CPU; of whole recordings T = ceil(N / hop).
        :raises ConfigError: a stream came at another rate, or with another number of rows.
        """
        audio = audio.mono()
        if state is None:
            audio = audio.to(self.sample_rate)
        elif audio.sample_rate != self.sample_rate:
            raise ConfigError(
                f"A stream came at {audio.sample_rate} Hz. Resample it to {self.sample_rate} Hz as it comes."
            )
        elif len(state.count) != len(audio):
            raise ConfigError(f"A stream of {len(state.count)} rows got audio of {len(audio)}. Give one row each.")
        samples = audio.samples.to(next(self.encoder.parameters()))
        lengths = audio.lengths.tolist()
        if state is not None:
            samples, lengths = self._take(samples, lengths, state, final)
        frames = run_rows(
            self.encoder,
            samples,
            lengths,
            None if state is None else state.network,
            final=final,
            block=_block(self.config) * self.hop,
            channels=self.config.network.dim,
        )
        rows = []
        for x in frames:
            if x.shape[1]:
                codes = self.quantizer.encode(x.T[None], self.config.num_codebooks).cpu()
            else:
                codes = torch.zeros(1, self.config.books, 0, dtype=torch.long)
            rows.append(TokenSequence(codes, torch.tensor([codes.shape[2]])))
        return pad_batch(rows)

    def _take(
        self, samples: Tensor, lengths: list[int], state: CodecEncoderState, final: bool
    ) -> tuple[Tensor, list[int]]:
        """What was held and what is new [B, 1, N'], as far as whole frames go; the rest is held."""
        rows = [
            torch.cat([state.held[b, :, : int(state.count[b])], samples[b, :, :n]], dim=1)
            for b, n in enumerate(lengths)
        ]
        ready = [x.shape[1] if final else x.shape[1] // self.hop * self.hop for x in rows]
        state.held = torch.zeros_like(state.held)
        for b, x in enumerate(rows):
            left = x[:, ready[b] :]
            state.held[b, :, : left.shape[1]] = left
            state.count[b] = left.shape[1]
        return nn.utils.rnn.pad_sequence([x.T for x in rows], batch_first=True).transpose(1, 2), ready

    def decode(self, codes: TokenSequence, state: StackState | None = None, *, final: bool = False) -> Audio:
        """
        :param codes: [B, k, T] of the first k codebooks.
        :param state: of ``decoder_state``, updated in place; None for whole sequences.
        :param final: no more codes follow.
        :returns: [B, 1, T * hop].
        """
        return self.synthesizer.decode(codes, state, final=final)

    def decoder_state(self, batch_size: int) -> StackState:
        """An empty stream of codes for each row."""
        return self.synthesizer.init_state(batch_size)

    @property
    def synthesizer(self) -> "CodecSynthesizer":
        """The part that speaks, without copying it."""
        return CodecSynthesizer(self.config, self.quantizer, self.decoder)


def _block(config: Codec.Config) -> int:
    """Most frames that are computed at once."""
    return max(round(_BLOCK_SECONDS * config.sample_rate / config.network.hop), 1)


class CodecSynthesizer(nn.Module):
    """The half of a codec that speaks: codes to audio.

    :param num_codebooks: most that it takes.
    """

    def __init__(self, config: Codec.Config, quantizer: Quantizer, decoder: Stack) -> None:
        super().__init__()
        self.quantizer, self.decoder = quantizer, decoder
        self.num_codebooks, self.sample_rate = config.quantizer.num_books, config.sample_rate
        self.hop = config.network.hop
        self.block = _block(config)

    def init_state(self, batch_size: int) -> StackState:
        """An empty stream of codes for each row."""
        return self.decoder.init_state(batch_size)

    @torch.no_grad()
    def decode(self, codes: TokenSequence, state: State | None = None, *, final: bool = False) -> Audio:
        """See ``Codec.decode``."""
        device = next(self.decoder.parameters()).device
        x = self.quantizer.decode(codes.values.to(device)).transpose(1, 2)
        rows = run_rows(self.decoder, x, codes.lengths.tolist(), state, final=final, block=self.block, channels=1)
        samples = nn.utils.rnn.pad_sequence([r.T for r in rows], batch_first=True).transpose(1, 2)
        return Audio(samples, self.sample_rate, codes.lengths.to(device) * self.hop)
