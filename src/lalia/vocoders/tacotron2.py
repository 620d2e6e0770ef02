"""Tacotron2: units to mel frames with attention; the first half of GSLM's synthesis."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.nn.spectral import LogMel
from lalia.nn.whole import WholeState, collect, init_whole
from lalia.streaming import State
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence, pad_batch, valid_steps
from lalia.vocoders.attention_decoder import AttentionDecoder
from lalia.vocoders.base import Stage, check_codes, check_speaker, find_spec, find_stream, speakers

__all__ = ["Tacotron2"]

_PIECES_AT_ONCE = 16

_LJSPEECH = LogMel.Config(22050, n_fft=1024, hop=256, bins=80, fmax=8000.0)


class _Convolutions(nn.Module):
    """Convolutions with batch norm; what lies behind a row's end is silence to each of them."""

    def __init__(self, widths: list[int], activations: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 5, padding=2) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for _, b in pairs)
        self.activations = activations

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] with the valid places [B, T] -> [B, T, out]."""
        valid = mask[:, None].to(x.dtype)
        x = x.transpose(1, 2)
        for conv, norm, activation in zip(self.convs, self.norms, self.activations, strict=True):
            x = F.dropout(activation(norm(conv(x * valid))), 0.5, self.training)
        return (x * valid).transpose(1, 2)


class Tacotron2(Stage):
    """Tacotron 2 (arXiv:1712.05884 §2.2) reading units instead of letters (GSLM, arXiv:2102.01192).

    Attention finds the durations, so units without repeats need none. It looks at all of them:
    with a state, everything is made at the end.

    :param stream: the stream of units.
    :param mel: what its frames are; the defaults are those of the public LJSpeech models.
    :param dim: of the unit embeddings and the encoder.
    :param decoder_dim: of the decoder's LSTMs.
    :param frames_per_unit: a row is ended at this many frames for each of its units, if it does not end itself.
    :param max_units: more than these are made piece by piece: attention keeps its way over as much as it was
        trained on, a sentence or two.
    :param seed: of the dropout before the decoder, which is on in synthesis too (§2.2).
    """

    terms = ("mel", "postnet", "stop")

    @dataclass(frozen=True)
    class Config(Stage.Config):
        _: KW_ONLY
        mel: LogMel.Config = _LJSPEECH
        num_speakers: int = 0
        dim: int = 512
        num_layers: int = 3
        decoder_dim: int = 1024
        attention_dim: int = 128
        prenet_dim: int = 256
        postnet_dim: int = 512
        postnet_layers: int = 5
        frames_per_unit: float = 40.0
        max_units: int = 400
        stop_threshold: float = 0.5
        seed: int = 0

        def tiny(self) -> "Tacotron2.Config":
            return replace(
                self,
                dim=32,
                num_layers=1,
                decoder_dim=64,
                attention_dim=16,
                prenet_dim=32,
                postnet_dim=32,
                postnet_layers=2,
                frames_per_unit=4.0,
                max_units=100,
            )

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.config = config
        spec = find_spec(specs, config.stream, "Tacotron2")
        if not isinstance(spec.kind, Discrete) or spec.kind.num_codebooks > 1 or config.dim % 2:
            raise ConfigError(
                f"Tacotron2 reads one codebook with an even dim, not {spec.kind} with dim {config.dim}. "
                "Name a stream of units and an even dim."
            )
        bins = config.mel.bins
        self.stream = config.stream
        self.reads = (config.stream,)
        self.mel = config.mel.build()
        self.sample_rate = config.mel.sample_rate
        rate = config.mel.sample_rate / config.mel.hop
        self.makes = {config.makes: StreamSpec(kind=Continuous(bins), frame_rate=rate)}
        self.codebook_size = spec.kind.codebook_size
        self.embedding = nn.Embedding(self.codebook_size, config.dim)
        nn.init.xavier_uniform_(self.embedding.weight)
        self.encoder = _Convolutions([config.dim] * (config.num_layers + 1), [F.relu] * config.num_layers)
        self.lstm = nn.LSTM(config.dim, config.dim // 2, batch_first=True, bidirectional=True)
        self.num_speakers = max(config.num_speakers, 1)
        self.voices = nn.Embedding(config.num_speakers, config.dim) if config.num_speakers else None
        self.decoder = AttentionDecoder(
            bins,
            config.dim,
            prenet_dim=config.prenet_dim,
            dim=config.decoder_dim,
            attention_dim=config.attention_dim,
        )
        inner = [config.postnet_dim] * (config.postnet_layers - 1)
        self.postnet = _Convolutions([bins, *inner, bins], [torch.tanh] * len(inner) + [nn.Identity()])

    def encode(self, codes: Tensor, lengths: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Units [B, T] to what the decoder attends to, [B, T, D]."""
        x = self.encoder(self.embedding(codes), valid_steps(lengths, codes.shape[1]))
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        memory, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=codes.shape[1])
        if self.voices is not None:
            memory = memory + self.voices(speakers(speaker, len(codes), codes.device))[:, None]
        return memory

    # -- training ---------------------------------------------------------------------------------

    @torch.no_grad()
    def analyse(self, audio: Audio) -> Streams:
        """The mel frames of a recording [B, 1, N] at the rate of ``mel``."""
        samples, hop = audio.samples[:, 0].to(self.mel.window.device), self.config.mel.hop
        frames = audio.lengths.to(samples.device) // hop
        mel = samples.new_zeros(len(audio), int(frames.max()), self.config.mel.bins)
        for b, n in enumerate(frames.tolist()):
            # A row at a time: at its end a spectrum sees the reflection of the row, not what it is padded with.
            mel[b, :n] = self.mel(samples[b, : n * hop]).T
        return {self.config.makes: TokenSequence(mel, frames)}

    def counts(self, streams: Streams, audio: Audio | None = None) -> dict[str, float]:
        """What to divide each loss by: values of the mel frames, and frames."""
        frames = float(find_stream(streams, self.config.makes).lengths.sum())
        return {"mel": frames * self.config.mel.bins, "postnet": frames * self.config.mel.bins, "stop": frames}

    def losses(self, streams: Streams, audio: Audio | None = None, speaker: Tensor | None = None) -> dict[str, Tensor]:
        """Sums of the squared error before and after the postnet, and of the stop token's cross-entropy (§2.2).

        :param streams: the units and the true mel frames, under the name in ``makes``.
        """
        units, mel = find_stream(streams, self.stream), find_stream(streams, self.config.makes)
        if not int(units.lengths.min()) or not int(mel.lengths.min()):
            raise DataError("A row for Tacotron2 has no units or no mel frames. Leave it out of the batch.")
        target, valid = mel.values, valid_steps(mel.lengths, mel.num_tokens)
        memory = self.encode(units.values[:, 0], units.lengths, speaker)
        before, stop = self.decoder(memory, valid_steps(units.lengths, units.num_tokens), target)
        after = before + self.postnet(before, valid)
        ends = torch.arange(mel.num_tokens, device=target.device) == mel.lengths[:, None] - 1
        return {
            "mel": ((before.float() - target) ** 2)[valid].sum(),
            "postnet": ((after.float() - target) ** 2)[valid].sum(),
            "stop": F.binary_cross_entropy_with_logits(stop.float()[valid], ends[valid].float(), reduction="sum"),
        }

    # -- synthesis --------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> WholeState:
        like = torch.zeros(1, 1, 1, dtype=torch.long, device=self.embedding.weight.device)
        return init_whole(like, batch_size)

    @torch.no_grad()
    def convert(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Streams:
        assert state is None or isinstance(state, WholeState)
        tokens = find_stream(streams, self.stream)
        check_codes(tokens, self.stream, 1, self.codebook_size)
        check_speaker(speaker, len(tokens), self.num_speakers)
        whole = tokens if state is None else collect(tokens, state, final=final)
        mel = self.embedding.weight.new_zeros(len(tokens), 0, self.config.mel.bins, dtype=torch.float32)
        made = TokenSequence(mel, torch.zeros_like(tokens.lengths))
        if whole is not None and int(whole.lengths.max()):
            voice = speakers(speaker, len(whole), whole.values.device)
            longest = int(whole.lengths.max())
            made = (
                TokenSequence(*self._synthesize(whole, voice))
                if longest <= self.config.max_units
                else pad_batch([self._in_pieces(whole.row(b), voice[b : b + 1]) for b in range(len(whole))])
            )
        return {self.config.makes: made}

    def _in_pieces(self, units: TokenSequence, speaker: Tensor) -> TokenSequence:
        """One row, in pieces of about equal length."""
        if not units.num_tokens:
            return TokenSequence(self.embedding.weight.new_zeros(1, 0, self.config.mel.bins), units.lengths)
        count = math.ceil(units.num_tokens / self.config.max_units)
        cuts = [units.num_tokens * i // count for i in range(count + 1)]
        pieces = [units.cut(a, b) for a, b in pairwise(cuts)]
        made = []
        for first in range(0, count, _PIECES_AT_ONCE):
            batch = pad_batch(pieces[first : first + _PIECES_AT_ONCE])
            mel, lengths = self._synthesize(batch, speaker.expand(len(batch)))
            made += [mel[b, :n] for b, n in enumerate(lengths.tolist())]
        joined = torch.cat(made)
        return TokenSequence(joined[None], units.lengths.new_tensor([len(joined)]))

    def _synthesize(self, units: TokenSequence, speaker: Tensor) -> tuple[Tensor, Tensor]:
        # An empty row still passes through the network, as one unit, and is cut away afterwards.
        counts = units.lengths.clamp(min=1)
        memory = self.encode(units.values[:, 0], counts, speaker)
        limits = (counts * self.config.frames_per_unit).long().clamp(min=1)
        frames: list[Tensor] = []
        lengths = torch.zeros_like(counts)
        for frame, stop in self.decoder.generate(memory, valid_steps(counts, memory.shape[1]), seed=self.config.seed):
            frames.append(frame)
            ends = (stop > self.config.stop_threshold) | (len(frames) >= limits)
            lengths = torch.where((lengths == 0) & ends, len(frames), lengths)
            if bool((lengths > 0).all()):
                break
        mel = torch.stack(frames, dim=1)
        mel = mel + self.postnet(mel, valid_steps(lengths, mel.shape[1]))
        return mel.float(), torch.where(units.lengths > 0, lengths, 0)
