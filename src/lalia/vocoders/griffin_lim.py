"""GriffinLim: audio from units or mel spectra by signal processing alone; the floor of every comparison."""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.nn.spectral import LogMel, istft, stft
from lalia.nn.standard import StandardScale
from lalia.nn.whole import WholeState, collect, init_whole
from lalia.streaming import State
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence, valid_steps
from lalia.vocoders.base import Vocoder, check_codes, check_features, check_speaker, find_spec, find_stream, hop_of

__all__ = ["GriffinLim", "griffin_lim"]

_BLOCK, _OVERLAP = 6000, 20
"""In spectra."""


def griffin_lim(
    size: Tensor, hop: int, window: Tensor, *, iterations: int = 32, momentum: float = 0.99, seed: int = 0
) -> Tensor:
    """Samples whose spectrum has nearly these magnitudes (fast Griffin-Lim: Perraudin et al., WASPAA 2013).

    :param size: magnitudes [..., n_fft // 2 + 1, T].
    :param momentum: 0 is the algorithm of Griffin and Lim (1984).
    :param seed: of the first phases, which are those of noise.
    :returns: [..., T * hop].
    """
    n_fft = window.shape[0]
    chance = torch.Generator().manual_seed(seed)
    # Noise is drawn in time, so that a longer signal begins with the phases of a shorter one.
    noise = torch.randn(size.shape[-1] * hop, generator=chance).to(size.device)
    phase = _direction(stft(noise, n_fft, hop, window))
    last: Tensor | None = None
    for _ in range(iterations):
        consistent = stft(istft(size * phase, hop, window), n_fft, hop, window)
        ahead = consistent if last is None else consistent + momentum * (consistent - last)
        last, phase = consistent, _direction(ahead)
    return istft(size * phase, hop, window)


def _direction(spectrum: Tensor) -> Tensor:
    return spectrum / spectrum.abs().clamp(min=1e-8)


