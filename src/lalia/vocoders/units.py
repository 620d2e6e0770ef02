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
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence, valid_steps
from lalia.vocoders.base import Vocoder, check_codes, check_speaker, find_spec, find_stream, hop_of, speakers
from lalia.vocoders.conditions import Conditions, Joiner, JoinState, check_durations
from lalia.vocoders.durations import DurationPredictor, interior_durations

__all__ = ["UnitVocoder", "UnitVocoderState"]


@dataclass
class UnitVocoderState(State):
    """``frames``: history of the waveform network; ``tokens``: of the duration predictor, if any; ``joined``: what of
    the units and the streams beside them waits for its counterpart, if there are any; ``source``: what of the frames so
    far the next ones hang on, without end.
    """

    frames: FirState
    tokens: FirState | None
    joined: JoinState | None = None
    source: State | None = None


class UnitVocoder(Vocoder):
    """Codes of a clocked stream to samples through a network with a finite impulse response.

    A subclass has ``dim`` (the width of its input), ``field`` (what its waveform network sees) and ``waveform``.

    :param stream: the stream of codes; several codebooks are summed.
    :param sample_rate: of the audio made, in Hz.
    :param num_speakers: voices to choose from; 0 for one voice.
    :param predict_durations: learn how long a unit lasts. A stream without repeats needs it, or ``durations``.
    :param durations: the stream that says how long each unit lasts, as ``durations_of`` makes it (pGSLM).
    :param conditions: streams that are heard beside the units (arXiv:2104.00355: pitch; SpiRit-LM: pitch and style),
        added to their embeddings: features projected, codes embedded. What has a clock belongs to the units by time,
        what has none has a step for each unit.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stream: str
        _: KW_ONLY
        sample_rate: int = 16000
        num_speakers: int = 0
        predict_durations: bool = False
        durations: str | None = None
        conditions: tuple[str, ...] = ()

        @property
        def reads(self) -> tuple[str, ...]:
            return (self.stream, *([self.durations] if self.durations else []), *self.conditions)

    field: Field
    tracked = 0
    """Values that ``track`` adds to each frame."""

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec], *, dim: int, duration_dim: int) -> None:
        super().__init__()
        name = type(self).__name__
        self.spec = spec = find_spec(specs, config.stream, name)
        if not isinstance(spec.kind, Discrete):
            raise ConfigError(f"{name} reads codes, and {config.stream!r} holds features. Name a stream of units.")
        if spec.deduplicated and not config.predict_durations and config.durations is None:
            raise ConfigError(
                f"{name} reads {config.stream!r}, which has no repeats, and so no durations. Set predict_durations."
            )
        if config.durations is not None:
            if config.predict_durations:
                raise ConfigError(f"{name} predicts durations and reads {config.durations!r}. Choose one of both.")
            check_durations(config.durations, specs, name)
        if config.predict_durations and spec.kind.num_codebooks > 1:
            raise ConfigError(
                f"{name} cannot predict durations for the {spec.kind.num_codebooks} codebooks of {config.stream!r}. "
                "Unset predict_durations."
            )
        self.stream = config.stream
        self.reads = config.reads
        self.sample_rate = config.sample_rate
        self.hop = hop_of(config.sample_rate, spec.frame_rate, name)
        self.codebook_size = spec.kind.codebook_size
        self.num_codebooks = spec.kind.num_codebooks
        self.embeddings = nn.ModuleList(nn.Embedding(self.codebook_size, dim) for _ in range(self.num_codebooks))
        self.num_speakers = max(config.num_speakers, 1)
        self.voices = nn.Embedding(config.num_speakers, dim) if config.num_speakers else None
        self.durations = DurationPredictor(dim, duration_dim) if config.predict_durations else None
        self.conditions = Conditions(config.conditions, specs, dim, name)
        self._joiner: Joiner | None = None
        if len(self.reads) > 1:
            self._joiner = Joiner(spec, self.num_codebooks, self.conditions, config.durations)

    @abstractmethod
    def waveform(self, x: Tensor) -> Tensor:
        """Embedded frames [B, T, D] to samples [B, T * hop]."""

    def forward(
        self, codes: Tensor, speaker: Tensor | None = None, beside: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Codes [B, K, T], one per frame, and voices [B] to samples [B, T * hop].

        :param beside: codes [B, K, T] or features [B, T, D] of every condition, a step for each frame.
        """
        return self.waveform(self.dressed(codes, speaker, beside))

    def dressed(
        self, codes: Tensor, speaker: Tensor | None = None, beside: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """What the network reads [B, T, D]: codes with their conditions, in a voice; parameters as for ``forward``."""
        x = self.embed(codes) + self.conditions(beside or {})
        return x if self.voices is None else self.blend(x, self.voices(speakers(speaker, len(codes), codes.device)))

    def synthesize(self, streams: Streams, speaker: Tensor | None = None) -> Tensor:
        """The samples [B, T * hop] of segments of one length, with gradients; every condition has the units' frames."""
        beside = {name: find_stream(streams, name).values for name in self.conditions.names}
        samples: Tensor = self(find_stream(streams, self.stream).expand().values, speaker, beside)
        return samples

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
        there = valid_steps(runs.lengths, runs.num_tokens)
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

    def _time(self, tokens: TokenSequence, state: FirState | None, final: bool) -> TokenSequence:
        """Codes with the frames that each lasts, or one each."""
        if tokens.durations is not None or not self.spec.deduplicated or self.durations is None:
            return tokens
        timed, lengths = run_blocks(
            self._timed, self._token_field, tokens.values.transpose(1, 2), tokens.lengths, state, final=final
        )
        if timed.ndim == 2:  # nothing is certain yet
            return tokens.cut(0, 0)
        return TokenSequence(timed[..., :1].transpose(1, 2), lengths, timed[..., 1])

    # -- decoding ---------------------------------------------------------------------------------

    @property
    def lookahead_seconds(self) -> float:
        """How far into the future a sample depends on units; the latency of streaming."""
        return self.field.right * self.hop / self.sample_rate

    def init_state(self, batch_size: int) -> UnitVocoderState:
        device = next(self.parameters()).device
        codes = torch.zeros(1, 1, self.num_codebooks, dtype=torch.long, device=device)
        tokens = None
        if self.durations is not None and self.spec.deduplicated:
            tokens = init_fir(self._token_field, codes, batch_size)
        if self._joiner is None:
            return UnitVocoderState(init_fir(self.field, codes, batch_size), tokens)
        frames = torch.zeros(1, 1, self._joiner.width + self.tracked, device=device)
        joined, source = self._joiner.init_state(batch_size), self.init_source(batch_size)
        return UnitVocoderState(init_fir(self.field, frames, batch_size), tokens, joined, source)

    def init_source(self, batch_size: int) -> State | None:
        """The state of ``track``; None where there is nothing to track."""
        return None

    def track(self, beside: Mapping[str, Tensor], lengths: Tensor, state: State | None) -> Tensor:
        """What a frame has of all that went before it [B, T, tracked], which no window shows."""
        raise AssertionError("nothing is tracked")

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
        self.conditions.check(streams)
        check_speaker(speaker, len(tokens), self.num_speakers)
        voices = speakers(speaker, len(tokens), tokens.values.device)
        units = self._time(tokens, state.tokens if state else None, final)
        if self._joiner is None:
            units = units.expand()
            frames, lengths = units.values.transpose(1, 2), units.lengths
        else:
            joined = self._joiner.join(units, streams, state.joined if state else None, final=final)
            frames, lengths = joined.values, joined.lengths
            if self.tracked:
                beside = self.conditions.split(frames[..., self.num_codebooks :])
                frames = torch.cat([frames, self.track(beside, lengths, state.source if state else None)], dim=-1)
                if state is not None and final:
                    state.source = self.init_source(len(tokens))
        samples, lengths = run_blocks(
            lambda frames, rows: self._speak(frames, voices[rows]),
            self.field,
            frames,
            lengths,
            state.frames if state else None,
            final=final,
        )
        return Audio(samples[:, None], self.sample_rate, lengths)

    def _speak(self, frames: Tensor, voices: Tensor) -> Tensor:
        """Codes [R, T, K], and the values of the conditions behind them, to samples [R, T * hop]."""
        codes = frames[..., : self.num_codebooks].long().transpose(1, 2)
        frames, tracked = frames[..., self.num_codebooks :].split(
            [frames.shape[-1] - self.num_codebooks - self.tracked, self.tracked], dim=-1
        )
        more = (tracked,) if self.tracked else ()
        samples: Tensor = self(codes, voices, self.conditions.split(frames), *more)
        return samples
