"""What the direct unit vocoders share: units in, durations, voices, exact streaming."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.nn.blocks import run_blocks
from lalia.nn.fir import Field, FirState, init_fir
from lalia.streaming import State
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence
from lalia.vocoders.base import Vocoder, check_codes, check_speaker, find_spec, find_stream, hop_of, speakers
from lalia.vocoders.durations import DurationPredictor, interior_durations

__all__ = ["UnitVocoder", "UnitVocoderState"]


@dataclass
class UnitVocoderState(State):
    """``frames``: history of the waveform network; ``tokens``: of the duration predictor, if any."""

    frames: FirState
    tokens: FirState | None


class UnitVocoder(Vocoder):
    """Codes of a clocked stream to samples through a network with a finite impulse response.

    A subclass has ``dim`` (the width of its input), ``field`` (what its waveform network sees) and ``waveform``.

    :param stream: the stream of codes; several codebooks are summed.
    :param sample_rate: of the audio made, in Hz.
    :param num_speakers: voices to choose from; 0 for one voice.
    :param predict_durations: learn how long a unit lasts. A stream without repeats needs it.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stream: str
        _: KW_ONLY
        sample_rate: int = 16000
        num_speakers: int = 0
        predict_durations: bool = False

    field: Field

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec], *, dim: int, duration_dim: int) -> None:
        super().__init__()
        name = type(self).__name__
        self.spec = spec = find_spec(specs, config.stream, name)
        if not isinstance(spec.kind, Discrete):
            raise ConfigError(f"{name} reads codes, and {config.stream!r} holds features. Name a stream of units.")
        if spec.deduplicated and not config.predict_durations:
            raise ConfigError(
                f"{name} reads {config.stream!r}, which has no repeats, and so no durations. Set predict_durations."
            )
        if config.predict_durations and spec.kind.num_codebooks > 1:
            raise ConfigError(
                f"{name} cannot predict durations for the {spec.kind.num_codebooks} codebooks of {config.stream!r}. "
                "Unset predict_durations."
            )
        self.stream = config.stream
        self.reads = (config.stream,)
        self.sample_rate = config.sample_rate
        self.hop = hop_of(config.sample_rate, spec.frame_rate, name)
        self.codebook_size = spec.kind.codebook_size
        self.num_codebooks = spec.kind.num_codebooks
        self.embeddings = nn.ModuleList(nn.Embedding(self.codebook_size, dim) for _ in range(self.num_codebooks))
        self.num_speakers = max(config.num_speakers, 1)
        self.voices = nn.Embedding(config.num_speakers, dim) if config.num_speakers else None
        self.durations = DurationPredictor(dim, duration_dim) if config.predict_durations else None

    @abstractmethod
    def waveform(self, x: Tensor) -> Tensor:
        """Embedded frames [B, T, D] to samples [B, T * hop]."""

    def forward(self, codes: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Codes [B, K, T], one per frame, and voices [B] to samples [B, T * hop]."""
        x = self.embed(codes)
        if self.voices is not None:
            voice = self.voices(speakers(speaker, len(codes), codes.device))
            x = self.blend(x, voice)
        return self.waveform(x)

    def blend(self, x: Tensor, voice: Tensor) -> Tensor:
        """Frames [B, T, D] in a voice [B, D]."""
        return x + voice[:, None]

    def embed(self, codes: Tensor) -> Tensor:
        """[B, K, T] -> [B, T, D]."""
        return torch.stack([table(codes[:, k]) for k, table in enumerate(self.embeddings)]).sum(0)

    # -- durations --------------------------------------------------------------------------------

    def duration_loss(self, units: TokenSequence) -> tuple[Tensor, int]:
        """Squared error of log(1 + frames), summed over the runs that are whole, and their number.

        :param units: expanded units [B, 1, T].
        """
        assert self.durations is not None
        runs, whole = interior_durations(units)
        assert runs.durations is not None
        there = torch.arange(runs.num_tokens, device=runs.lengths.device) < runs.lengths[:, None]
        error = self.durations(self.embed(runs.values), there).float() - torch.log1p(runs.durations.float())
        return (error**2)[whole].sum(), int(whole.sum())

    @torch.no_grad()
    def predict_durations(self, units: TokenSequence) -> Tensor:
        """Frames [B, T] that each of the units [B, 1, T] lasts; zero behind a row's end.

        :raises ConfigError: the vocoder has no duration predictor.
        """
        if self.durations is None:
            raise ConfigError(f"{type(self).__name__} cannot tell how long units last. Set predict_durations.")
        check_codes(units, self.stream, self.num_codebooks, self.codebook_size)
        codes = units.values.transpose(1, 2)
        frames = codes.new_zeros(codes.shape[:2])
        timed, _ = run_blocks(self._timed, self._token_field, codes, units.lengths)
        if timed.ndim == 3:  # otherwise all rows are empty
            frames[:, : timed.shape[1]] = timed[..., 1]
        return frames

    @property
    def _token_field(self) -> Field:
        reach = self.durations.reach if self.durations is not None else 0
        return Field(reach, reach, 1)

    def _timed(self, codes: Tensor, rows: Tensor) -> Tensor:
        """Codes [R, T, 1] with their predicted frames: [R, T, 2]."""
        assert self.durations is not None
        return torch.cat([codes, self.durations.frames(self.embed(codes.transpose(1, 2)))[..., None]], dim=-1)

    def _expand(self, tokens: TokenSequence, state: FirState | None, final: bool) -> TokenSequence:
        """One code per frame."""
        if tokens.durations is not None:
            return tokens.expand()
        if not self.spec.deduplicated:
            return tokens
        assert self.durations is not None
        timed, lengths = run_blocks(
            self._timed, self._token_field, tokens.values.transpose(1, 2), tokens.lengths, state, final=final
        )
        if timed.ndim == 2:  # nothing is certain yet
            return tokens.cut(0, 0)
        return TokenSequence(timed[..., :1].transpose(1, 2), lengths, timed[..., 1]).expand()

    # -- decoding ---------------------------------------------------------------------------------

    @property
    def lookahead_seconds(self) -> float:
        """How far into the future a sample depends on units; the latency of streaming."""
        return self.field.right * self.hop / self.sample_rate

    def init_state(self, batch_size: int) -> UnitVocoderState:
        like = torch.zeros(1, 1, self.num_codebooks, dtype=torch.long, device=next(self.parameters()).device)
        tokens = None
        if self.durations is not None and self.spec.deduplicated:
            tokens = init_fir(self._token_field, like, batch_size)
        return UnitVocoderState(init_fir(self.field, like, batch_size), tokens)

    @torch.no_grad()
    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        assert state is None or isinstance(state, UnitVocoderState)
        tokens = find_stream(streams, self.stream)
        check_codes(tokens, self.stream, self.num_codebooks, self.codebook_size)
        check_speaker(speaker, len(tokens), self.num_speakers)
        voices = speakers(speaker, len(tokens), tokens.values.device)
        units = self._expand(tokens, state.tokens if state else None, final)
        samples, lengths = run_blocks(
            lambda frames, rows: self(frames.transpose(1, 2), voices[rows]),
            self.field,
            units.values.transpose(1, 2),
            units.lengths,
            state.frames if state else None,
            final=final,
        )
        return Audio(samples[:, None], self.sample_rate, lengths)