class GriffinLim(Vocoder):
    """A mel spectrum per unit (or given), its linear spectrum by the pseudo-inverse, and phases by Griffin-Lim.

    For units, ``fit`` learns the mean log-mel spectrum of each, and of a stream without repeats also how long it
    lasts on average. The phases of a frame depend on the whole recording, so with a state everything is returned
    at the end.

    :param stream: units, or log-mel features as ``LogMel`` makes them (of ``bins`` bands).
    :param sample_rate: in Hz.
    :param upsample: spectra per frame of a stream of units.
    :param overlap: window length in hops.
    :param bins: mel bands from ``fmin`` to ``fmax`` Hz.
    :param iterations: of Griffin-Lim, with ``momentum``, starting from phases of ``seed``.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stream: str
        _: KW_ONLY
        sample_rate: int = 16000
        upsample: int = 1
        overlap: int = 4
        bins: int = 80
        fmin: float = 0.0
        fmax: float | None = None
        iterations: int = 32
        momentum: float = 0.99
        seed: int = 0

        def tiny(self) -> "GriffinLim.Config":
            return replace(self, iterations=min(self.iterations, 8))

    table: Tensor
    count: Tensor
    runs: Tensor
    inverse: Tensor

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.config = config
        self.spec = spec = find_spec(specs, config.stream, "GriffinLim")
        self.stream = config.stream
        self.reads = config.reads
        self.sample_rate = config.sample_rate
        self.step = hop_of(config.sample_rate, spec.frame_rate, "GriffinLim", config.upsample)
        self.hop = self.step * config.upsample
        if isinstance(spec.kind, Discrete):
            if spec.kind.num_codebooks > 1:
                raise ConfigError(
                    f"GriffinLim reads one codebook, and {config.stream!r} has {spec.kind.num_codebooks}. "
                    "Use a vocoder that is trained."
                )
            self.register_buffer("table", torch.zeros(spec.kind.codebook_size, config.upsample, config.bins))
            self.register_buffer("count", torch.zeros(spec.kind.codebook_size))
            if spec.deduplicated:
                self.register_buffer("runs", torch.zeros(spec.kind.codebook_size))
        elif spec.kind.dim != config.bins or config.upsample != 1:
            raise ConfigError(
                f"GriffinLim reads {config.bins} mel bands and {config.stream!r} has {spec.kind.dim}. "
                "Make bins the same, and upsample 1."
            )
        else:
            self.standard = StandardScale()
        self.mel = LogMel.Config(
            config.sample_rate,
            n_fft=config.overlap * self.step,
            hop=self.step,
            bins=config.bins,
            fmin=config.fmin,
            fmax=config.fmax,
        ).build()
        self.register_buffer("inverse", torch.linalg.pinv(self.mel.filters), persistent=False)

    def adopt(self, learned: Mapping[str, Mapping[str, Tensor]]) -> None:
        if isinstance(self.spec.kind, Continuous):
            self.standard.adopt(learned.get(self.stream, {}))

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Streams, Audio]]) -> None:
        """Learn the mean spectrum of every unit from units and the audio they were made of; may be called again."""
        for streams, audio in batches:
            units = find_stream(streams, self.stream).expand()
            check_codes(units, self.stream, 1, len(self.count))
            for b in range(len(units)):
                codes, samples = units.row(b).values[0, 0], audio.to(self.sample_rate).row(b).samples[0].mean(0)
                frames = min(len(codes), len(samples) // self.hop)
                mel = self.mel(samples[: frames * self.hop]).T.reshape(frames, *self.table.shape[1:])
                sums = torch.zeros_like(self.table).index_add_(0, codes[:frames], mel)
                seen = torch.bincount(codes[:frames], minlength=len(self.count)).to(self.count)
                self.count += seen
                if self.spec.deduplicated:
                    starts = torch.unique_consecutive(codes[:frames])
                    self.runs += torch.bincount(starts, minlength=len(self.count)).to(self.runs)
                # A running mean keeps its precision over any amount of speech.
                change = (sums - seen[:, None, None] * self.table) / self.count.clamp(min=1)[:, None, None]
                self.table += change

    def log_mel(self, units: Tensor) -> Tensor:
        """The mean spectra of units [..., T]: [..., T * upsample, bins]. A unit never seen sounds like the average."""
        total = self.count.sum().clamp(min=1)
        average = (self.table * self.count[:, None, None]).sum(0) / total
        table = torch.where(self.count[:, None, None] > 0, self.table, average)
        return table[units].flatten(-3, -2)

    @torch.no_grad()
    def predict_durations(self, units: TokenSequence) -> Tensor:
        """Frames [B, T] that each of the units [B, 1, T] lasts on average; zero behind a row's end."""
        check_codes(units, self.stream, 1, len(self.count))
        average = self.count.sum() / self.runs.sum().clamp(min=1)
        frames = torch.where(self.runs > 0, self.count / self.runs.clamp(min=1), average).round().clamp(min=1).long()
        there = valid_steps(units.lengths, units.num_tokens)
        return frames[units.values[:, 0]] * there

    def _expand(self, tokens: TokenSequence) -> TokenSequence:
        """One code or spectrum per frame."""
        if self.spec.deduplicated and tokens.durations is None:
            tokens = TokenSequence(tokens.values, tokens.lengths, self.predict_durations(tokens))
        return tokens.expand()

    def synthesize(self, mel: Tensor) -> Tensor:
        """Log-mel spectra [T, bins] to samples [T * step]."""
        if len(mel) <= _BLOCK + _OVERLAP:
            return self._invert(mel)
        # What is long is made in blocks that fade into one another, in memory that does not grow with it.
        made = mel.new_zeros(len(mel) * self.step, dtype=torch.float32)
        # The phases of two blocks have nothing to do with one another, so their powers add up, not their samples.
        fade = torch.linspace(0, 1, _OVERLAP * self.step, device=mel.device).sqrt()
        for start in range(0, len(mel), _BLOCK):
            first = max(start - _OVERLAP, 0)
            block = self._invert(mel[first : start + _BLOCK])
            if first < start:
                before = made[first * self.step : start * self.step]
                block[: len(fade)] = fade * block[: len(fade)] + fade.flip(0) * before
            made[first * self.step : first * self.step + len(block)] = block
        return made

    def _invert(self, mel: Tensor) -> Tensor:
        size = (self.inverse @ mel.T.float().exp()).clamp(min=1e-5)
        c = self.config
        return griffin_lim(size, self.step, self.mel.window, iterations=c.iterations, momentum=c.momentum, seed=c.seed)

    def init_state(self, batch_size: int) -> WholeState:
        codes = torch.zeros(1, 1, 1, dtype=torch.long, device=self.inverse.device)
        features = torch.zeros(1, 1, self.config.bins, device=self.inverse.device)
        return init_whole(codes if isinstance(self.spec.kind, Discrete) else features, batch_size)

    @torch.no_grad()
    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        assert state is None or isinstance(state, WholeState)
        tokens = find_stream(streams, self.stream)
        check_speaker(speaker, len(tokens), self.num_speakers)
        if isinstance(self.spec.kind, Discrete):
            check_codes(tokens, self.stream, 1, self.spec.kind.codebook_size)
        else:
            check_features(tokens, self.stream, self.config.bins)
        frames = self._expand(tokens)
        whole = frames if state is None else collect(frames, state, final=final)
        if whole is None:
            return Audio(self.inverse.new_zeros(len(tokens), 1, 0), self.sample_rate, torch.zeros_like(tokens.lengths))
        rows = []
        for b in range(len(whole)):
            values = whole.row(b).values[0]
            mel = self.log_mel(values[0]) if whole.discrete else self.standard.inverse(values)
            rows.append(Audio(self.synthesize(mel) if len(mel) else mel.new_zeros(0), self.sample_rate))
        return Audio.batch(rows)
